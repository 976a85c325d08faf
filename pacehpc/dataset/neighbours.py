"""Neighbour lists with periodic images, cut to the cutoff of each ordered bond.

A list holds, for every centre i, the neighbour's atom index and the integer cell shift S with
r_ij = r_j - r_i + S·cell, for all images with 0 < r < rcut (self images included).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pacehpc.potential import Potential

_CHUNK_ATOMS = 4096  # atoms whose bonds are cut at once


@dataclass
class Neighbours:
    """Bonds of a run of structures.

    Attributes:
        offsets: (n_atoms+1,) int64, bonds of centre i are offsets[i]:offsets[i+1].
        atom: (n_bonds,) int32, index of the neighbour among the atoms of the run.
        shift: (n_bonds, 3) int32, cell shift.
    """

    offsets: np.ndarray
    atom: np.ndarray
    shift: np.ndarray


def complete_cells(cells: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Cells whose vectors in open directions are unit vectors orthogonal to the periodic ones; (n, 3, 3), Å."""
    full = np.array(cells, dtype=float)
    counts = pbc.sum(axis=1)
    full[counts == 0] = np.eye(3)
    for s in np.nonzero((counts == 1) | (counts == 2))[0]:
        periodic = np.nonzero(pbc[s])[0]
        _, _, basis = np.linalg.svd(full[s, periodic])
        full[s, ~pbc[s]] = basis[len(periodic) :]
    return full


