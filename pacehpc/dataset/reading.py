"""One file of any format as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.dataset.asefiles import read_asedb, read_extxyz
from pacehpc.dataset.files import file_format, read_bytes
from pacehpc.dataset.pickle_classes import AtomsState, CellState
from pacehpc.dataset.store import Store
from pacehpc.dataset.table import Table
from pacehpc.dataset.unpickle import unpickle_frame
from pacehpc.errors import PacehpcError


def read_table(path: Path, keys: Mapping[str, str] | None = None) -> Table:
    """All structures of a file of any known format.

    Args:
        path: the file; keys: names of columns that are not the usual ones.

    Raises:
        PacehpcError: the format is not known, or the file is damaged.
    """
    with open(path, "rb") as file:
        head = file.read(100)
    if file_format(head) == "asedb":
        return read_asedb(path, keys)
    if file_format(head) == "hdf5":
        return store_table(path)
    data = read_bytes(path)
    kind = file_format(data[:100])
    if kind == "pickle":
        return frame_table(data, str(path), keys)
    if kind == "extxyz":
        return read_extxyz(data, str(path), keys)
    if not data:
        raise PacehpcError(f"{path}: the file is empty.")
    raise PacehpcError(f"{path}: its content is no pickled pandas frame, extended xyz, ASE database or HDF5 file.")


def frame_table(data: bytes, source: str, keys: Mapping[str, str] | None = None) -> Table:
    """A pickled frame as a table; keys: names of columns that are not the usual ones."""
    columns, labels = unpickle_frame(data, source)
    for column, name in (keys or {}).items():
        if name not in columns:
            raise PacehpcError(f"{source}: no column '{name}' for {column} (columns: {', '.join(columns)}).")
        columns[column] = columns.pop(name)
    if "ase_atoms" not in columns:
        raise PacehpcError(f"{source}: no column 'ase_atoms' (columns: {', '.join(columns) or 'none'}).")
    table = Table(source, labels)
    for row, atoms in enumerate(columns.pop("ase_atoms")):
        where = f"{source}, row {labels[row]}"
        if not isinstance(atoms, AtomsState) or not isinstance(atoms.state, dict):
            raise PacehpcError(f"{where}: 'ase_atoms' holds {type(atoms).__name__}, not ase.Atoms.")
        state = atoms.state
        arrays = state.get("arrays")
        if not isinstance(arrays, dict) or "numbers" not in arrays or "positions" not in arrays:
            raise PacehpcError(f"{where}: the atoms have no numbers or positions.")
        cell = state.get("_cellobj", state.get("_cell"))
        if isinstance(cell, CellState):
            cell = cell.state.get("array") if isinstance(cell.state, dict) else None
        table.numbers.append(arrays["numbers"])
        table.positions.append(arrays["positions"])
        table.cells.append(cell)
        table.pbc.append(state.get("_pbc"))
        info = state.get("info")
        plain = (str, int, float, bool, np.generic)
        kept = {k: v for k, v in info.items() if isinstance(k, str) and isinstance(v, plain)} if info else {}
        table.info.append(kept)
    table.columns = columns
    return table


def store_table(path: Path) -> Table:
    """The structures of a store as any data file has them; weights only where they were given or chosen by a policy.

    Raises:
        PacehpcError: no store, or a damaged one.
    """
    with Store(path) as store:
        data = store.dataset()
    columns: dict[str, Any] = {"forces": data.forces, "name": data.names, **data.extra}
    if np.isfinite(data.energy_corrected).all():
        columns["energy_corrected"] = data.energy_corrected
    if data.energy is not None:
        columns["energy"] = data.energy
    if data.stress is not None:
        columns["stress"] = list(data.stress)
    if data.weighting != "uniform":
        columns |= {"w_energy": data.w_energy, "w_forces": data.w_forces}
    return Table(
        str(path), data.index, data.per_structure(data.numbers), data.per_structure(data.positions),
        list(data.cells), list(data.pbc), data.info, columns, stress_units="eV/A3",
    )  # fmt: skip
