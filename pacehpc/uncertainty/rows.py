"""Derivatives of energies and of all force components by the parameters, structure by structure.

A force depends on the atoms within its reach alone. In structures that are larger than that, the rows of an atom come
from a cluster: the atom, its neighbours with all their bonds, and for everything farther away one atom per element at
which bonds may end. So the cost of a row does not grow with the structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import Evaluator, EvaluatorOptions, LossWeights
from pacehpc.dataset.dataset import concatenated_ranges
from pacehpc.potential import Potential
from pacehpc.structures import VOIGT, Structures

CLUSTER_COST = 3.0
"""Cost of the rows of an atom in a cluster, over those in a structure of as many atoms."""
CLUSTERS = 32
"""Atoms whose clusters are evaluated together."""

MakeEvaluator = Callable[[Structures], Evaluator]


def evaluator_maker(potential: Potential, backend: str, virials: bool = False) -> MakeEvaluator:
    """Evaluators of this potential for any structures; virials: rows may have strains."""
    options = EvaluatorOptions(virials=virials)

    def make(structures: Structures) -> Evaluator:
        return create_evaluator(backend, potential, structures, LossWeights(), options)

    return make


def runs(structures: Structures) -> Iterator[slice]:
    """Runs of structures of one size inside virtual shards: what is evaluated together depends on no ranks."""
    ends = np.append(structures.shard_starts, structures.n_structures)
    for begin, end in pairwise(ends.tolist()):
        sizes = structures.atoms_per_structure[begin:end]
        cuts = begin + np.flatnonzero(np.diff(sizes)) + 1
        for first, last in pairwise([begin, *cuts.tolist(), end]):
            yield slice(first, last)


def run_rows(evaluator: Evaluator, run: Structures, parameters: np.ndarray, stress: bool) -> Iterator[np.ndarray]:
    """Rows of each structure of a run of structures of one size.

    Args:
        evaluator: of the run.
        run: its structures, n_atoms each.
        parameters: (n_parameters,).
        stress: rows of the virial as well.

    Yields:
        For each structure (1 + 3 n_atoms + 6 with stress, n_parameters): ∂E, ∂F in the order of atoms and x, y, z,
        and ∂V of the components xx, yy, zz, yz, xz, xy.
    """
    n, n_structures = int(run.atoms_per_structure[0]), run.n_structures
    q = 3 * n + 6 * stress
    directions = np.zeros((q, n_structures, 3 * n))
    directions[np.arange(3 * n), :, np.arange(3 * n)] = 1.0
    strains = None
    if stress:
        strains = np.zeros((q, n_structures, 3, 3))
        for k, (a, b) in enumerate(zip(*VOIGT, strict=True)):
            strains[3 * n + k, :, a, b] = 1.0
    directions = directions.reshape(q, n_structures * n, 3)
    for _, values in evaluator.rows(parameters, "energy+forces", directions, strains):
        yield from values


def cluster_rows(make: MakeEvaluator, structure: Structures, parameters: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of the forces of one structure, some atoms at a time, (3 n_atoms, n_parameters)."""
    neighbours = neighbours_of(structure)
    for first in range(0, structure.n_atoms, CLUSTERS):
        found = clusters(structure, neighbours[first : first + CLUSTERS])
        directions = np.zeros((3, found.n_atoms, 3))
        directions[np.arange(3), found.atom_offsets[:-1, None], np.arange(3)] = 1.0
        values = [values for _, values in make(found).rows(parameters, "forces", directions)]
        yield np.concatenate(values).reshape(-1, len(parameters))


def is_large(structure: Structures) -> bool:
    """Whether clusters cost less than the whole structure."""
    sizes = [len(own) for own in neighbours_of(structure)]
    return CLUSTER_COST * float(np.mean(sizes)) < structure.n_atoms


def neighbours_of(structure: Structures) -> list[np.ndarray]:
    """The atoms on which the force on each atom depends as centres: itself first, then its neighbours, ascending."""
    offsets = structure.bond_offsets
    found = []
    for atom in range(structure.n_atoms):
        others = np.unique(structure.bond_atom[offsets[atom] : offsets[atom + 1]])
        found.append(np.concatenate(([atom], others[others != atom])))
    return found


def clusters(structure: Structures, centres: list[np.ndarray]) -> Structures:
    """A structure for each cluster of centres of `structure`.

    Bonds of a centre end at the first centre, which may move, or at an atom of the right element that does not: one of
    each element stands at the end of every cluster, without bonds of its own.
    """
    offsets, n_elements = structure.bond_offsets, int(structure.species.max()) + 1
    sizes = np.array([len(own) for own in centres])
    starts = np.concatenate(([0], np.cumsum(sizes + n_elements)))
    species, counts, ends, bonds = [], [], [], []
    for start, own in zip(starts[:-1].tolist(), centres, strict=True):
        n_bonds = offsets[own + 1] - offsets[own]
        bond = concatenated_ranges(offsets[own], n_bonds)
        partner = structure.bond_atom[bond]
        still = start + len(own) + structure.species[partner]
        species += [structure.species[own], np.arange(n_elements)]
        counts += [n_bonds, np.zeros(n_elements, np.int64)]
        ends.append(np.where(partner == own[0], start, still))
        bonds.append(bond)
    return Structures(
        starts,
        np.concatenate(species).astype(np.int32),
        np.concatenate(([0], np.cumsum(np.concatenate(counts)))),
        np.concatenate(ends).astype(np.int32),
        np.ascontiguousarray(structure.bond_vector[np.concatenate(bonds)]),
        np.zeros(len(centres)),
    )
