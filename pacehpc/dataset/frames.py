"""Frames for users: the columns that their scripts know, written so that pandas.read_pickle reads them."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pacehpc.replacing import replacing

if TYPE_CHECKING:
    import pandas as pd

    from pacehpc.dataset.dataset import Dataset


def _objects(values: Sequence[Any], index: list[Any]) -> pd.Series:
    """A column of plain objects: pandas would make its own type of strings, which its older versions cannot read."""
    import pandas as pd

    column = np.empty(len(index), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return pd.Series(column, index=index, dtype=object)


def frame_of(data: Dataset, columns: Mapping[str, Sequence[Any]] | None = None) -> pd.DataFrame:
    """`name` (if there are any), `ase_atoms`, `energy` (if known), `energy_corrected`, `forces`, `stress`
    (if known), `energy_corrected_per_atom`, `NUMBER_OF_ATOMS`, `w_energy`, `w_forces`, then `columns`.

    Energies in eV, forces in eV/Å, stress in eV/Å³ (Voigt); the index is that of the data.
    """
    import pandas as pd  # takes its time, and only the root writes frames

    n_atoms = data.atoms_per_structure
    made: dict[str, Any] = {}
    if any(data.names):
        made["name"] = _objects(data.names, data.index)
    made["ase_atoms"] = _objects(data.atoms, data.index)
    if data.energy is not None:
        made["energy"] = data.energy
    made["energy_corrected"] = data.energy_corrected
    made["forces"] = _objects([f.copy() if np.isfinite(f).any() else None for f in data.forces], data.index)
    if data.stress is not None:
        made["stress"] = _objects(list(data.stress.copy()), data.index)
    made["energy_corrected_per_atom"] = data.energy_corrected / n_atoms
    made["NUMBER_OF_ATOMS"] = n_atoms
    made["w_energy"] = data.w_energy
    made["w_forces"] = _objects([w.copy() for w in data.w_forces], data.index)
    for name, values in (columns or {}).items():
        plain = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biuf"
        made[name] = values if plain else _objects(values, data.index)
    frame = pd.DataFrame(made, index=pd.Index(data.index))
    frame.columns = pd.Index(list(made), dtype=object)
    return frame


def write_frame(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a gzipped pickle beside `path` and rename it, so that a reader never meets half a file.

    Protocol 4, which every pandas since 1.0 reads: `pandas.read_pickle(path, compression="gzip")`.
    """
    with (
        replacing(Path(path)) as beside,
        open(beside, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=5) as packed,
    ):
        pickle.dump(frame, packed, protocol=4)
