"""What figures compare: reference data and predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
