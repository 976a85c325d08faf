"""Potentials as ASE calculators."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from pacehpc.active.active_set import ActiveSet, grades_of, warn_of_extrapolation
from pacehpc.backends import create_evaluator, resolve
from pacehpc.backends.interface import Evaluator, LossWeights, Prediction
from pacehpc.backends.oracle import ReferenceEvaluator
from pacehpc.dataset import structures_of
from pacehpc.dataset.neighbours import cutoff_matrix, find_neighbours, species_indices, volumes
from pacehpc.errors import PacehpcError
from pacehpc.moving_atoms import MovingAtoms, is_complete, same_bytes
from pacehpc.potential import Potential
from pacehpc.potential.reference import atomic_references
from pacehpc.structures import Structures
from pacehpc.uncertainty.deviations import deviations
from pacehpc.uncertainty.model import Uncertainty

UPDATED_IN_PLACE = ("cpu", "cuda")
"""Backends whose evaluators take new bond vectors."""


class PaceCalculator(Calculator):
    """Energy, forces and stress of a PACE potential.

    Args:
        potential: a Potential, or the name of its file: B basis (.yaml) or what LAMMPS reads (.yace). A Potential is
            copied: one that changes later needs a new calculator.
        backend: 'auto', 'cpu', 'cuda' or 'reference'.
        active_set: an ActiveSet or its file (.asi): adds the atoms' grades, `gamma`, and the largest, `gamma_max`.
        skin: Å added to the cutoffs of the neighbour list, which is used again while atoms move less than half of it
            (and strains of the cell leave it complete). Default: 1 with the cpu backend, whose kernels leave out
            what is beyond the cutoffs, else 0.5.
        threads: of the cpu backend's kernels.
        uq: an Uncertainty or its file (.uq.npz): adds the standard deviations `energy_std` (eV) and `forces_std`
            (n_atoms, 3), eV/Å. A calculation then takes as long as hundreds.
        reference_energies: add the reference energies of the fit, as its file holds them, to energy, free_energy and
            energies, so that they are those of the data.

    Properties: energy and free_energy (equal, eV), energies (per atom), forces (eV/Å), and stress (eV/Å³, structures
    that are periodic in three directions only).

    Raises:
        PacehpcError: elements that the potential lacks.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(
        self,
        potential: Potential | str | os.PathLike[str],
        backend: str = "auto",
        skin: float | None = None,
        active_set: ActiveSet | str | os.PathLike[str] | None = None,
        threads: int = 1,
        uq: Uncertainty | str | os.PathLike[str] | None = None,
        reference_energies: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if skin is None:
            skin = 1.0 if resolve(backend) == "cpu" else 0.5
        if skin < 0.0:
            raise PacehpcError(f"PaceCalculator: skin is {skin} Å; it cannot be negative.")
        self.potential = potential.copy() if isinstance(potential, Potential) else Potential.load(potential)
        self.backend = resolve(backend)
        self.neighbourhood = Neighbourhood(self.potential, skin)
        self._references = atomic_references(self.potential) if reference_energies else None
        self.active_set: ActiveSet | None = None
        self.uncertainty: Uncertainty | None = None
        self._warned = False
        if active_set is not None:
            self.set_active_set(active_set)
        if uq is not None:
            self._set_uncertainty(uq, potential)
        self._evaluator: Evaluator | None = None
        self.threads = threads
        self._many: MovingAtoms | None = None
        self._moving = MovingAtoms(self.potential, skin, threads) if self.backend == "cpu" else None

    def set_active_set(self, active_set: ActiveSet | str | os.PathLike[str]) -> None:
        """Compute extrapolation grades from now on.

        Raises:
            PacehpcError: the file is not an active set of this potential.
        """
        if not isinstance(active_set, ActiveSet):
            active_set = ActiveSet.load(active_set, self.potential)
        self.active_set = active_set.in_order_of(self.potential)
        self.implemented_properties = [*self.implemented_properties, "gamma", "gamma_max"]
        self.reset()

    def _set_uncertainty(self, uq: Uncertainty | str | os.PathLike[str], potential: object) -> None:
        name = "the calculator's potential" if isinstance(potential, Potential) else str(potential)
        if isinstance(uq, Uncertainty):
            uq.check(self.potential, "PaceCalculator: uq", name)
        else:
            uq = Uncertainty.load(uq, self.potential, name)
        self.uncertainty = uq
        self.implemented_properties = [*self.implemented_properties, "energy_std", "forces_std"]

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What has changed since the last calculation, of all that energies depend on; tol has no meaning."""
        old = self.atoms
        if old is None or len(old) != len(atoms):
            return list(all_changes)
        pairs = {
            "positions": (old.positions, atoms.positions),
            "numbers": (old.numbers, atoms.numbers),
            "cell": (old.cell.array, atoms.cell.array),
            "pbc": (old.pbc, atoms.pbc),
        }
        return [name for name, (before, now) in pairs.items() if not same_bytes(before, now)]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        if atoms is not None:
            self.atoms = atoms.copy()  # all that Calculator.calculate does, but for a folder that is not needed
        evaluator = None
        if self._moving is not None and self.active_set is None:
            prediction = self._moving.predict([self.atoms])[0]
        else:
            evaluator = self._follow(self.atoms)
            prediction = evaluator.predict(self.potential.parameters)
        self.results = self._results(self.atoms, prediction)
        if "stress" in properties and "stress" not in self.results:
            raise PropertyNotImplementedError("stress needs a structure that is periodic in all three directions.")
        if evaluator is not None and self.active_set is not None:
            self.results["gamma"] = grades_of(evaluator, self.potential, self.active_set, len(self.atoms))
            self.results["gamma_max"] = float(self.results["gamma"].max(initial=0.0))
        if self.uncertainty is not None:
            structure = structures_of([self.atoms], self.potential)
            found = next(deviations(self.uncertainty, self.potential, self.backend, structure))
            self.results |= {"energy_std": found.energy, "forces_std": found.forces}
            if self.active_set is not None and not self._warned:
                self._warned = warn_of_extrapolation(self.results["gamma"], "")

    def calculate_many(self, frames: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Results of many structures, in one call of the kernels (cpu backend); for small ones much faster.

        Args:
            frames: structures; their calculators are neither used nor changed.

        Returns:
            For each the properties of `calculate`: energy, free_energy, energies, forces, and stress where it is
            periodic in three directions.

        Raises:
            PacehpcError: elements that the potential lacks, or positions that are not numbers.
        """
        if self.backend == "cpu":
            if self._many is None:
                self._many = MovingAtoms(self.potential, 0.0, self.threads)
            predictions = self._many.predict(frames) if len(frames) else []
        else:
            predictions = [self._follow(atoms).predict(self.potential.parameters) for atoms in frames]
        return [self._results(atoms, prediction) for atoms, prediction in zip(frames, predictions, strict=True)]

    def _results(self, atoms: Atoms, prediction: Prediction) -> dict[str, Any]:
        energies = prediction.energies
        if self._references is not None:
            energies = energies + self._references[atoms.numbers]
        energy = float(energies.sum())
        results = {"energy": energy, "free_energy": energy, "energies": energies, "forces": prediction.forces}
        if atoms.pbc.all():
            results["stress"] = full_3x3_to_voigt_6_stress(prediction.virials[0] / atoms.get_volume())
        return results

    def _follow(self, atoms: Atoms) -> Evaluator:
        """An evaluator whose bonds are those of `atoms`."""
        is_new = self.neighbourhood.follow(atoms)
        if self.backend not in UPDATED_IN_PLACE:
            structures = self.neighbourhood.structures(cut=True)
            evaluator = create_evaluator(self.backend, self.potential, structures, LossWeights())
        elif is_new or self._evaluator is None:
            structures = self.neighbourhood.structures(cut=False)
            evaluator = create_evaluator(self.backend, self.potential, structures, LossWeights())
            self._evaluator = evaluator
        else:
            evaluator = self._evaluator
            evaluator.update(self.neighbourhood.vectors)
        return evaluator


def projections(potential: Potential, atoms: Atoms) -> list[np.ndarray]:
    """B values of each atom's functions.

    Returns:
        For each atom (n_functions of its element,): the functions of the blocks with this centre, in order, rank 1
        first.

    Raises:
        PacehpcError: elements that the potential lacks, impossible cells or positions.
    """
    structures = structures_of([atoms], potential)
    return ReferenceEvaluator(potential, structures).projections(potential.parameters)


class Neighbourhood:
    """Neighbour list of one structure that moves, with a skin (Å), used again while it is certain to be complete."""

    def __init__(self, potential: Potential, skin: float = 0.0) -> None:
        self.elements = potential.elements
        self.cutoffs = cutoff_matrix(potential)
        self.skin = skin
        self.built: Atoms | None = None
        """Atoms that the list was made for."""
        self.vectors = np.zeros((0, 3))
        """r_j - r_i of all bonds of the list now, also of those in the skin, Å."""

    def follow(self, atoms: Atoms) -> bool:
        """Bring the vectors up to date with `atoms`; whether the list had to be rebuilt.


        Raises:
            PacehpcError: elements that the potential lacks.
        """
        is_new = not self._holds(atoms)
        if is_new:
            self._build(atoms)
        self.volume = volumes(atoms.cell.array[None], atoms.pbc[None])
        if is_new or not np.array_equal(self._cell, atoms.cell.array):
            self._cell = atoms.cell.array.copy()
            self._translations = self._shift @ self._cell
        self.vectors = np.take(atoms.positions, self.atom, axis=0)
        self.vectors -= np.take(atoms.positions, self._centre, axis=0)
        self.vectors += self._translations
        return is_new

    def structures(self, cut: bool = True) -> Structures:
        """The structure with the bonds that it has now (cut), or with all bonds of the list."""
        n = len(self.species)
        if not cut:
            return Structures(np.array([0, n]), self.species, self.offsets, self.atom, self.vectors.copy(), self.volume)
        centre = self._centre
        r = np.linalg.norm(self.vectors, axis=1)
        kept = (r > 0.0) & (r < self.cutoffs[self.species[centre], self.species[self.atom]])
        offsets = np.concatenate(([0], np.cumsum(np.bincount(centre[kept], minlength=n))))
        return Structures(np.array([0, n]), self.species, offsets, self.atom[kept], self.vectors[kept], self.volume)

    def _holds(self, atoms: Atoms) -> bool:
        return self.built is not None and is_complete(self.built, atoms, float(self.cutoffs.max()), self.skin)

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
        self.offsets, self.atom = neighbours.offsets, neighbours.atom.astype(np.intp)
        self._centre = np.repeat(np.arange(len(atoms)), np.diff(self.offsets))
        self._shift = neighbours.shift.astype(float)
        self.built = atoms.copy()
