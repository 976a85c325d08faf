"""Reference data: from users' files to the flat arrays that backends take."""

from __future__ import annotations

from pacehpc.dataset.dataset import Dataset, structures_of
from pacehpc.dataset.frames import frame_of, write_frame
from pacehpc.dataset.loading import load_dataset
from pacehpc.dataset.store import Store
from pacehpc.dataset.store_format import input_hash
from pacehpc.dataset.store_writing import write_store

__all__ = [
    "Dataset", "Store", "frame_of", "input_hash", "load_dataset", "structures_of", "write_frame", "write_store",
]  # fmt: skip
