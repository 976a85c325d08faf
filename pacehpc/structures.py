"""Structures with their bonds as flat arrays, and the order of a symmetric tensor's components.

Units: Å, eV, eV/Å, eV/Å³. All arrays are C-contiguous float64 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))
"""Rows and columns of a 3×3 tensor in the order xx, yy, zz, yz, xz, xy: tensor[VOIGT], tensors[:, *VOIGT]."""
MULTIPLICITY = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
"""How often each of these components stands in a symmetric tensor."""
_MATRIX = ((0, 5, 4), (5, 1, 3), (4, 3, 2))


def virial_matrix(voigt: np.ndarray) -> np.ndarray:
    """The symmetric tensors (..., 3, 3) of their components xx, yy, zz, yz, xz, xy, (..., 6)."""
    return voigt[..., _MATRIX]


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
    """(n_structures, 6): reference stress in eV/Å³, Voigt order xx, yy, zz, yz, xz, xy; NaN where unknown.

    A row with any NaN does not count at all."""
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

    @property
    def has_stress(self) -> np.ndarray:
        """bool (n_structures,): the stress counts: all six components are known and the structure has a volume."""
        if self.stress is None:
            return np.zeros(self.n_structures, bool)
        return (self.volumes > 0) & np.isfinite(self.stress).all(axis=1)

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
