"""What figures and the page compare: reference data and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacehpc.report import groups


@dataclass(frozen=True)
class Predictions:
    """A data set and what the potential says of it."""

    energy: np.ndarray
    """(n_structures,): reference energy per atom, eV."""
    energy_pred: np.ndarray
    """(n_structures,): predicted energy per atom, eV."""
    forces: np.ndarray
    """(n_atoms, 3): reference forces, eV/Å."""
    forces_pred: np.ndarray
    """(n_atoms, 3): predicted forces, eV/Å."""
    nn_min: np.ndarray
    """(n_structures,): shortest distance in each structure, Å; inf where an atom is alone."""
    groups: np.ndarray | None = None
    """(n_structures,): group of each structure, which colours the points; None: no groups."""
    atom_groups: np.ndarray | None = None
    """(n_atoms,): group of each atom's structure."""


@dataclass(frozen=True)
class Compared:
    """A data set structure by structure, with reference values and predictions.

    Reference values are NaN where they are unknown or have no weight.
    """

    which: str
    """train or test."""
    labels: Sequence[Any]
    """(n_structures,): index in the data."""
    names: Sequence[str]
    """(n_structures,): `name` in the data, "" where there is none."""
    files: Sequence[str]
    """(n_structures,): the file of each structure, "" where it is not known."""
    groups: np.ndarray
    """(n_structures,) of str; all the same where the data have no groups."""
    atom_offsets: np.ndarray
    """(n_structures + 1,): first atom of each structure."""
    numbers: np.ndarray
    """(n_atoms,): atomic numbers."""
    volumes: np.ndarray
    """(n_structures,): Å³, 0 where not periodic in three directions."""
    nn_min: np.ndarray
    """(n_structures,): shortest distance, Å; inf where no two atoms are neighbours."""
    energy: np.ndarray
    """(n_structures,): per atom, eV."""
    energy_pred: np.ndarray
    """(n_structures,): per atom, eV."""
    forces: np.ndarray
    """(n_atoms, 3): eV/Å."""
    forces_pred: np.ndarray
    """(n_atoms, 3): eV/Å."""
    stress: np.ndarray | None = None
    """(n_structures, 6): GPa; None: no stress in the data."""
    stress_pred: np.ndarray | None = None
    """(n_structures, 6): GPa."""
    grades: np.ndarray | None = None
    """(n_atoms,): extrapolation grades, where they were computed."""
    energy_std: np.ndarray | None = None
    """(n_structures,): predicted standard deviation of the energy per atom, eV, where it was computed."""
    forces_std: np.ndarray | None = None
    """(n_atoms, 3): predicted standard deviation of force components, eV/Å, where it was computed."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def atoms(self) -> np.ndarray:
        """(n_structures,): number of atoms."""
        return np.diff(self.atom_offsets)

    @property
    def structure_of_atom(self) -> np.ndarray:
        """(n_atoms,): number of the structure."""
        return np.repeat(np.arange(len(self)), self.atoms)

    @property
    def has_groups(self) -> bool:
        return len(set(self.groups.tolist())) > 1

    @property
    def known_energy(self) -> np.ndarray:
        """(n_structures,): where there is a reference energy."""
        return np.isfinite(self.energy)

    @property
    def known_forces(self) -> np.ndarray:
        """(n_atoms,): where there is a reference force."""
        return np.isfinite(self.forces).all(axis=1)

    @property
    def known_stress(self) -> np.ndarray:
        """(n_structures,): where there are a reference stress and a predicted one."""
        if self.stress is None or self.stress_pred is None:
            return np.zeros(len(self), bool)
        return np.isfinite(self.stress).all(axis=1) & np.isfinite(self.stress_pred).all(axis=1)

    @property
    def errors(self) -> groups.StructureErrors:
        """Errors of each structure."""
        return groups.structure_errors(
            self.labels, self.names, self.files, self.groups, self.atom_offsets,
            (self.energy_pred - self.energy) * self.atoms, self.forces_pred - self.forces,
        )  # fmt: skip

    @property
    def known(self) -> Predictions:
        """What has reference values, for figures."""
        structures, atoms = self.known_energy, self.known_forces
        return Predictions(
            self.energy[structures], self.energy_pred[structures], self.forces[atoms], self.forces_pred[atoms],
            self.nn_min[structures], self.groups[structures], np.repeat(self.groups, self.atoms)[atoms],
        )  # fmt: skip
