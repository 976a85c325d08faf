"""Reference data: from users' files to the flat arrays that backends take."""

from __future__ import annotations

from pacehpc.dataset.dataset import Dataset, structures_of

__all__ = ["Dataset", "structures_of"]
