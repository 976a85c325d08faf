"""Sums of squares and products of the columns of a matrix whose rows are spread over the ranks.

The rows, one rank after the other, are cut into blocks of `BLOCK`; whichever rank holds the first row of a block
multiplies it, with one thread. Products are scaled to at most 1 and turned into integers, so that the sums over blocks
have the same bits on any number of ranks.
"""

from __future__ import annotations

import numpy as np

from pacehpc import fixed_point
from pacehpc.machine import one_thread_of_numpy
from pacehpc.parallel import Ranks

BLOCK = 256  # rows of a block
PANEL = 128  # columns of the result that are summed at once
_UNIT = 2.0**50  # integers of products in [-1, 1], summed
_ROUND = 1.5 * 2.0**52  # added to a number below 2^51, leaves the nearest integer in the low bits
_ROUND_BITS = int(np.float64(_ROUND).view(np.int64))


def gram(rows: np.ndarray, ranks: Ranks) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Products of the columns. By all ranks together.

    Args:
        rows: This rank's rows, (n_rows, n); overwritten.
        ranks: Who has the others.

    Returns:
        On the root (products, scales, squares): (n, n) in Fortran order, of which the lower triangle counts, of the
        columns times scales; scales (n,), powers of 2; squares (n,), the sums of squares of the columns, inf for those
        that are not finite. None on other ranks.
    """
    blocks = _whole_blocks(rows, ranks)
    n = rows.shape[1]
    largest = ranks.largest(np.abs(rows).max(axis=0, initial=0.0))
    scales = _powers_of_two(np.where(np.isfinite(largest), largest, 0.0))
    for block in blocks:
        block *= scales
    squares = _sum_of_squares(blocks, n, ranks)
    further = _powers_of_two(np.sqrt(squares))
    for block in blocks:
        block *= further
    squares = np.where(np.isfinite(largest), squares / scales / scales, np.inf)
    scales *= further
    products = np.zeros((n, n), order="F") if ranks.root else None
    with one_thread_of_numpy():
        for left in range(0, n, PANEL):
            right = min(left + PANEL, n)
            total = np.zeros((right - left, n - left), np.int64)
            for block in blocks:
                part = block[:, left:right].T @ block[:, left:]
                part *= _UNIT
                part += _ROUND
                total += part.view(np.int64)
            total -= np.uint64(len(blocks) * _ROUND_BITS % 2**64).astype(np.int64)
            total = ranks.sum_on_root(total)
            if ranks.root:
                products[left:, left:right] = total.T
                products[left:, left:right] /= _UNIT
    return (products, scales, squares) if ranks.root else None


def _powers_of_two(sizes: np.ndarray) -> np.ndarray:
    """Powers of 2 that make each size at most 1 and more than 1/2; 1 for sizes of 0."""
    return 2.0 ** -np.ceil(np.log2(np.where(sizes > 0, sizes, 1.0)))


def _sum_of_squares(blocks: list[np.ndarray], n: int, ranks: Ranks) -> np.ndarray:
    """Sum of squares of each column, (n,), on every rank."""
    encoded = np.zeros((fixed_point.LIMBS, n), np.int64)
    for block in blocks:
        encoded += fixed_point.encode(np.add.reduce(block * block, axis=0))
    return fixed_point.decode(ranks.sum(encoded))


def _whole_blocks(rows: np.ndarray, ranks: Ranks) -> list[np.ndarray]:
    """The blocks whose first row this rank has, completed by rows of the ranks behind it; the last may be shorter."""
    ends = np.cumsum(ranks.gather_everywhere(len(rows)))
    begins, n_all, rank = ends - np.diff(ends, prepend=0), int(ends[-1]), ranks.rank
    first, last = -(-begins // BLOCK) * BLOCK, np.minimum(-(-ends // BLOCK) * BLOCK, n_all)  # rows of owned blocks
    first = np.minimum(first, last)

    def shared(owner: int, source: int) -> slice:
        """Rows of blocks of `owner` that `source` has, behind those of `owner`."""
        low, high = max(int(first[owner]), int(begins[source])), min(int(last[owner]), int(ends[source]))
        return slice(low, max(low, high))

    sent, received = {}, {}
    for other in range(ranks.size):
        if other < rank and (part := shared(other, rank)).stop > part.start:
            sent[other] = rows[part.start - begins[rank] : part.stop - begins[rank]]
        if other > rank and (part := shared(rank, other)).stop > part.start:
            received[other] = np.empty((part.stop - part.start, rows.shape[1]))
    ranks.exchange(sent, received)
    own = rows[first[rank] - begins[rank] : last[rank] - begins[rank]]
    blocks = [own[k : k + BLOCK] for k in range(0, len(own), BLOCK)]
    if received:
        blocks[-1:] = [np.concatenate([*blocks[-1:], *(received[other] for other in sorted(received))])]
    return blocks
