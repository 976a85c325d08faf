"""Prepared data in one HDF5 file, of which every rank reads only its own slices.

Structures stand in the order of their virtual shards; everything ragged is flat:

| group | datasets |
| --- | --- |
| structures | rows, atom_offsets and bond_offsets (n+1), cells, pbc, energy_corrected, w_energy, low, |
|  | where known: energy, stress, above_hull, w_factor |
| atoms | numbers, positions, forces, w_forces, n_bonds |
| bonds | atom (index within the structure), shift (int16, in cell vectors) |
| shards | bounds (n_shards+1, in structures), costs |
| text | index and info (JSON), names, sources and their sha256 as UTF-8 bytes, and offsets of each |
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from pacehpc.dataset.files import file_hash

FORMAT = 3

_SHAPES = {  # entries of one row, and the kinds of numbers
    "structures/rows": ((), "i"),
    "structures/atom_offsets": ((), "i"),
    "structures/bond_offsets": ((), "i"),
    "structures/cells": ((3, 3), "f"),
    "structures/pbc": ((3,), "b"),
    "structures/energy_corrected": ((), "f"),
    "structures/energy": ((), "f"),
    "structures/stress": ((6,), "f"),
    "structures/above_hull": ((), "f"),
    "structures/w_factor": ((), "f"),
    "structures/w_energy": ((), "f"),
    "structures/low": ((), "b"),
    "structures/loaded_rows": ((), "i"),
    "structures/source": ((), "i"),
    "text/index": ((), "u"),
    "text/index_offsets": ((), "i"),
    "text/names": ((), "u"),
    "text/names_offsets": ((), "i"),
    "atoms/numbers": ((), "u"),
    "atoms/positions": ((3,), "f"),
    "atoms/forces": ((3,), "f"),
    "atoms/w_forces": ((), "f"),
    "atoms/n_bonds": ((), "i"),
    "bonds/atom": ((), "i"),
    "bonds/shift": ((3,), "i"),
    "shards/bounds": ((), "i"),
    "shards/costs": ((), "f"),
    "text/info": ((), "u"),
    "text/info_offsets": ((), "i"),
    "text/sha256": ((), "u"),
    "text/sha256_offsets": ((), "i"),
    "text/sources": ((), "u"),
    "text/sources_offsets": ((), "i"),
}
_OPTIONAL = {f"structures/{name}" for name in ("energy", "stress", "above_hull", "w_factor")}


def _only_checksums(data: h5py.Dataset) -> bool:
    """Whether every byte of a data set stands in the file as it is, nothing packed and nothing left out."""
    filters = data.id.get_create_plist()
    plain = all(filters.get_filter(k)[0] == h5py.h5z.FILTER_FLETCHER32 for k in range(filters.get_nfilters()))
    return plain and data.id.get_storage_size() >= data.size * data.dtype.itemsize


def check_layout(file: h5py.File, size: int) -> None:
    """Only plain data sets of known shape whose numbers stand in this file: nothing larger is ever allocated.

    Raises:
        ValueError: links to elsewhere, packed or virtual data, other types or shapes, or more than the file can hold.
    """
    for name, (shape, kind) in _SHAPES.items():
        group, _, last = name.rpartition("/")
        link = file[group] if group else file
        if last not in link and name in _OPTIONAL:
            continue
        if not isinstance(link.get(last, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is not in this file")
        data = file[name]
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or not _only_checksums(data):
            raise ValueError(f"{name} is not a plain array")
        if data.shape is None or data.shape[1:] != shape or len(data.shape) != 1 + len(shape):
            raise ValueError(f"{name} has shape {data.shape}")
        if data.dtype.kind != kind:
            raise ValueError(f"{name} has type {data.dtype}")
        if data.size * data.dtype.itemsize > size:
            raise ValueError(f"{name} is larger than the file")


def check_finite(arrays: Mapping[str, np.ndarray | None]) -> None:
    for name, values in arrays.items():
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"{name} contains NaN or infinite values")


def input_hash(files: Sequence[str | os.PathLike[str]], options: Mapping[str, Any]) -> str:
    """SHA-256 of the files' contents and of all options that shape the prepared data."""
    digest = hashlib.sha256(json.dumps([FORMAT, options], sort_keys=True, default=str).encode())
    for path in files:
        digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()
