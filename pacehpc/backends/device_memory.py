"""Memory of the cuda backend: what is predicted, and the batches and rows of sums that follow from it."""

from __future__ import annotations

import numpy as np

from pacehpc.backends.layout import Layout
from pacehpc.backends.shape import Shape
from pacehpc.backends.source import LANES
from pacehpc.structures import Structures

RESIDENT_BOND, RESIDENT_ATOM = 84, 300  # bytes that stay, padding included: records, places; targets, results
WORK_BOND = 32  # bytes of a batch: force on the other end
PADDING = 1.2  # of work arrays: tiles that are not full
ROW_BYTES = 2**20  # most that the rows of gradient sums of a virtual shard may take, if it is more than one row
PIECES, PIECE_ATOMS = 256, 384  # where the data has no virtual shards: how many, of how many atoms at least


def state_size(shape: Shape) -> int:
    """Numbers that an atom hands from stage to stage (enum State of the kernels)."""
    return 6 * shape.n_densities + 2


def work_arrays(shape: Shape, moments_stored: bool, fitting: bool) -> dict[str, int]:
    """Numbers per atom of the work arrays of a batch, by their names in the kernels' `Work`."""
    nodes, y, moments = shape.max_components, shape.max_y, shape.max_moments
    sizes = {"Phi": nodes, "Phi_bar": nodes, "y": y, "w": moments, "state": state_size(shape)}
    if fitting:
        sizes |= {"dPhi": nodes, "dPhi_bar": nodes, "dy": y}
    if not moments_stored:
        sizes["G"] = moments
    return sizes


def work_per_atom(shape: Shape, moments_stored: bool, fitting: bool) -> int:
    """Bytes of a batch's work arrays per atom; without targets (fitting) there is no second pass."""
    return 8 * sum(work_arrays(shape, moments_stored, fitting).values())


def row_bytes(shape: Shape) -> int:
    """One row of gradient sums."""
    return 8 * sum(len(t.positions) * shape.n_densities + t.n_radial + t.n_first for t in shape.elements)


def most_rows(shape: Shape) -> int:
    """Rows of gradient sums that a virtual shard may have."""
    return max(1, ROW_BYTES // max(1, row_bytes(shape)))


def row_memory(shape: Shape, shards: np.ndarray) -> int:
    """Bytes of all rows of gradient sums; shards: atoms of each."""
    return int(np.minimum(-(-shards // LANES), most_rows(shape)).sum()) * row_bytes(shape)


def memory_needs(
    shape: Shape, shards: np.ndarray, n_bonds: int, moments_stored: bool, fitting: bool = True
) -> tuple[int, int, int]:
    """Bytes on the device of what stays there, of stored moments, and of the work arrays if all is one batch.

    shards: atoms of each virtual shard; n_bonds: of all atoms.
    """
    n_atoms = int(shards.sum())
    moments = 8 * shape.max_moments * n_atoms if moments_stored else 0
    work = work_per_atom(shape, moments_stored, fitting) * n_atoms + WORK_BOND * n_bonds
    rows = row_memory(shape, shards) if fitting else 0
    return RESIDENT_BOND * n_bonds + RESIDENT_ATOM * n_atoms, moments, int(PADDING * (work + rows)) + 2**16


def piece_starts(structures: Structures) -> np.ndarray:
    """First structures of about equal runs, for data without virtual shards."""
    n = int(np.clip(structures.n_atoms // PIECE_ATOMS, 1, min(PIECES, structures.n_structures)))
    ends = np.arange(n) * structures.n_atoms // n
    return np.unique(np.searchsorted(structures.atom_offsets[:-1], ends))


def batches(structures: Structures, starts: np.ndarray, per_atom: int, per_bond: int, limit: int) -> list[slice]:
    """Consecutive structures whose work arrays take up to `limit` bytes, at least one structure each.

    starts: first structure of each virtual shard; only shards that take more than `limit` alone are cut.
    """
    bonds = np.diff(structures.bond_offsets[structures.atom_offsets])
    costs = np.r_[0, np.cumsum(structures.atoms_per_structure * per_atom + bonds * per_bond)]
    ends = np.append(starts[1:], structures.n_structures)
    units: list[tuple[int, int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        whole = costs[end] - costs[start] <= limit
        units += [(start, end)] if whole else [(s, s + 1) for s in range(start, end)]
    cuts, first = [], 0
    for start, end in units:
        if start > first and costs[end] - costs[first] > limit:
            cuts.append(slice(first, start))
            first = start
    cuts.append(slice(first, structures.n_structures))
    return cuts


def row_items(layout: Layout, most_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of gradient sums of each piece: what a warp adds to one row, and where the rows of pieces start.

    Returns int64 (n_items, 5), [element, row, first tile, end, step], and (n_pieces + 1,). They depend on the piece
    alone, whatever is evaluated beside it.
    """
    items, starts = [], [0]
    for first, last in layout.batches[:, :2].tolist():
        elements, counts = np.unique(layout.tile_element[first:last], return_counts=True)
        ends = first + np.cumsum(counts)
        steps = np.minimum(counts, most_rows)
        for element, count, end, step in zip(*(a.tolist() for a in (elements, counts, ends, steps)), strict=True):
            items += [[element, starts[-1] + k, end - count + k, end, step] for k in range(step)]
        starts.append(starts[-1] + int(steps.max(initial=0)))
    return np.array(items, np.int64).reshape(-1, 5), np.array(starts, np.int64)


def counted_batches(batches: int) -> str:
    """For the log."""
    return "1 batch" if batches == 1 else f"{batches} batches"


def size_of(n_bytes: int) -> str:
    """For the log."""
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"
