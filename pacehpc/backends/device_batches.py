"""Runs of structures on a GPU: what is uploaded of each and what its kernels fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pacehpc.backends.layout import Layout
from pacehpc.backends.source import LANES
from pacehpc.backends.tables import BOND_RECORD
from pacehpc.structures import Structures


@dataclass
class Places:
    """Where the bonds of a batch stand in its records."""

    used: np.ndarray
    """(n,): the bonds that kernels read."""
    slot: np.ndarray
    lane: np.ndarray
    n_slots: int

    @classmethod
    def of(cls, layout: Layout) -> Places:
        """Places of the bonds that a layout has."""
        used = np.flatnonzero(layout.bond_place >= 0)
        return cls(used, *np.divmod(layout.bond_place[used], LANES), layout.n_slots)

    def by_slot(self, bond_vector: np.ndarray) -> np.ndarray:
        """(n_slots, 3, LANES): the vectors of the batch's bonds, (n_bonds, 3), 0 in lanes without one."""
        vectors = np.zeros((self.n_slots, 3, LANES))
        vectors[self.slot, :, self.lane] = bond_vector[self.used]
        return vectors


@dataclass
class Batch:
    """A run of structures that goes through both passes together; records are passed to kernels by value."""

    structures: slice
    atoms: slice
    n_tiles: int
    n_slots: int
    piece_rows: np.ndarray
    """int64 (n_pieces + 1,): rows of gradient sums of each virtual shard."""
    problem: np.ndarray
    work: np.ndarray
    arrays: dict[str, Any]
    places: Places | None
    """None where bonds stay as they are, once they are made."""

    @property
    def n_rows(self) -> int:
        """Rows of gradient sums of all virtual shards."""
        return int(self.piece_rows[-1])


def incoming_bonds(structures: Structures, layout: Layout, places: Places) -> dict[str, np.ndarray]:
    """Places of the bonds that end at each atom, by the names of `Work`'s fields."""
    ends = structures.bond_atom[places.used]
    order = np.argsort(ends, kind="stable")
    return {
        "incoming": layout.bond_place[places.used][order].astype(np.int32),
        "incoming_offset": np.searchsorted(ends[order], np.arange(structures.n_atoms + 1)).astype(np.int64),
    }


def filled_sizes(structures: Structures, n_slots: int, core: bool, virials: bool) -> dict[str, int]:
    """Numbers in the arrays of a batch that kernels fill, by their names in `Problem`."""
    n_atoms = structures.n_atoms
    n_core, n_strained = n_atoms if core else 0, n_atoms if virials else 0
    return {
        "bonds": n_slots * BOND_RECORD * LANES,
        "core_slope": n_slots * LANES if core else 0,
        "core_cutoff": n_core,
        "core_energy": n_core,
        "core_forces": 4 * n_core,
        "core_virials": 6 * n_core,
        "atom_energies": n_atoms,
        "atom_forces": 4 * n_atoms,
        "atom_virials": 6 * n_strained,
        "structure_energies": structures.n_structures,
        "residuals": 4 * n_atoms,
        "strain_residuals": 6 * n_strained,
    }
