"""Structures at other densities, and how far a potential is reliable when they are compressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ase import Atoms
from vesin import ase_neighbor_list

Grades = Callable[[Sequence[Atoms]], list[np.ndarray]]
"""Extrapolation grades of the atoms of each structure."""
Pair = tuple[str, str]


def nearest_distance(atoms: Atoms, reach: float = 4.0) -> float:
    """Return the smallest distance of two atoms, periodic images included, Å; inf if none is within `reach`."""
    while True:
        (distances,) = ase_neighbor_list("d", atoms, reach)
        if len(distances):
            return float(distances.min())
        if reach > 12.0:
            return np.inf
        reach *= 1.5


def scaled(atoms: Atoms, factor: float) -> Atoms:
    """Return the structure with positions and cell multiplied by `factor`, without calculator."""
    other = Atoms(atoms.numbers, positions=atoms.positions * factor, cell=atoms.cell * factor, pbc=atoms.pbc)
    return other


def compressed(atoms: Atoms, shortest: float, step: float, longest: float = np.inf) -> Iterator[tuple[float, Atoms]]:
    """Yield the structure with ever shorter nearest-neighbour distances, those from `longest` down to `shortest`.

    Args:
        atoms: where to start from.
        shortest, step, longest: Å.
    """
    start = nearest_distance(atoms)
    if not np.isfinite(start):
        return
    for distance in np.arange(min(start, longest), shortest - 1e-9, -step).tolist():
        yield distance, scaled(atoms, distance / start)


def shortest_reliable(
    structures: Sequence[Atoms],
    grades: Grades,
    limit: float,
    shortest: float = 1.0,
    longest: float = 2.5,
    step: float = 0.05,
) -> dict[Pair, float]:
    """Find per bond the shortest distance down to which compressed structures stay below a grade.

    A bond counts while both of its atoms have grades up to `limit`; the compression of a structure ends for a pair of
    elements where one of its nearest bonds does not count any more.

    Args:
        structures: to compress.
        grades: of atoms.
        limit: grade up to which the potential is reliable.
        shortest, longest, step: range of nearest-neighbour distances, Å.

    Returns:
        Distances in Å by sorted pair of elements; pairs that are never reliable in this range are missing.
    """
    found: dict[Pair, float] = {}
    for atoms in structures:
        series = [atoms, *(other for _, other in compressed(atoms, shortest, step, longest))]
        ended: set[Pair] = set()
        for other, grade in zip(series, grades(series), strict=True):
            nearest = _nearest_by_pair(other, grade, limit)
            for pair, (distance, reliable) in nearest.items():
                if not reliable:
                    ended.add(pair)
                elif pair not in ended:
                    found[pair] = min(found.get(pair, np.inf), distance)
    return found


def _nearest_by_pair(
    atoms: Atoms, grade: np.ndarray, limit: float, reach: float = 5.0
) -> dict[Pair, tuple[float, bool]]:
    """Smallest distance of each pair of elements, and whether the grades of its two atoms are within the limit."""
    first, second, distances = ase_neighbor_list("ijd", atoms, reach)
    symbols = np.array(atoms.get_chemical_symbols())
    found: dict[Pair, tuple[float, bool]] = {}
    order = np.argsort(distances, kind="stable")
    for i, j, r in zip(first[order].tolist(), second[order].tolist(), distances[order].tolist(), strict=True):
        pair = tuple(sorted((symbols[i], symbols[j])))
        if pair not in found:
            found[pair] = (r, bool(max(grade[i], grade[j]) <= limit))
    return found
