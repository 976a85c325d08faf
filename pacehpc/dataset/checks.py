"""From the tables that files hold to flat, checked columns. Every complaint names file and row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from pacehpc.dataset.table import Table, row_name
from pacehpc.errors import PacehpcError
from pacehpc.structures import VOIGT

SHORTEST = 0.1  # Å; closer atoms are a mistake in the data
LARGEST = 1e7  # Å, of positions and cells
STRESS_UNITS = {"eV/A3": 1.0, "GPa": 1 / 160.21766208, "kbar": 0.1 / 160.21766208, "-kbar": -0.1 / 160.21766208}


def as_numbers(value: Any, shape: tuple[int | None, ...], what: str, where: str) -> np.ndarray:
    """`value` as a float64 array of `shape` (None: any length) with finite entries.

    Raises:
        PacehpcError: anything else, naming `what` and `where`.
    """
    if value is None:
        raise PacehpcError(f"{where}: {what} is missing.")
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = array.astype(float)
    except (ValueError, TypeError, OverflowError):
        raise PacehpcError(f"{where}: {what} is not an array of numbers.") from None
    if array.dtype.kind not in "iufb":
        raise PacehpcError(f"{where}: {what} is not an array of numbers.")
    wanted = tuple(n if m is None else m for n, m in zip(array.shape, shape, strict=False))
    if array.ndim != len(shape) or array.shape != wanted:
        text = " x ".join("n" if n is None else str(n) for n in shape) or "a single number"
        raise PacehpcError(f"{where}: {what} has shape {array.shape}, expected {text}.")
    array = array.astype(float)
    if not np.isfinite(array).all():
        raise PacehpcError(f"{where}: {what} contains NaN or infinite values.")
    return array


def geometry(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Checked (atom_offsets, numbers, positions, cells, pbc) of a table; lengths in Å."""
    counts, numbers, positions = [], [], []
    cells, pbc = np.zeros((len(table.labels), 3, 3)), np.zeros((len(table.labels), 3), bool)
    for row, (z, r, cell, periodic) in enumerate(
        zip(table.numbers, table.positions, table.cells, table.pbc, strict=True)
    ):
        where = row_name(table, row)
        r = as_numbers(r, (None, 3), "positions", where)
        z = as_numbers(z, (None,), "atomic numbers", where)
        if len(r) == 0:
            raise PacehpcError(f"{where}: a structure without atoms.")
        if len(z) != len(r):
            raise PacehpcError(f"{where}: {len(z)} atomic numbers but {len(r)} positions.")
        if (z != np.round(z)).any() or z.min() < 1 or z.max() >= len(chemical_symbols):
            raise PacehpcError(f"{where}: atomic numbers must be integers from 1 to {len(chemical_symbols) - 1}.")
        if cell is not None:
            cells[row] = as_numbers(cell, (3, 3), "cell", where)
            if np.abs(cells[row]).max() > LARGEST:
                raise PacehpcError(f"{where}: a cell beyond {LARGEST:g} Å.")
        if periodic is not None:
            flags = np.asarray(periodic)
            if flags.dtype.kind not in "bi" or flags.shape not in ((), (3,)):
                raise PacehpcError(f"{where}: pbc is not three flags.")
            pbc[row] = flags
        if np.abs(r).max() > LARGEST:
            raise PacehpcError(f"{where}: positions beyond {LARGEST:g} Å.")
        counts.append(len(r))
        numbers.append(z.astype(np.uint8))
        positions.append(r)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    if not counts:
        return offsets, np.zeros(0, np.uint8), np.zeros((0, 3)), cells, pbc
    flat_cells(table, cells, pbc)
    return offsets, np.concatenate(numbers), np.concatenate(positions), cells, pbc


