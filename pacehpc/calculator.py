"""Potentials as ASE calculators."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from pacehpc.backends import create_evaluator, resolve
from pacehpc.backends.interface import LossWeights, Structures
from pacehpc.dataset.neighbours import bond_vectors, cutoff_matrix, find_neighbours, species_indices, volumes
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential


class PaceCalculator(Calculator):
    """Energy, forces and stress of a PACE potential.

    Args:
        potential: a Potential, or the name of a B-basis file.
        backend: 'auto', 'cpu', 'cuda' or 'reference'.
        skin: Å added to the cutoffs of the neighbour list, which is used again while no atom has moved by half of it.

    Properties: energy and free_energy (equal, eV), energies (per atom), forces (eV/Å), and stress (eV/Å³, structures
    that are periodic in three directions only). Raises PacehpcError for elements that the potential lacks.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(
        self, potential: Potential | str | os.PathLike[str], backend: str = "auto", skin: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if skin < 0.0:
            raise PacehpcError(f"PaceCalculator: skin is {skin} Å; it cannot be negative.")
        self.potential = potential if isinstance(potential, Potential) else Potential.load(potential)
        self.backend = resolve(backend)
        self.neighbourhood = Neighbourhood(self.potential, skin)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        structures = self.neighbourhood.structures(self.atoms)
        evaluator = create_evaluator(self.backend, self.potential, structures, LossWeights())
        prediction = evaluator.predict(self.potential.parameters)
        energy = float(prediction.energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": prediction.energies,
            "forces": prediction.forces,
        }
        if structures.volumes[0] > 0.0:
            self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.virials[0] / structures.volumes[0])
        elif "stress" in properties:
            raise PropertyNotImplementedError("stress needs a structure that is periodic in all three directions.")


class Neighbourhood:
    """Neighbour list of one structure that moves, with a skin (Å), used again while it is certain to be complete."""

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
