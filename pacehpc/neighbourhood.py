"""The bonds of one structure that moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pacehpc.backends.interface import Structures
from pacehpc.dataset.neighbours import bond_vectors, cutoff_matrix, find_neighbours, species_indices, volumes
from pacehpc.errors import PacehpcError

if TYPE_CHECKING:
    from ase import Atoms

    from pacehpc.potential import Potential


class Neighbourhood:
    """A neighbour list with a skin (Å), used again while it is certain to be complete."""

    def __init__(self, potential: Potential, skin: float = 0.0) -> None:
        self.elements = potential.elements
        self.cutoffs = cutoff_matrix(potential)
        self.skin = skin
        self.built: Atoms | None = None
        """Atoms that the list was made for."""

    def structures(self, atoms: Atoms) -> Structures:
        """`atoms` with the bonds that it has now. Raises PacehpcError for elements that the potential lacks."""
        if not self._holds(atoms):
            self._build(atoms)
        offsets = np.array([0, len(atoms)])
        cells, pbc = atoms.cell.array[None], atoms.pbc[None]
        vectors = bond_vectors(
            atoms.positions, cells, np.zeros(len(self.atom), dtype=int), self.centre, self.atom, self.shift
        )
        r = np.linalg.norm(vectors, axis=1)
        kept = (r > 0.0) & (r < self.cutoffs[self.species[self.centre], self.species[self.atom]])
        counts = np.bincount(self.centre[kept], minlength=len(atoms))
        bond_offsets = np.concatenate(([0], np.cumsum(counts)))
        return Structures(offsets, self.species, bond_offsets, self.atom[kept], vectors[kept], volumes(cells, pbc))

    def _holds(self, atoms: Atoms) -> bool:
        built = self.built
        if built is None or len(built) != len(atoms) or not np.array_equal(built.numbers, atoms.numbers):
            return False
        if not np.array_equal(built.pbc, atoms.pbc) or not np.array_equal(built.cell.array, atoms.cell.array):
            return False
        moved = np.linalg.norm(atoms.positions - built.positions, axis=1)
        return bool(moved.max(initial=0.0) < 0.5 * self.skin)

    def _build(self, atoms: Atoms) -> None:
        self.species = species_indices(atoms.numbers, self.elements)
        unknown = sorted({s for s, index in zip(atoms.get_chemical_symbols(), self.species, strict=True) if index < 0})
        if unknown:
            raise PacehpcError(
                f"{atoms.get_chemical_formula()} contains {', '.join(unknown)}; the potential knows "
                f"{', '.join(self.elements)} only."
            )
        neighbours, _ = find_neighbours(
            np.array([0, len(atoms)]),
            atoms.positions,
            atoms.cell.array[None],
            atoms.pbc[None],
            self.species,
            self.cutoffs + self.skin,
        )
        self.centre = np.repeat(np.arange(len(atoms)), np.diff(neighbours.offsets))
        self.atom, self.shift = neighbours.atom, neighbours.shift
        self.built = atoms.copy()
