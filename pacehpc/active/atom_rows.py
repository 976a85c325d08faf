"""Rows of B functions for the atoms of a data set, in blocks that depend on the data alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from pacehpc.active.active_set import sorted_columns
from pacehpc.active.choose import Block
from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.dataset import Dataset
from pacehpc.potential import Potential

BLOCK_ATOMS = 2048
"""A block ends with the structure that reaches this number of atoms."""


def block_bounds(atoms_per_structure: np.ndarray) -> np.ndarray:
    """Cut structures into blocks; returns where they begin and end, (n_blocks + 1,)."""
    ends = np.cumsum(atoms_per_structure)
    bounds, reached = [0], 0
    for k, end in enumerate(ends.tolist()):
        if end - reached >= BLOCK_ATOMS or k + 1 == len(ends):
            bounds.append(k + 1)
            reached = end
    return np.array(bounds)


class AtomRows:
    """This rank's blocks of a data set that every rank holds.

    Args:
        data: the structures of all ranks.
        potential: whose functions are evaluated.
        backend: 'cpu', 'cuda' or 'reference'.
        rank, size: of this process among those that share the blocks.
        full: rows of ∂E_i/∂c instead of B functions.
        memory: bytes of rows that may be kept between sweeps; more are computed again in each.
    """

    def __init__(
        self,
        data: Dataset,
        potential: Potential,
        backend: str,
        rank: int = 0,
        size: int = 1,
        full: bool = False,
        memory: float = 0.0,
    ) -> None:
        self.data, self.potential, self.backend, self.full = data, potential, backend, full
        bounds = block_bounds(data.atoms_per_structure)
        share = np.searchsorted(data.atom_offsets[bounds], np.arange(size + 1) * (data.n_atoms / size), side="left")
        share[0], share[-1] = 0, len(bounds) - 1
        self._blocks = [(k, bounds[k], bounds[k + 1]) for k in range(share[rank], share[rank + 1])]
        self._memory, self._kept = memory, {}
        self.left_out = np.zeros(data.n_atoms, bool)
        """Atoms that take no part."""

    def sizes(self) -> dict[str, int]:
        """Number of columns per element of the data."""
        sizes = {}
        for element in self.potential.elements:
            blocks = [b for b in self.potential.blocks if b.elements[0] == element]
            n = sum(len(b.functions) for b in blocks)
            if n and element in self.data.elements:
                sizes[element] = n * (self.potential.embeddings[element].ndensity if self.full else 1)
        return sizes

    def blocks(self) -> Iterator[Block]:
        """Number of each block, and per element the numbers of its atoms in the data and their rows."""
        for number, first, last in self._blocks:
            block = self._kept.get(number)
            if block is None:
                block = self._rows(first, last)
                size = sum(rows.nbytes for _, rows in block.values())
                if size <= self._memory:
                    self._memory -= size
                    self._kept[number] = block
            yield number, {e: (a[~self.left_out[a]], rows[~self.left_out[a]]) for e, (a, rows) in block.items()}

    def force_errors(self) -> np.ndarray:
        """|F - F_ref| of this rank's atoms in eV/Å, NaN for those of other ranks, (n_atoms,)."""
        errors = np.full(self.data.n_atoms, np.nan)
        for _, first, last in self._blocks:
            part = self.data.subset(slice(first, last))
            predicted = self._evaluator(part).predict(self.potential.parameters).forces
            atoms = slice(self.data.atom_offsets[first], self.data.atom_offsets[last])
            errors[atoms] = np.linalg.norm(predicted - part.flat_forces, axis=1)
        return errors

    def _evaluator(self, part: Dataset):
        return create_evaluator(self.backend, self.potential, part.structures(self.potential), LossWeights())

    def _rows(self, first: int, last: int) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        part = self.data.subset(slice(first, last))
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        offset = self.data.atom_offsets[first]
        for piece in self._evaluator(part).rows(self.potential.parameters, "full" if self.full else "basis"):
            for element, (atoms, rows) in piece.values.items():
                found.setdefault(element, []).append((atoms + offset, sorted_columns(self.potential, element, rows)))
        return {e: tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True)) for e, pieces in found.items()}


def outliers(errors: np.ndarray, elements: np.ndarray, limit: float | None) -> np.ndarray:
    """Tell the atoms whose force error is an outlier of their element.

    Args:
        errors: |F - F_ref| in eV/Å, (n_atoms,).
        elements: atomic numbers, (n_atoms,).
        limit: eV/Å; None: the third quartile plus 1.5 times the interquartile range of the element's errors.
    """
    if limit is not None:
        return errors > limit
    found = np.zeros(len(errors), bool)
    for number in np.unique(elements):
        mine = elements == number
        first, third = np.quantile(errors[mine], [0.25, 0.75])
        found[mine] = errors[mine] > third + 1.5 * (third - first)
    return found
