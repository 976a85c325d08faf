"""What every backend takes and gives: structures with their bonds, loss weights, predictions, sums.

Units: Å, eV, eV/Å, eV/Å³. All arrays are C-contiguous float64 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pacehpc import fixed_point


@dataclass
class Structures:
    """The structures of one rank as flat arrays: atoms one after the other, bonds in CSR order of their centres.

    Reference values and weights are None where only predictions are wanted.
    """

    atom_offsets: np.ndarray
    """int64 (n_structures + 1,): atoms of structure s are atom_offsets[s]:atom_offsets[s+1]."""
    species: np.ndarray
    """int32 (n_atoms,): index into potential.elements."""
    bond_offsets: np.ndarray
    """int64 (n_atoms + 1,): bonds of centre i are bond_offsets[i]:bond_offsets[i+1], in any order."""
    bond_atom: np.ndarray
    """int32 (n_bonds,): the neighbour's index in these atoms."""
    bond_vector: np.ndarray
    """(n_bonds, 3): r_j - r_i in Å, periodic image included; only bonds with 0 < r < rcut(mu_i, mu_j)."""
    volumes: np.ndarray
    """(n_structures,): Å³, 0 where a structure is not periodic in all three directions."""
    energy: np.ndarray | None = None
    """(n_structures,): reference energy (`energy_corrected`) in eV."""
    forces: np.ndarray | None = None
    """(n_atoms, 3): reference forces in eV/Å."""
    w_energy: np.ndarray | None = None
    """(n_structures,): weights of the energy residuals."""
    w_forces: np.ndarray | None = None
    """(n_atoms,): weights of the force residuals."""
    stress: np.ndarray | None = None
    """(n_structures, 6): reference stress in eV/Å³, Voigt order xx, yy, zz, yz, xz, xy; rows of NaN where unknown."""
    low: np.ndarray | None = None
    """bool (n_structures,): structures that count as low in energy in the metrics."""
    shards: np.ndarray | None = None
    """int64 (n_shards + 1,): structures of virtual shard k are shards[k]:shards[k+1]; sums are made shard by shard."""

    @property
    def n_structures(self) -> int:
        return len(self.atom_offsets) - 1

    @property
    def n_atoms(self) -> int:
        return len(self.species)

    @property
    def n_bonds(self) -> int:
        return len(self.bond_atom)

    @property
    def atoms_per_structure(self) -> np.ndarray:
        """int64 (n_structures,)."""
        return np.diff(self.atom_offsets)

    @property
    def shard_starts(self) -> np.ndarray:
        """int64 (n_shards,): first structure of each virtual shard that has any; one shard where none are set."""
        if self.shards is None:
            return np.zeros(min(1, self.n_structures), np.int64)
        return np.unique(self.shards[:-1][np.diff(self.shards) > 0])

    def select(self, structures: slice) -> Structures:
        """A contiguous run of structures (slice of step 1); per-structure and per-atom arrays are views."""
        start, stop, step = structures.indices(self.n_structures)
        if step != 1:
            raise ValueError("structures are selected by a contiguous slice")
        stop = max(start, stop)
        s = slice(start, stop)
        a = slice(int(self.atom_offsets[start]), int(self.atom_offsets[stop]))
        b = slice(int(self.bond_offsets[a.start]), int(self.bond_offsets[a.stop]))

        def part(array: np.ndarray | None, which: slice) -> np.ndarray | None:
            return None if array is None else array[which]

        return Structures(
            atom_offsets=self.atom_offsets[start : stop + 1] - a.start,
            species=self.species[a],
            bond_offsets=self.bond_offsets[a.start : a.stop + 1] - b.start,
            bond_atom=(self.bond_atom[b] - a.start).astype(np.int32),
            bond_vector=self.bond_vector[b],
            volumes=self.volumes[s],
            energy=part(self.energy, s),
            forces=part(self.forces, a),
            w_energy=part(self.w_energy, s),
            w_forces=part(self.w_forces, a),
            stress=part(self.stress, s),
            low=part(self.low, s),
        )


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