def raw_lists(
    atom_offsets: np.ndarray, positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray, cutoff: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(i, j, S) of each structure in turn, i ascending, indices within the structure."""
    from vesin import NeighborList

    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    n_structures = len(atom_offsets) - 1
    if n_structures == 0:
        return
    full = complete_cells(cells, pbc)
    inverse = np.linalg.inv(full)
    fractions = np.einsum("ad,adk->ak", positions, np.repeat(inverse, np.diff(atom_offsets), axis=0))
    first = atom_offsets[:-1]
    extent = np.maximum.reduceat(fractions, first) - np.minimum.reduceat(fractions, first)
    # open directions: as periodic ones with the images out of reach
    full = np.where(pbc, 1.0, extent + cutoff + 1.0)[:, :, None] * full
    # vesin makes at most 1e5 boxes and divides by zero where that leaves less than one in a direction
    boxes = np.maximum(1.0 / (np.linalg.norm(np.linalg.inv(full), axis=1) * cutoff), 1.0)
    total = boxes.prod(axis=1)
    by_tree = (total > 5e4) & (boxes.min(axis=1) * np.cbrt(1e5 / total) < 1.5)
    offsets, trees = atom_offsets.tolist(), by_tree.tolist()
    for s in range(n_structures):
        points = positions[offsets[s] : offsets[s + 1]]
        if trees[s]:
            yield _by_tree(points, full[s], pbc[s], cutoff)
        else:
            yield search.compute(points, full[s], True, "ijS")


def periodic_images(
    points: np.ndarray, cell: np.ndarray, periodic: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All images of atoms that may be within the cutoff of atoms in the cell, the latter included.

    Returns (atom of each image, its shift (n_images, 3), cell of each atom (n_atoms, 3)): an image stands at
    points[atom] + (shift - home[atom]) @ cell, and with shift 0 inside the cell.
    """
    inverse = np.linalg.inv(cell)
    fractions = points @ inverse
    home = np.where(periodic, np.floor(fractions), 0).astype(int)
    fractions -= home
    reach = np.where(periodic, cutoff * np.linalg.norm(inverse, axis=0) + 1e-9, 0.0)  # in fractions of the cell
    atom, shift = np.arange(len(points)), np.zeros((len(points), 3), int)
    for d in np.nonzero(periodic)[0]:
        steps = np.arange(-int(np.ceil(reach[d])), int(np.ceil(reach[d])) + 1)
        atom = np.repeat(atom, len(steps))
        shift = np.repeat(shift, len(steps), axis=0)
        shift[:, d] = np.tile(steps, len(shift) // len(steps))
        place = fractions[atom, d] + shift[:, d]
        near = (place >= fractions[:, d].min() - reach[d]) & (place <= fractions[:, d].max() + reach[d])
        atom, shift = atom[near], shift[near]
    return atom, shift, home


def _by_tree(
    points: np.ndarray, cell: np.ndarray, periodic: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(i, j, S) by a k-d tree over the atoms and their images: for huge extents."""
    from scipy.spatial import cKDTree  # takes its time, and is rarely needed

    atom, shift, home = periodic_images(points, cell, periodic, cutoff)
    wrapped = points - home @ cell
    images = cKDTree(wrapped[atom] + shift @ cell)
    hits = images.query_ball_point(wrapped, cutoff)
    i = np.repeat(np.arange(len(points)), [len(h) for h in hits])
    image = np.concatenate([np.asarray(h, dtype=int) for h in hits])
    j = atom[image]
    moved = shift[image] + home[i] - home[j]
    other = (i != j) | shift[image].any(axis=1)
    return i[other], j[other], moved[other]


def first_closer_than(
    shortest: float, atom_offsets: np.ndarray, positions: np.ndarray, cells: np.ndarray, pbc: np.ndarray, progress: Any
) -> tuple[int, int, int] | None:
    """(structure, i, j) of the first pair of atoms or images closer than `shortest` Å; None: there is none."""
    reach = max(1.5, shortest)  # a smaller one is slower: more boxes
    full = complete_cells(cells, pbc)
    for s, (i, j, shift) in enumerate(raw_lists(atom_offsets, positions, cells, pbc, reach)):
        if len(i):
            points = positions[atom_offsets[s] : atom_offsets[s + 1]]
            r = points[j] - points[i] + shift @ full[s]
            nearest = int(np.argmin(np.einsum("bd,bd->b", r, r)))
            if np.linalg.norm(r[nearest]) < shortest:
                return s, int(i[nearest]), int(j[nearest])
        if progress is not None:
            progress(1)
    return None


def bond_vectors(
    positions: np.ndarray, cells: np.ndarray, structure: np.ndarray, i: np.ndarray, j: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """r_j - r_i + S·cell, (n_bonds, 3) Å; `structure` is the structure of each bond."""
    vectors = positions[j] - positions[i]
    moved = np.nonzero(shift.any(axis=1))[0]
    vectors[moved] += np.einsum("bk,bkd->bd", shift[moved].astype(float), cells[structure[moved]])
    return vectors


def find_neighbours(
    atom_offsets: np.ndarray,
    positions: np.ndarray,
    cells: np.ndarray,
    pbc: np.ndarray,
    species: np.ndarray,
    cutoffs: np.ndarray,
    progress: Any = None,
) -> tuple[Neighbours, np.ndarray]:
    """All bonds with 0 < r < cutoffs[species_i, species_j].

    Args:
        atom_offsets: (n_structures+1,), where the atoms of each structure begin.
        positions: (n_atoms, 3), Å.
        cells: (n_structures, 3, 3), Å.
        pbc: (n_structures, 3) bool.
        species: (n_atoms,) indices into `cutoffs`.
        cutoffs: (n_elements, n_elements), Å.
        progress: called with the number of finished structures, if given.

    Returns:
        The bonds, and their vectors (n_bonds, 3) in Å.
    """
    n_structures = len(atom_offsets) - 1
    lists = raw_lists(atom_offsets, positions, cells, pbc, float(cutoffs.max()))
    counts: list[np.ndarray] = []
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    first = 0
    while first < n_structures:
        last = int(np.searchsorted(atom_offsets, atom_offsets[first] + _CHUNK_ATOMS, side="right")) - 1
        last = min(max(last, first + 1), n_structures)
        found = [next(lists) for _ in range(first, last)]
        n_bonds = [len(f[0]) for f in found]
        base = np.repeat(atom_offsets[first:last], n_bonds)
        structure = np.repeat(np.arange(first, last), n_bonds)
        i = np.concatenate([f[0] for f in found]).astype(np.int64) + base
        j = np.concatenate([f[1] for f in found]).astype(np.int64) + base
        shift = np.concatenate([f[2] for f in found])
        vectors = bond_vectors(positions, cells, structure, i, j, shift)
        r2 = np.einsum("bd,bd->b", vectors, vectors)
        keep = (np.sqrt(r2) < cutoffs[species[i], species[j]]) & (r2 > 0)
        counts.append(np.bincount(i[keep] - atom_offsets[first], minlength=atom_offsets[last] - atom_offsets[first]))
        parts.append((j[keep].astype(np.int32), shift[keep].astype(np.int32), vectors[keep]))
        if progress is not None:
            progress(last - first)
        first = last
    per_atom = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    offsets = np.concatenate(([0], np.cumsum(per_atom))).astype(np.int64)
    atom = np.concatenate([p[0] for p in parts]) if parts else np.zeros(0, np.int32)
    shift = np.concatenate([p[1] for p in parts]) if parts else np.zeros((0, 3), np.int32)
    vectors = np.concatenate([p[2] for p in parts]) if parts else np.zeros((0, 3))
    return Neighbours(offsets, atom, shift), vectors


def cutoff_matrix(potential: Potential) -> np.ndarray:
    """rcut of each ordered bond, (n_elements, n_elements), Å, elements in the potential's order."""
    elements = potential.elements
    return np.array([[potential.bonds[a, b].rcut for b in elements] for a in elements], dtype=float)


def volumes(cells: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Volume of the cells periodic in three directions, else 0; (n,), Å³."""
    return np.where(pbc.all(axis=1), np.abs(np.linalg.det(cells)), 0.0)


def species_indices(numbers: np.ndarray, elements: Sequence[str]) -> np.ndarray:
    """Index of each atom's element in `elements`, -1 where it is not there; int32."""
    from ase.data import atomic_numbers

    table = np.full(256, -1, np.int32)
    for index, element in enumerate(elements):
        table[atomic_numbers[element]] = index
    return table[numbers]
