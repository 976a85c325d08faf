"""Potentials as ASE calculators."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from pacehpc.backends import create_evaluator, resolve
from pacehpc.backends.interface import LossWeights
from pacehpc.errors import PacehpcError
from pacehpc.neighbourhood import Neighbourhood
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
