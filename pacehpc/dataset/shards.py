"""The cut of a data set into virtual shards, and of the shards into contiguous runs of equal cost, one a rank.

The shards do not depend on the number of ranks. A power of two of them cost the same; structures go to them from the
dearest to the cheapest, each to the shard that costs least so far, so shards are equal to within one small structure
and kinds of structures are spread. Some are then cut again, so that thirds, fifths, sixths … of the data, as other
numbers of ranks need them, end with a shard as well.
"""

from __future__ import annotations

import heapq

import numpy as np

MAX_SHARDS = 4096  # no more than fixed_point.MAX_TERMS
MIN_ATOMS = 192  # of a shard, about: fewer do not fill the tiles of a kernel
CUT_ATOMS = 144  # of a shard on average after further cuts: each has sums of its own, which cost time
MANY_SHARDS, MANY_ATOMS = 256, 768  # more shards than that only where each fills the largest batches of the kernels
FEW_SHARDS, FEW_ATOMS = 16, 32  # small data: so many shards all the same, that several ranks have work
ATOM_COST = 30.0  # of an atom, in units of the cost of a bond
_REACH, _DENSITY = 6.0, 0.1  # Å, atoms/Å³: to estimate bonds that are not known


def costs(n_atoms: np.ndarray, n_bonds: np.ndarray, species_costs: np.ndarray | None = None) -> np.ndarray:
    """Cost of each structure in bonds: bonds + cost of its atoms.

    Args:
        n_atoms: (n_structures,).
        n_bonds: (n_structures,).
        species_costs: (n_structures,) summed cost of the atoms, if it differs between elements (else ATOM_COST each).
    """
    return n_bonds + (ATOM_COST * n_atoms if species_costs is None else species_costs)


def estimated_bonds(n_atoms: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Bonds of each structure within 6 Å as its density suggests; `volumes` 0 where not fully periodic."""
    sphere = 4 / 3 * np.pi * _REACH**3
    open_ones = np.minimum(n_atoms - 1, sphere * _DENSITY)
    neighbours = np.where(volumes > 0, sphere * n_atoms / np.where(volumes > 0, volumes, 1.0), open_ones)
    return n_atoms * neighbours


def shard_ends(n_structures: int, n_atoms: int) -> tuple[np.ndarray, int]:
    """Where virtual shards end as parts of the whole cost, from 0 to 1, (n_shards+1,); how many there are uncut."""
    few = min(FEW_SHARDS, n_atoms // FEW_ATOMS)
    some = min(MANY_SHARDS, n_atoms // MIN_ATOMS)
    most = max(1, min(MAX_SHARDS, n_structures, max(few, some, n_atoms // MANY_ATOMS)))
    equal = 1 << (most.bit_length() - 1)
    ends = np.arange(equal + 1) / equal
    room = min(equal + equal // 2, MAX_SHARDS, n_structures // 2, n_atoms // CUT_ATOMS)
    for ranks in range(3, equal // 2):
        more = np.union1d(ends, np.arange(ranks + 1) / ranks)
        if len(more) - 1 > room:
            break
        ends = more
    return ends, equal


def virtual_shards(cost: np.ndarray, n_atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Structures in the order of the shards, and where each shard begins.

    Args:
        cost: (n_structures,).
        n_atoms: (n_structures,).

    Returns:
        order (n_structures,): rows, shard after shard, ascending within a shard; bounds (n_shards+1,).
    """
    ends, equal = shard_ends(len(cost), int(n_atoms.sum()))
    # shards filled one after the other stand far apart: any run of shards has its part of the dearest structures
    places = _bit_reversed(equal)
    uncut: list[list[int]] = [[] for _ in range(equal)]
    heap = [(0.0, turn) for turn in range(equal)]
    values = cost.tolist()
    for row in np.argsort(-cost, kind="stable").tolist():
        load, turn = heap[0]
        uncut[places[turn]].append(row)
        heapq.heapreplace(heap, (load + values[row], turn))
    first = np.searchsorted(ends, np.arange(equal + 1) / equal)
    shares = np.diff(ends)
    members = [
        part for k, rows in enumerate(uncut) for part in _cut(rows, values, shares[first[k] : first[k + 1]].tolist())
    ]
    bounds = np.concatenate(([0], np.cumsum([len(m) for m in members if m] or [0]))).astype(np.int64)
    return np.array([row for m in members for row in sorted(m)], dtype=np.int64), bounds


def _bit_reversed(n: int) -> list[int]:
    """0 … n-1 with their bits in reverse order; n is a power of two."""
    order = [0]
    while len(order) < n:
        order = [2 * k for k in order] + [2 * k + 1 for k in order]
    return order


def _cut(rows: list[int], values: list[float], shares: list[float]) -> list[list[int]]:
    """Rows, from the dearest to the cheapest, dealt to parts of unequal shares, each to the one that it fills least."""
    if len(shares) == 1:
        return [rows]
    parts: list[list[int]] = [[] for _ in shares]
    loads = [0.0] * len(shares)
    for row in rows:
        part = min(range(len(shares)), key=lambda k: (loads[k] + values[row]) / shares[k])
        parts[part].append(row)
        loads[part] += values[row]
    return parts


def rank_bounds(shard_costs: np.ndarray, size: int) -> np.ndarray:
    """Rank r of `size` owns the shards bounds[r]:bounds[r+1]; (size+1,) int64. Ranks may own none."""
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
