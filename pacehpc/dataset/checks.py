"""From the tables that files hold to flat, checked columns. Every complaint names file and row."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from pacehpc.dataset.table import Table, row_name
from pacehpc.errors import PacehpcError
from pacehpc.structures import VOIGT

log = logging.getLogger("pacehpc")

SHORTEST = 0.1  # Å; closer atoms are a mistake in the data
LARGEST = 1e7  # Å, of positions and cells
LARGEST_STRESS = 1.0  # eV/Å³, of most structures; beyond are other units
STRESS_UNITS = {"eV/A3": 1.0, "GPa": 1 / 160.21766208, "kbar": 0.1 / 160.21766208, "-kbar": -0.1 / 160.21766208}


def as_numbers(value: Any, shape: tuple[int | None, ...], what: str, where: str) -> np.ndarray:
    """`value` as a float64 array of `shape` (None: any length) with finite entries.

    A single number may stand in a list or in a text, such as Fortran's `5.0d0`.

    Raises:
        PacehpcError: anything else, naming `what` and `where`.
    """
    if value is None:
        raise PacehpcError(f"{where}: {what} is missing.")
    try:
        array = np.asarray(value)
        if array.dtype.kind in "SU" and array.ndim == 0:
            array = np.asarray(float(str(array).strip().replace("d", "e").replace("D", "e")))
        if array.dtype.kind == "O":
            array = array.astype(float)
        if not shape and array.size == 1:
            array = array.reshape(())
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


def missing(value: Any) -> bool:
    """Whether an entry of a column stands for nothing: None, or NaN alone."""
    if value is None:
        return True
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError, OverflowError):
        return False
    return array.size > 0 and bool(np.isnan(array).all())


def scalars(table: Table, name: str, unusable: dict[str, str]) -> np.ndarray:
    """Column `name` as numbers, (n_structures,).

    What is missing or is no number becomes NaN; the first such entry is described in `unusable`, under the column's
    name, and it is for those that use the column to complain.
    """
    values = table.columns[name]
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and np.isfinite(values).all():
        return values.astype(float)
    found = np.full(len(table.labels), np.nan)
    for row, value in enumerate(values):
        try:
            found[row] = as_numbers(value, (), name, row_name(table, row))
        except PacehpcError as problem:
            known = f" It has: {', '.join(table.names)}. See data.keys." if value is None and table.names else ""
            unusable.setdefault(name, f"{problem}{known}")
    return found


def per_atom(
    table: Table, name: str, offsets: np.ndarray, shape: tuple[int, ...], unusable: dict[str, str], optional: bool
) -> np.ndarray:
    """Column `name` with one entry per atom, flat: (n_atoms, *shape); a single number counts for all atoms.

    Args:
        table: the file's columns.
        name: of the column.
        offsets: (n_structures+1,), where the atoms of each structure begin.
        shape: of the entry of an atom.
        unusable: receives what is wrong with the first entry that is not an array of such numbers; NaN stands there.
        optional: structures and atoms without an entry (None, NaN) are NaN and nothing is wrong with them.
    """
    counts = np.diff(offsets)
    parts = []
    for row, value in enumerate(table.columns[name]):
        part = np.full((counts[row], *shape), np.nan)
        parts.append(part)
        if optional and missing(value):
            continue
        try:
            part[:] = _of_atoms(value, name, shape, counts[row], row_name(table, row), optional)
        except PacehpcError as problem:
            unusable.setdefault(name, str(problem))
    return np.concatenate(parts) if parts else np.zeros((0, *shape))


def _of_atoms(value: Any, name: str, shape: tuple[int, ...], count: int, where: str, optional: bool) -> np.ndarray:
    """The entries of one structure's atoms; with `optional`, NaN for an atom that has no complete one."""
    if not shape and np.ndim(value) == 0 and value is not None:
        return np.full(count, float(as_numbers(value, (), name, where)))
    if not shape and np.ndim(value) == 2 and np.shape(value)[1] == 1:
        value = np.ravel(value)
    unknown = np.zeros(count, bool)
    if optional:
        try:
            array = np.array(value, dtype=float)
        except (TypeError, ValueError, OverflowError):
            array = np.zeros(0)
        if array.shape == (count, *shape):
            unknown = np.isnan(array).reshape(count, -1).any(axis=1)
            array[unknown] = 0.0
            value = array
    part = as_numbers(value, (None, *shape), name, where)
    if len(part) != count:
        raise PacehpcError(f"{where}: {name} for {len(part)} atoms, but there are {count}.")
    part[unknown] = np.nan
    return part


