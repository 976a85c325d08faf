"""What every backend takes and gives: loss weights, predictions, sums; the structures are `pacehpc.structures`.

Units: Å, eV, eV/Å, eV/Å³. All arrays are C-contiguous float64 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pacehpc import fixed_point


@dataclass(frozen=True)
class LossWeights:
    """Factors of the data part of the loss: (1 - kappa) e_loss + kappa f_loss + stress * s_loss."""

    kappa: float = 0.0
    stress: float = 0.0


@dataclass
class Prediction:
    """Energies, forces and virials of a set of structures."""

    energies: np.ndarray
    """(n_atoms,): atomic energies E_i in eV."""
    forces: np.ndarray
    """(n_atoms, 3): -dE/dr_i in eV/Å."""
    virials: np.ndarray
    """(n_structures, 3, 3): sum over bonds of dE_i/dr_ij,a r_ij,b in eV; stress = virial / volume."""


@dataclass
class Sums:
    """One evaluation on one rank, ready to be added over ranks: encoded sums (see fixed_point) and maxima."""

    encoded_terms: np.ndarray
    """int64 (3, len(metrics.TERMS)): e_loss, f_loss, s_loss and the sums behind the metrics."""
    maxima: np.ndarray
    """(len(metrics.MAXIMA),): combined with max."""
    encoded_gradient: np.ndarray | None = None
    """int64 (3, n): of (1 - kappa) e_loss + kappa f_loss + stress * s_loss, in the order of the backend's tables."""
    in_parameters: Callable[[np.ndarray], np.ndarray] = field(default=lambda gradient: gradient, repr=False)
    """From a decoded gradient (n,) to the order of potential.parameters, (n_parameters,)."""

    @classmethod
    def of(cls, encoded_terms: np.ndarray, maxima: np.ndarray, gradient: np.ndarray | None) -> Sums:
        """Sums of a gradient given in the order of the parameters, (n_parameters,)."""
        encoded = None
        if gradient is not None:
            encoded, too_large = fixed_point.encode_checked(gradient)
            maxima = maxima.copy()
            maxima[-1] = max(maxima[-1], float(too_large))
        return cls(encoded_terms, maxima, encoded)

    @property
    def terms(self) -> np.ndarray:
        """(len(metrics.TERMS),): the terms of this rank alone."""
        return fixed_point.decode(self.encoded_terms)

    @property
    def gradient(self) -> np.ndarray | None:
        """(n_parameters,): the gradient of this rank alone."""
        return None if self.encoded_gradient is None else self.in_parameters(fixed_point.decode(self.encoded_gradient))


class Evaluator(Protocol):
    """A backend bound to a potential's shape and to structures; only parameters change between calls."""

    name: str

    def evaluate(self, parameters: np.ndarray, gradient: bool = True) -> Sums:
        """The data part of the loss at `parameters`, in the order of potential.parameters."""
        ...

    def predict(self, parameters: np.ndarray) -> Prediction:
        """Energies, forces and virials at `parameters`."""
        ...
