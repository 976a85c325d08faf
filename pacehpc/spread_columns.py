"""A matrix with its columns spread over the ranks, and products with it that have the same bits on any number of them.

Columns are cut into blocks of `gram.BLOCK`, of which each rank has a run. Sums over columns are made block by block and
added as integers (see fixed_point).
"""

from __future__ import annotations

import numpy as np

from pacehpc import fixed_point
from pacehpc.gram import BLOCK, gram
from pacehpc.machine import one_thread_of_numpy
from pacehpc.parallel import Ranks


class SpreadColumns:
    """A matrix A, (n_rows, n), whose rows were spread over the ranks. All methods are collective.

    Attributes:
        n_rows: over all ranks.
    """

    def __init__(self, rows: np.ndarray, ranks: Ranks) -> None:
        """Exchange this rank's rows of A, (n_own, n), for its columns."""
        self.ranks = ranks
        n = rows.shape[1]
        ends = np.cumsum(ranks.gather_everywhere(len(rows)))
        self.n_rows = int(ends[-1])
        blocks = np.arange(ranks.size + 1) * -(-n // BLOCK) // ranks.size
        bounds = np.minimum(blocks * BLOCK, n)
        begins, own = ends - np.diff(ends, prepend=0), slice(bounds[ranks.rank], bounds[ranks.rank + 1])
        self._first, self._last = int(own.start), int(own.stop)
        self._transposed = np.empty((self._last - self._first, self.n_rows))
        others = [rank for rank in range(ranks.size) if rank != ranks.rank]
        sent = {rank: rows[:, bounds[rank] : bounds[rank + 1]].T for rank in others}
        received = {rank: np.empty((self._last - self._first, ends[rank] - begins[rank])) for rank in others}
        ranks.exchange(
            {rank: part for rank, part in sent.items() if part.size},
            {rank: part for rank, part in received.items() if part.size},
        )
        received[ranks.rank] = rows[:, own].T
        for rank, part in received.items():
            self._transposed[:, begins[rank] : ends[rank]] = part

    def squares(self) -> np.ndarray | None:
        """Sum of squares of each column on the root, (n,)."""
        return self._gathered(np.add.reduce(self._transposed**2, axis=1))

    def weighted_gram(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """A diag(weights) Aᵀ on the root, as `gram` returns it; weights > 0, (n,), on every rank."""
        return gram(self._transposed * np.sqrt(weights[self._first : self._last])[:, None], self.ranks)

    def times(self, v: np.ndarray) -> np.ndarray | None:
        """A v on the root, (n_rows,); v, (n,), on every rank."""
        largest = np.abs(v).max(initial=0.0)
        scale = 2.0 ** -np.ceil(np.log2(largest)) if 0.0 < largest < np.inf else 1.0
        v = v * scale
        encoded = np.zeros((fixed_point.LIMBS, self.n_rows), np.int64)
        with one_thread_of_numpy():
            for at in range(0, len(self._transposed), BLOCK):
                block = self._transposed[at : at + BLOCK]
                encoded += fixed_point.encode(v[self._first + at : self._first + at + len(block)] @ block)
        total = self.ranks.sum_on_root(encoded)
        return None if total is None else fixed_point.decode(total) / scale

    def transposed_times(self, w: np.ndarray) -> np.ndarray | None:
        """Aᵀ w on the root, (n,); w, (n_rows,), on every rank."""
        with one_thread_of_numpy():
            parts = [self._transposed[at : at + BLOCK] @ w for at in range(0, len(self._transposed), BLOCK)]
        return self._gathered(np.concatenate(parts) if parts else np.zeros(0))

    def _gathered(self, values: np.ndarray) -> np.ndarray | None:
        """Numbers of all columns, (n,), on the root, of those of each rank."""
        found = self.ranks.rows_on_root(values[:, None])
        return None if found is None else found[:, 0]
