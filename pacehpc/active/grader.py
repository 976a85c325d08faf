"""Energies and grades of lists of structures on this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from pacehpc.active.active_set import ActiveSet
from pacehpc.active.data_rows import DataRows, Predicted
from pacehpc.potential import Potential


class Grader:
    """A potential with its active set.

    Args:
        potential: of the active set.
        active_set: linear or full; None: every grade is NaN.
        backend: 'cpu', 'cuda' or 'reference'.
    """

    def __init__(self, potential: Potential, active_set: ActiveSet | None, backend: str) -> None:
        self.potential, self.active_set, self.backend = potential, active_set, backend

    def predictions(self, structures: Sequence[Atoms]) -> list[Predicted]:
        """Predict each structure."""
        return list(DataRows(structures, self.potential, self.backend).predictions(self.active_set))

    def grades(self, structures: Sequence[Atoms]) -> list[np.ndarray]:
        """Return the grades of the atoms of each structure."""
        return [one.grades for one in self.predictions(structures)]

    def energies(self, structures: Sequence[Atoms]) -> np.ndarray:
        """Return the energy of each structure relative to free atoms, eV."""
        return np.array([one.energy for one in self.predictions(structures)])
