"""The cut of a data set into virtual shards of equal cost, and of the shards into contiguous runs, one a rank.

The shards do not depend on the number of ranks. Structures go to them from the dearest to the cheapest, each to the
shard that costs least so far, so shards are equal to within one small structure and kinds of structures are spread.
"""

from __future__ import annotations

import heapq

import numpy as np

MAX_SHARDS = 4096  # no more than fixed_point.MAX_TERMS
MIN_ATOMS = 192  # of a shard, about: fewer do not fill the tiles of a kernel
MANY_SHARDS, MANY_ATOMS = 256, 768  # more shards than that only where each fills the largest batches of the kernels
FEW_SHARDS, FEW_ATOMS = 16, 32  # small data: so many shards all the same, that several ranks have work
ATOM_COST = 30.0  # of an atom, in units of the cost of a bond
_REACH, _DENSITY = 6.0, 0.1  # Angstrom, atoms/Angstrom^3: to estimate bonds that are not known


def costs(n_atoms: np.ndarray, n_bonds: np.ndarray, species_costs: np.ndarray | None = None) -> np.ndarray:
    """Cost of each structure in bonds: bonds + cost of its atoms.

    Args:
        n_atoms, n_bonds: (n_structures,); species_costs: (n_structures,) summed cost of the atoms, if it differs
            between elements (else ATOM_COST each).
    """
    return n_bonds + (ATOM_COST * n_atoms if species_costs is None else species_costs)


def estimated_bonds(n_atoms: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Bonds of each structure within 6 Angstrom as its density suggests; ``volumes`` 0 where not fully periodic."""
    sphere = 4 / 3 * np.pi * _REACH**3
    open_ones = np.minimum(n_atoms - 1, sphere * _DENSITY)
    neighbours = np.where(volumes > 0, sphere * n_atoms / np.where(volumes > 0, volumes, 1.0), open_ones)
    return n_atoms * neighbours


def number_of_shards(n_structures: int, n_atoms: int) -> int:
    """Virtual shards of a data set: a power of two, which divides evenly among the usual numbers of ranks."""
    few = min(FEW_SHARDS, n_atoms // FEW_ATOMS)
    some = min(MANY_SHARDS, n_atoms // MIN_ATOMS)
    most = max(1, min(MAX_SHARDS, n_structures, max(few, some, n_atoms // MANY_ATOMS)))
    return 1 << (most.bit_length() - 1)


def virtual_shards(cost: np.ndarray, n_atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Structures in the order of the shards, and where each shard begins.

    Args:
        cost, n_atoms: (n_structures,).

    Returns:
        order (n_structures,): rows, shard after shard, ascending within a shard; bounds (n_shards+1,).
    """
    n_shards = number_of_shards(len(cost), int(n_atoms.sum()))
    members: list[list[int]] = [[] for _ in range(n_shards)]
    heap = [(0.0, shard) for shard in range(n_shards)]
    values = cost.tolist()
    for row in np.argsort(-cost, kind="stable").tolist():
        load, shard = heap[0]
        members[shard].append(row)
        heapq.heapreplace(heap, (load + values[row], shard))
    bounds = np.concatenate(([0], np.cumsum([len(m) for m in members]))).astype(np.int64)
    return np.array([row for m in members for row in sorted(m)], dtype=np.int64), bounds


def rank_bounds(shard_costs: np.ndarray, size: int) -> np.ndarray:
    """Rank r of ``size`` owns the shards bounds[r]:bounds[r+1]; (size+1,) int64. Ranks may own none."""
    n = len(shard_costs)
    ends = np.concatenate(([0.0], np.cumsum(shard_costs)))
    targets = ends[-1] * np.arange(size + 1) / size
    after = np.clip(np.searchsorted(ends, targets), 1, n)
    nearest = np.where(targets - ends[after - 1] < ends[after] - targets, after - 1, after)
    nearest[0], nearest[-1] = 0, n
    # shards that are nearly equal drift from the targets by one shard here and there: as many for each is better then
    alike = np.arange(size + 1) * n // size
    return min(nearest, alike, key=lambda bounds: np.diff(ends[bounds]).max()).astype(np.int64)


def imbalance(shard_costs: np.ndarray, size: int) -> float:
    """Cost of the dearest rank over the mean, minus 1."""
    ends = np.concatenate(([0.0], np.cumsum(shard_costs)))
    loads = np.diff(ends[rank_bounds(shard_costs, size)])
    return float(loads.max() / loads.mean() - 1.0)
