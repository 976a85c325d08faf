"""One file of any format as a table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.dataset.asefiles import read_asedb, read_extxyz, read_trajectory
from pacehpc.dataset.files import file_format, read_bytes
from pacehpc.dataset.pickle_classes import AtomsState, CellState, Foreign
from pacehpc.dataset.store import Store
from pacehpc.dataset.table import KEYS, Table
from pacehpc.dataset.unpickle import unpickle_frame
from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")


def read_table(path: Path, keys: Mapping[str, str] | None = None) -> Table:
    """All structures of a file of any known format.

    Args:
        path: the file.
        keys: names of columns in the file that are not the usual ones, by the names of `table.KEYS`.

    Raises:
        PacehpcError: the format is not known, or the file is damaged.
    """
    with open(path, "rb") as file:
        head = file.read(100)
    readers = {"asedb": read_asedb, "traj": read_trajectory}
    kind = file_format(head)
    if kind in readers:
        return readers[kind](path, keys)
    if kind == "hdf5":
        return store_table(path)
    data = read_bytes(path).removeprefix(b"\xef\xbb\xbf")  # the mark that editors on Windows put before UTF-8
    kind = file_format(data[:100])
    if kind == "pickle":
        return frame_table(data, str(path), keys)
    if kind == "extxyz":
        return read_extxyz(data, str(path), keys)
    if not data:
        raise PacehpcError(f"{path}: the file is empty.")
    raise PacehpcError(
        f"{path}: its content is no pickled pandas frame, extended xyz, ASE trajectory, ASE database or HDF5 file. "
        "Results of calculations are gathered by pace_collect; what ASE reads is written as extended xyz by "
        "ase.io.write('data.extxyz', ase.io.read(file, ':'))."
    )


def frame_table(data: bytes, source: str, keys: Mapping[str, str] | None = None) -> Table:
    """A pickled frame as a table.

    Args:
        data: the uncompressed pickle.
        source: the file's name, for messages.
        keys: names of its columns that are not the usual ones.

    Raises:
        PacehpcError: no frame of atoms.
    """
    frame = unpickle_frame(data, source)
    if "ase_atoms" not in frame.columns:
        why = f"; 'ase_atoms' cannot be read: {frame.unread['ase_atoms']}" if "ase_atoms" in frame.unread else ""
        raise PacehpcError(f"{source}: no column 'ase_atoms' (columns: {', '.join(frame.columns) or 'none'}{why}).")
    table = Table(source, frame.labels, unread={}, names=[n for n in frame.columns if n != "ase_atoms"])
    calculators = set()
    for row, atoms in enumerate(frame.columns["ase_atoms"]):
        calculators |= _add_pickled(table, atoms, f"{source}, row {frame.labels[row]}")
    if calculators:
        log.info("%s: calculators in the atoms are not used: %s", source, ", ".join(sorted(calculators)))
    for column in KEYS:
        usual = ("virial", "virials") if column == "virial" else (column,)
        for name in (keys[column],) if keys and column in keys else usual:
            if name in frame.columns:
                table.columns[column] = frame.columns[name]
                break
            if name in frame.unread:
                table.unread[column] = frame.unread[name]
    for info, kind in zip(table.info, frame.columns.get("config_type", ()), strict=False):
        if isinstance(kind, str):
            info["config_type"] = kind
    return table


def _add_pickled(table: Table, atoms: Any, where: str) -> set[str]:
    """Geometry of unpickled atoms, of ASE's class or one derived from it; names of calculators left out."""
    state = atoms.state if isinstance(atoms, (AtomsState, Foreign)) else None
    arrays = state.get("arrays") if isinstance(state, dict) else None
    if not isinstance(atoms, AtomsState) and not (isinstance(arrays, dict) and "_pbc" in state):
        name = getattr(atoms, "full_name", type(atoms).__name__)
        raise PacehpcError(f"{where}: 'ase_atoms' holds {name}, not ase.Atoms.")
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
    calculator = state.get("_calc")
    return {calculator.full_name} if isinstance(calculator, Foreign) else set()


def store_table(path: Path) -> Table:
    """The structures of a store as any data file has them; weights only where they were given or chosen by a policy.

    Raises:
        PacehpcError: no store, or a damaged one.
    """
    with Store(path) as store:
        data = store.dataset()
    columns: dict[str, Any] = {"forces": data.forces, "name": data.names, **data.extra}
    if np.isfinite(data.energy_corrected).any():
        columns["energy_corrected"] = data.energy_corrected
    if data.energy is not None:
        columns["energy"] = data.energy
    if data.stress is not None:
        columns["stress"] = list(data.stress)
    if data.weighting != "uniform":
        columns |= {"w_energy": data.w_energy, "w_forces": data.w_forces}
    return Table(
        str(path), data.index, data.per_structure(data.numbers), data.per_structure(data.positions),
        list(data.cells), list(data.pbc), data.info, columns, names=list(columns), stress_units="eV/A3",
    )  # fmt: skip
