"""Rows of B functions for the atoms of many structures, in blocks that depend on the structures alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from pacehpc.active.active_set import ActiveSet, sorted_columns
from pacehpc.active.choose import Block
from pacehpc.active.distance import Distances
from pacehpc.active.order import column_functions
from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import Evaluator, LossWeights
from pacehpc.dataset import structures_of
from pacehpc.potential import Potential
from pacehpc.uncertainty.deviations import Deviations, deviations
from pacehpc.uncertainty.model import Uncertainty

BLOCK_ATOMS = 2048
"""A block ends with the structure that reaches this number of atoms."""


class Predicted(NamedTuple):
    """What a potential says of one structure."""

    number: int
    """Of the structure."""
    energy: float
    """eV, relative to free atoms."""
    forces: np.ndarray
    """(n_atoms, 3), eV/Å."""
    stress: np.ndarray
    """(6,), eV/Å³, xx yy zz yz xz xy; NaN unless periodic in three directions."""
    grades: np.ndarray
    """(n_atoms,); NaN without an active set."""
    distances: np.ndarray
    """(n_atoms,): distance grades; NaN without distances."""
    energy_std: float
    """Standard deviation of the energy, eV; NaN without uncertainty."""
    forces_std: np.ndarray
    """Standard deviations of the forces, (n_atoms, 3), eV/Å; NaN without uncertainty."""


def block_bounds(offsets: np.ndarray) -> np.ndarray:
    """Cut structures into blocks.

    Args:
        offsets: of the structures' atoms, (n_structures + 1,).

    Returns:
        Where blocks begin and end among the structures, (n_blocks + 1,).
    """
    bounds, reached, last = [0], 0, len(offsets) - 1
    for k, end in enumerate(offsets[1:].tolist(), 1):
        if end - reached >= BLOCK_ATOMS or k == last:
            bounds.append(k)
            reached = end
    return np.array(bounds)


class DataRows:
    """This rank's blocks of structures that every rank holds.

    Args:
        structures: of all ranks.
        potential: whose functions are evaluated.
        backend: 'cpu', 'cuda' or 'reference'.
        rank, size: of this process among those that share the blocks.
        full: rows of ∂E_i/∂c instead of B functions.
        memory: bytes of rows that may be kept between sweeps; the others are computed again in each.
    """

    def __init__(
        self,
        structures: Sequence[Atoms],
        potential: Potential,
        backend: str,
        rank: int = 0,
        size: int = 1,
        full: bool = False,
        memory: float = 0.0,
    ) -> None:
        self.structures, self.potential, self.backend, self.full = structures, potential, backend, full
        self.offsets = np.concatenate(([0], np.cumsum([len(atoms) for atoms in structures]))).astype(np.int64)
        bounds = block_bounds(self.offsets)
        ends = self.offsets[bounds]
        share = np.searchsorted(ends, np.arange(size + 1) * (ends[-1] / size), side="left")
        share[0], share[-1] = 0, len(bounds) - 1
        self._blocks = [(k, bounds[k], bounds[k + 1]) for k in range(share[rank], share[rank + 1])]
        self._memory, self._kept = memory, {}
        self.left_out = np.zeros(self.offsets[-1], bool)
        """Atoms that take no part, (n_atoms,)."""

    def sizes(self) -> dict[str, int]:
        """Return the number of columns of each element that has atoms and functions."""
        present = {number for atoms in self.structures for number in np.unique(atoms.symbols).tolist()}
        sizes = {}
        for element in self.potential.elements:
            n = len(column_functions(self.potential, element))
            if n and element in present:
                sizes[element] = n * (self.potential.embeddings[element].ndensity if self.full else 1)
        return sizes

    def blocks(self) -> Iterator[Block]:
        """Yield the number of each block, and per element the numbers of its atoms and their rows."""
        for number, first, last in self._blocks:
            block = self._kept.get(number)
            if block is None:
                block = self._rows(first, last)
                size = sum(rows.nbytes for _, rows in block.values())
                if size <= self._memory:
                    self._memory -= size
                    self._kept[number] = block
            used = {element: ~self.left_out[atoms] for element, (atoms, _) in block.items()}
            yield number, {e: (atoms[used[e]], rows[used[e]]) for e, (atoms, rows) in block.items()}

    def force_errors(self, forces: Sequence[np.ndarray]) -> np.ndarray:
        """Predict the forces on this rank's atoms and compare them.

        Args:
            forces: of all structures, (n_atoms, 3) each, eV/Å.

        Returns:
            |F - F_ref| in eV/Å, 0 for the atoms of other ranks, (n_atoms,).
        """
        errors = np.zeros(self.offsets[-1])
        for _, first, last in self._blocks:
            predicted = self._evaluator(first, last).predict(self.potential.parameters).forces
            difference = predicted - np.concatenate([np.asarray(f, float) for f in forces[first:last]])
            errors[self.offsets[first] : self.offsets[last]] = np.linalg.norm(difference, axis=1)
        return errors

    def predictions(
        self,
        active_set: ActiveSet | None = None,
        distances: Mapping[str, Distances] | None = None,
        uncertainty: Uncertainty | None = None,
    ) -> Iterator[Predicted]:
        """Yield energies, forces, stresses, grades and standard deviations of this rank's structures, in order.

        Args:
            active_set: of the potential; None: no grades.
            distances: of the potential's training data; None: no distance grades.
            uncertainty: of the potential; None: no standard deviations.
        """
        graded = [("full" if active_set.full else "basis", active_set.grades, 0)] if active_set is not None else []
        if distances is not None:
            graded.append(("basis", lambda element, rows: distances[element].grades(rows), 1))
        for _, first, last in self._blocks:
            structures = structures_of(self.structures[first:last], self.potential)
            evaluator = create_evaluator(self.backend, self.potential, structures, LossWeights())
            found = evaluator.predict(self.potential.parameters)
            grades = np.full((2, len(found.energies)), np.nan)
            for kind, grade, which in graded:
                for run in evaluator.atom_rows(self.potential.parameters, kind):
                    for element, atoms, rows in zip(self.potential.elements, run.atoms, run.values, strict=True):
                        if len(atoms):
                            grades[which, atoms] = grade(element, sorted_columns(self.potential, element, rows))
            spread = None
            if uncertainty is not None:
                spread = deviations(uncertainty, self.potential, self.backend, structures)
            for k in range(first, last):
                span = slice(*(self.offsets[k : k + 2] - self.offsets[first]).tolist())
                atoms = self.structures[k]
                stress = np.full(6, np.nan)
                if atoms.pbc.all():
                    stress = full_3x3_to_voigt_6_stress(found.virials[k - first] / atoms.get_volume())
                own = Deviations(np.nan, np.full((len(atoms), 3), np.nan)) if spread is None else next(spread)
                energy = float(found.energies[span].sum())
                yield Predicted(k, energy, found.forces[span], stress, *grades[:, span], *own)

    def _evaluator(self, first: int, last: int) -> Evaluator:
        structures = structures_of(self.structures[first:last], self.potential)
        return create_evaluator(self.backend, self.potential, structures, LossWeights())

    def _rows(self, first: int, last: int) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        kind = "full" if self.full else "basis"
        for run in self._evaluator(first, last).atom_rows(self.potential.parameters, kind):
            for element, atoms, rows in zip(self.potential.elements, run.atoms, run.values, strict=True):
                if len(atoms):
                    columns = sorted_columns(self.potential, element, rows)
                    found.setdefault(element, []).append((atoms + self.offsets[first], columns))
        return {e: tuple(np.concatenate(parts) for parts in zip(*runs, strict=True)) for e, runs in found.items()}


def outliers(errors: np.ndarray, symbols: np.ndarray, limit: float | None = None) -> np.ndarray:
    """Tell the atoms whose force error is an outlier of their element.

    Args:
        errors: |F - F_ref| in eV/Å, (n_atoms,).
        symbols: elements, (n_atoms,).
        limit: eV/Å; None: the third quartile plus 1.5 times the interquartile range of the element's errors.
    """
    if limit is not None:
        return errors > limit
    found = np.zeros(len(errors), bool)
    for element in np.unique(symbols):
        mine = symbols == element
        first, third = np.quantile(errors[mine], [0.25, 0.75])
        found[mine] = errors[mine] > third + 1.5 * (third - first)
    return found
