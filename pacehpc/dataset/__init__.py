"""Reference data: from users' files to the flat arrays that backends take."""

from __future__ import annotations

from pacehpc.dataset.dataset import Dataset, structures_of
from pacehpc.dataset.frames import write_frame
from pacehpc.dataset.store import Store, input_hash, write_store

__all__ = ["Dataset", "Store", "input_hash", "structures_of", "write_frame", "write_store"]
