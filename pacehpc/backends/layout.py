"""Structures as the kernels see them: batches of whole structures, tiles of atoms of one element, slots of bonds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from pacehpc.structures import Structures

RUN = 2**18  # bonds laid out at a time: bounds the memory that is needed beside the result


@dataclass
class Layout:
    """Tiles and slots of a set of structures.

    A tile holds `lanes` atoms of one element out of one batch; an unused lane names an atom of the tile. The bonds of a
    tile stand neighbour element by neighbour element in slots of one bond per lane.
    """

    tile_element: np.ndarray  # int32 (n_tiles,)
    tile_atoms: np.ndarray  # int32 (n_tiles, lanes)
    tile_count: np.ndarray  # int32 (n_tiles,)
    tile_slots: np.ndarray  # int32 (n_tiles, n_elements)
    tile_slot_offset: np.ndarray  # int64 (n_tiles, n_elements)
    bond_atoms: np.ndarray  # int32 (n_slots, lanes)
    bond_place: np.ndarray  # int64 (n_bonds,): slot * lanes + lane of each bond, −1 where no kernel needs it
    batches: np.ndarray  # int64 (n_batches, 4): first and last tile, first and last structure
    shard_batches: np.ndarray  # int64 (n_shards + 1,): first batch of each virtual shard

    @property
    def n_slots(self) -> int:
        return len(self.bond_atoms)

    @property
    def n_tiles(self) -> int:
        return len(self.tile_element)


def make_layout(structures: Structures, n_elements: int, lanes: int, batch_atoms: int, needed: np.ndarray) -> Layout:
    """Cut structures into batches of about `batch_atoms` atoms, none across virtual shards, and their atoms into tiles.

    needed: bool (n_elements, n_elements), pairs (centre, neighbour) whose bonds the kernels read.
    """
    starts = structures.shard_starts
    bonds = structures.bond_offsets[structures.atom_offsets]
    runs, first = [], 0
    while first < structures.n_structures:
        ends = np.append(starts[starts > first], structures.n_structures)
        within = ends[bonds[ends] <= bonds[first] + RUN]
        last = int(within[-1] if len(within) else ends[0])
        run = structures.select(slice(first, last))
        inside = starts[(starts >= first) & (starts < last)] - first
        runs.append(_lay_out(run, inside, n_elements, lanes, batch_atoms, needed))
        first = last
    if not runs:
        return _lay_out(structures, starts, n_elements, lanes, batch_atoms, needed)
    return runs[0] if len(runs) == 1 else _joined(runs, lanes)


def _joined(runs: list[Layout], lanes: int) -> Layout:
    """Layouts of successive structures as one; takes the arrays out of `runs`."""
    atoms, tiles, slots, structures, batches = 0, 0, 0, 0, 0
    for run in runs:
        run.tile_atoms += atoms
        run.bond_atoms += atoms
        run.tile_slot_offset += slots
        run.bond_place[run.bond_place >= 0] += slots * lanes
        run.batches += np.array([tiles, tiles, structures, structures])
        run.shard_batches += batches
        atoms = int(run.tile_atoms.max(initial=atoms - 1)) + 1
        tiles, slots = tiles + run.n_tiles, slots + run.n_slots
        structures, batches = int(run.batches[-1, 3]), batches + len(run.batches)
        if run is not runs[-1]:
            run.shard_batches = run.shard_batches[:-1]
    joined = {}
    for field in fields(Layout):
        joined[field.name] = np.concatenate([getattr(run, field.name) for run in runs])
        for run in runs:
            delattr(run, field.name)
    return Layout(**joined)


def _lay_out(
    structures: Structures, shard_starts: np.ndarray, n_elements: int, lanes: int, batch_atoms: int, needed: np.ndarray
) -> Layout:
    """`make_layout` of structures whose virtual shards begin at shard_starts."""
    counts_of_structures = structures.atoms_per_structure
    batch_of_structure = _fill(counts_of_structures, batch_atoms, shard_starts)
    n_batches = int(batch_of_structure[-1]) + 1 if len(batch_of_structure) else 0
    species = structures.species.astype(np.int64)
    n_atoms = len(species)

    centre = np.repeat(np.arange(n_atoms), np.diff(structures.bond_offsets))
    key = centre * n_elements + species[structures.bond_atom]
    used = needed[species[centre], species[structures.bond_atom]]
    counts = np.bincount(key[used], minlength=n_atoms * n_elements).reshape(n_atoms, n_elements)

    # atoms by batch, element and numbers of neighbours, so that the lanes of a tile have alike numbers of bonds
    batch = np.repeat(batch_of_structure, counts_of_structures)
    order = np.lexsort((*(counts[:, mu] for mu in range(n_elements)), counts.sum(axis=1), species, batch))
    group = batch[order] * n_elements + species[order]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if n_atoms else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, n_atoms])
    tiles_of_group = -(-sizes // lanes)
    first_tile = np.r_[0, np.cumsum(tiles_of_group)]
    n_tiles = int(first_tile[-1])
    within = np.arange(n_atoms) - np.repeat(starts, sizes)
    tile_of = np.repeat(first_tile[:-1], sizes) + within // lanes
    lane_of = within % lanes

    tile_atoms = np.full((n_tiles, lanes), -1, np.int32)
    tile_atoms[tile_of, lane_of] = order
    tile_atoms = np.where(tile_atoms < 0, tile_atoms[:, :1], tile_atoms)
    tile_counts = np.zeros((n_tiles, lanes, n_elements), np.int64)
    tile_counts[tile_of, lane_of] = counts[order]
    tile_slots = tile_counts.max(axis=1) if n_tiles else np.zeros((0, n_elements), np.int64)
    slot_offset = np.r_[0, np.cumsum(tile_slots.ravel())]
    n_slots = int(slot_offset[-1])
    tile_slot_offset = slot_offset[:-1].reshape(n_tiles, n_elements)

    place_of_atom = np.empty((n_atoms, 2), np.int64)
    place_of_atom[order, 0], place_of_atom[order, 1] = tile_of, lane_of
    bonds = np.flatnonzero(used)
    walk = bonds[np.argsort(key[bonds], kind="stable")]
    sorted_key = key[walk]
    first_of_key = np.r_[0, np.cumsum(counts.ravel())][:-1]
    rank = np.arange(len(walk)) - first_of_key[sorted_key]
    tile, lane = place_of_atom[centre[walk]].T
    bond_place = np.full(structures.n_bonds, -1, np.int64)
    bond_place[walk] = (tile_slot_offset[tile, sorted_key % n_elements] + rank) * lanes + lane

    # an unused lane of a slot names its own atom
    tile_of_slot = np.repeat(np.arange(n_tiles), tile_slots.sum(axis=1))
    bond_atoms = tile_atoms[tile_of_slot].copy() if n_slots else np.zeros((0, lanes), np.int32)
    bond_atoms.reshape(-1)[bond_place[bonds]] = structures.bond_atom[bonds]

    tile_batch = np.repeat((group[starts] // n_elements) if n_atoms else starts, tiles_of_group)
    batches = np.empty((n_batches, 4), np.int64)
    batches[:, 0] = np.searchsorted(tile_batch, np.arange(n_batches))
    batches[:, 1] = np.searchsorted(tile_batch, np.arange(n_batches), side="right")
    batches[:, 2] = np.searchsorted(batch_of_structure, np.arange(n_batches))
    batches[:, 3] = np.searchsorted(batch_of_structure, np.arange(n_batches), side="right")
    return Layout(
        tile_element=species[order[starts]].repeat(tiles_of_group).astype(np.int32)
        if n_atoms
        else np.zeros(0, np.int32),
        tile_atoms=np.ascontiguousarray(tile_atoms, np.int32),
        tile_count=np.bincount(tile_of, minlength=n_tiles).astype(np.int32),
        tile_slots=np.ascontiguousarray(tile_slots, np.int32),
        tile_slot_offset=np.ascontiguousarray(tile_slot_offset, np.int64),
        bond_atoms=np.ascontiguousarray(bond_atoms, np.int32),
        bond_place=bond_place,
        batches=batches,
        shard_batches=np.r_[batch_of_structure[shard_starts], n_batches].astype(np.int64),
    )


def _fill(atoms: np.ndarray, target: int, shard_starts: np.ndarray) -> np.ndarray:
    """Batch of each structure: runs of whole structures, each shard's in parts of alike size, near `target` atoms."""
    batch = np.zeros(len(atoms), np.int64)
    done = 0
    for first, last in pairwise([*shard_starts.tolist(), len(atoms)]):
        n = atoms[first:last]
        parts = max(1, round(n.sum() / target))
        middle = np.cumsum(n) - 0.5 * n
        found, part = np.unique((middle * (parts / max(1, n.sum()))).astype(np.int64), return_inverse=True)
        batch[first:last] = done + part
        done += len(found)
    return batch