def stresses(table: Table, units: str, volumes: np.ndarray, unusable: dict[str, str]) -> np.ndarray | None:
    """Stress as Voigt rows (n_structures, 6) in eV/Å³, NaN rows where there is none; None without any column of it.

    A virial (eV, summed over the cell as GAP, MACE and NEP write it) gives the stress -virial/V of structures without
    a stress of their own.

    Args:
        table: with the columns `stress` (in `units`) or `virial`, six or nine numbers each.
        units: one of `STRESS_UNITS`.
        volumes: (n_structures,) Å³, 0 where not periodic in three directions.
        unusable: receives what is wrong with the first entry that is no tensor, under "stress".

    Raises:
        PacehpcError: unknown units.
    """
    if units not in STRESS_UNITS:
        raise PacehpcError(f"data.stress_units: {units!r} is not one of {', '.join(STRESS_UNITS)}.")
    if "stress" not in table.columns and "virial" not in table.columns:
        return None
    found = np.full((len(table.labels), 6), np.nan)
    if "virial" in table.columns:
        found = -_tensors(table, "virial", unusable) / np.where(volumes > 0, volumes, np.nan)[:, None]
    if "stress" in table.columns:
        given = _tensors(table, "stress", unusable) * STRESS_UNITS[units]
        both = np.isfinite(given).all(axis=1) & np.isfinite(found).all(axis=1)
        _compare_with_virials(table, given[both], found[both])
        found = np.where(np.isfinite(given), given, found)
    largest = np.abs(found[np.isfinite(found).all(axis=1)]).max(axis=1, initial=0.0)
    if len(largest) and np.median(largest) > LARGEST_STRESS:
        log.warning(
            "%s: stresses up to %.4g eV/Å³ (1 eV/Å³ is 160 GPa): are these the units? data.stress_units "
            "(--stress-units on the command line) may be eV/A3, GPa, kbar, or -kbar for VASP's sign; a virial (eV) is "
            "named by data.keys: {virial: NAME}", table.source, largest.max(),
        )  # fmt: skip
    return found


def _compare_with_virials(table: Table, stress: np.ndarray, from_virials: np.ndarray) -> None:
    """Warn where the stress of a file is not that of its virial."""
    difference = np.abs(stress - from_virials).max(initial=0.0)
    scale = np.abs(from_virials).max(initial=0.0)
    if difference > 1e-2 * scale:
        log.warning(
            "%s: stress and virial do not agree (stresses up to %.4g eV/Å³, -virial/V up to %.4g): see "
            "data.stress_units; the stress is used", table.source, np.abs(stress).max(), scale,
        )  # fmt: skip


def _tensors(table: Table, name: str, unusable: dict[str, str]) -> np.ndarray:
    """Column `name` of symmetric tensors as Voigt rows, (n_structures, 6); NaN rows where there is none."""
    found = np.full((len(table.labels), 6), np.nan)
    for row, value in enumerate(table.columns[name]):
        if missing(value):
            continue
        where = row_name(table, row)
        try:
            array = np.reshape(value, (3, 3)) if np.size(value) == 9 and np.ndim(value) == 1 else value
            array = as_numbers(array, (3, 3) if np.ndim(array) == 2 else (6,), name, where)
            if array.ndim == 2:
                if np.abs(array - array.T).max() > 1e-4 * max(np.abs(array).max(), 1e-3):
                    raise PacehpcError(f"{where}: the {name} tensor is not symmetric.")
                array = (0.5 * (array + array.T))[VOIGT]
            found[row] = array
        except PacehpcError as problem:
            unusable.setdefault("stress", str(problem))
    return found