def flat_cells(table: Table, cells: np.ndarray, pbc: np.ndarray) -> None:
    """Raises PacehpcError where periodic cell vectors are zero, lie in a line or plane, or repeat atoms too closely."""
    periodic = np.where(pbc[:, :, None], cells, 0.0)
    lengths = np.linalg.norm(periodic, axis=2)
    unit = np.where(pbc[:, :, None], periodic / np.where(lengths > 0, lengths, 1.0)[:, :, None], 0.0)
    gram = unit @ unit.transpose(0, 2, 1)
    gram[:, range(3), range(3)] = np.where(pbc, lengths > 0, 1.0)  # open directions do not count
    flat = np.linalg.det(gram) < 1e-10
    if flat.any():
        row = row_name(table, int(np.argmax(flat)))
        raise PacehpcError(f"{row}: periodic, but the cell has no volume (cell vectors zero or parallel).")
    # a lattice with a smaller cell than the densest packing of spheres repeats every atom closer than SHORTEST
    spread = np.sqrt(np.linalg.det(gram)) * np.where(pbc, lengths, 1.0).prod(axis=1)
    densest = np.array([0.0, 1.0, math.sqrt(3) / 2, math.sqrt(0.5)])[pbc.sum(axis=1)]
    dense = (pbc & (lengths < SHORTEST)).any(axis=1) | (spread < densest * SHORTEST ** pbc.sum(axis=1))
    if dense.any():
        row = row_name(table, int(np.argmax(dense)))
        raise PacehpcError(f"{row}: an atom and its own periodic image are closer than {SHORTEST} Å.")


def known_elements(table: Table, offsets: np.ndarray, numbers: np.ndarray, elements: Sequence[str] | None) -> None:
    """Raises PacehpcError at the first structure with an element that is not in `elements`."""
    if elements is None:
        return
    unknown = [s for s in elements if s not in chemical_symbols[1:]]
    if unknown:
        raise PacehpcError(f"Unknown element {unknown[0]!r} in the list of elements.")
    allowed = np.isin(numbers, [chemical_symbols.index(e) for e in elements])
    if not allowed.all():
        atom = int(np.nonzero(~allowed)[0][0])
        row = int(np.searchsorted(offsets, atom, side="right")) - 1
        raise PacehpcError(
            f"{row_name(table, row)}: contains {chemical_symbols[numbers[atom]]}, "
            f"but the potential is for {' '.join(elements)}."
        )


def scalars(table: Table, name: str) -> np.ndarray:
    """Column `name` as finite numbers, (n_structures,)."""
    values = table.columns[name]
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and np.isfinite(values).all():
        return values.astype(float)
    return np.array([float(as_numbers(v, (), name, row_name(table, k))) for k, v in enumerate(values)])


def per_atom(table: Table, name: str, offsets: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Column `name` with one entry an atom, flat: (n_atoms, *shape); a single number counts for all atoms."""
    counts = np.diff(offsets)
    parts = []
    for row, value in enumerate(table.columns[name]):
        if not shape and np.ndim(value) == 0 and value is not None:
            value = np.full(counts[row], float(as_numbers(value, (), name, row_name(table, row))))
        part = as_numbers(value, (None, *shape), name, row_name(table, row))
        if len(part) != counts[row]:
            raise PacehpcError(f"{row_name(table, row)}: {name} for {len(part)} atoms, but there are {counts[row]}.")
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros((0, *shape))


def stresses(table: Table, units: str) -> np.ndarray:
    """Column `stress` as Voigt rows (n_structures, 6) in eV/Å³; NaN rows where there is none."""
    if units not in STRESS_UNITS:
        raise PacehpcError(f"data.stress_units: {units!r} is not one of {', '.join(STRESS_UNITS)}.")
    found = np.full((len(table.labels), 6), np.nan)
    for row, value in enumerate(table.columns["stress"]):
        try:
            array = np.asarray(value, dtype=float)
        except (TypeError, ValueError, OverflowError):
            array = np.asarray(np.nan if value is None else "?")
        if array.dtype.kind == "f" and np.isnan(array).all():
            continue
        where = row_name(table, row)
        array = as_numbers(value, (3, 3) if array.ndim == 2 else (6,), "stress", where)
        if array.ndim == 2:
            if np.abs(array - array.T).max() > 1e-4 * max(np.abs(array).max(), 1e-3):
                raise PacehpcError(f"{where}: the stress tensor is not symmetric.")
            array = (0.5 * (array + array.T))[VOIGT]
        found[row] = array * STRESS_UNITS[units]
    return found
