"""MaxVol: rows of a tall matrix whose square submatrix has a locally maximal determinant.

Goreinov et al., in Matrix Methods: Theory, Algorithms and Applications (2010), p. 247; for interatomic potentials
Podryabinkin and Shapeev, Comput. Mater. Sci. 140, 171 (2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr
from scipy.linalg.lapack import dgetrf

RANK_TOLERANCE = 1e-14
"""A pivot of the scaled columns below this part of the largest counts as zero."""
_REFRESH = 50  # exchanges after which the coordinates are computed from the rows again


def independent_rows(matrix: np.ndarray) -> np.ndarray:
    """Choose as many rows as there are columns by elimination with partial pivoting.

    The choice does not depend on the scale of the columns.

    Args:
        matrix: (n_rows, n) float64.

    Returns:
        Row numbers, ascending, (min(n_rows, n),).
    """
    n_rows, n = matrix.shape
    if n_rows <= n:
        return np.arange(n_rows)
    pivots = dgetrf(matrix)[1]
    order = np.arange(n_rows)
    for k, pivot in enumerate(pivots[:n].tolist()):
        order[[k, pivot]] = order[[pivot, k]]
    return np.sort(order[:n])


def determined_columns(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose the columns that are linearly independent, by QR with column pivoting.

    Args:
        matrix: (n_rows, n) float64.

    Returns:
        The numbers of the independent columns, ascending, (rank,), and the scale of every column, (n,): its largest
        absolute value, 1 where the column is zero.
    """
    scale = np.abs(matrix).max(axis=0, initial=0.0)
    # what is this small against the other functions is 0: bonds at their cutoff
    scale = np.where(scale > 1e-20 * scale.max(initial=0.0), scale, 0.0)
    nonzero = np.flatnonzero(scale)
    scale[scale == 0.0] = 1.0
    if len(nonzero) == 0:
        return nonzero, scale
    triangle, pivots = qr(matrix[:, nonzero] / scale[nonzero], mode="r", pivoting=True, check_finite=False)
    diagonal = np.abs(np.diagonal(triangle))
    rank = int((diagonal > RANK_TOLERANCE * diagonal[0]).sum())
    return np.sort(nonzero[pivots[:rank]]), scale


@dataclass
class Exchanges:
    """What `exchange` has done."""

    rows: np.ndarray
    """The rows chosen, (n,)."""
    n_exchanges: int
    largest: float
    """The largest coordinate of any row that is left."""


def exchange(matrix: np.ndarray, rows: np.ndarray, tolerance: float, max_exchanges: int) -> Exchanges:
    """Exchange rows while that makes the determinant grow by more than `tolerance`.

    Args:
        matrix: (n_rows, n) float64 of rank n.
        rows: the n rows to start from; independent.
        tolerance: the smallest factor of the determinant that is worth an exchange, above 1.
        max_exchanges: at most so many.
    """
    rows, done = rows.copy(), 0
    while True:
        coordinates = matrix @ np.linalg.inv(matrix[rows])  # free of what the updates below have gathered in round-off
        first = done
        while done < first + _REFRESH:
            i, j = divmod(int(np.abs(coordinates).argmax()), matrix.shape[1])
            largest = float(abs(coordinates[i, j]))
            if not largest > tolerance or done >= max_exchanges:
                break
            change = coordinates[i].copy()
            change[j] -= 1.0
            coordinates -= np.outer(coordinates[:, j], change / coordinates[i, j])
            rows[j] = i
            done += 1
        if done in (first, max_exchanges):
            return Exchanges(rows, done, largest)
