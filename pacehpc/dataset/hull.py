"""Distance of energies per atom to the convex hull over composition."""

from __future__ import annotations

import numpy as np

_QHULL_DIMENSIONS = 6  # beyond, the number of facets explodes


def hull_distances(counts: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Energy per atom above the lower convex hull over composition, eV/atom.

    Args:
        counts: (n_structures, n_elements) atoms of each element.
        energy: (n_structures,) eV.

    Terms linear in the composition (energies of the elements) have no influence.
    """
    n_atoms = counts.sum(axis=1)
    per_atom = energy / n_atoms
    whole = np.asarray(counts, dtype=np.int64)
    formulas, which = np.unique(whole // np.gcd.reduce(whole, axis=1)[:, None], axis=0, return_inverse=True)
    fractions = formulas / formulas.sum(axis=1, keepdims=True)
    which = which.ravel()
    lowest = np.full(len(fractions), np.inf)
    np.minimum.at(lowest, which, per_atom)
    lowest = lowest - fractions @ np.linalg.lstsq(fractions, lowest, rcond=None)[0]
    # exact within a composition: only differences to its lowest energy are added to the hull's distance
    first = np.full(len(fractions), np.inf)
    np.minimum.at(first, which, per_atom)
    return (lowest - _lower_hull(fractions, lowest))[which] + (per_atom - first[which])


def _lower_hull(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The lower convex envelope of `values` at the `points` themselves."""
    centred = points - points.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    rank = int((singular > 1e-9 * max(1.0, singular[0] if len(singular) else 0.0)).sum()) if len(points) > 1 else 0
    if rank == 0:
        return values.copy()
    x = centred @ axes[:rank].T
    if len(points) == rank + 1:
        return values.copy()  # a simplex: every point is a corner
    scale = max(float(np.ptp(values)), 1e-12)
    if rank > _QHULL_DIMENSIONS:
        return _lower_hull_by_programs(x, values)
    from scipy.spatial import ConvexHull  # takes its time, and most fits weight uniformly

    top = np.append(x.mean(axis=0), values.max() / scale + 1.0)  # makes points in one plane a body, too
    hull = ConvexHull(np.vstack([np.column_stack([x, values / scale]), top]))
    equations = np.unique(hull.equations[hull.equations[:, -2] < -1e-10], axis=0)
    envelope = np.full(len(x), -np.inf)
    for normal in equations:
        np.maximum(envelope, -(x @ normal[:-2] + normal[-1]) / normal[-2], out=envelope)
    return np.minimum(envelope * scale, values)


def _lower_hull_by_programs(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The same by one linear program a point: the cheapest mixture of points that gives its composition."""
    from scipy.optimize import linprog

    constraints = np.vstack([x.T, np.ones(len(x))])
    envelope = values.copy()
    for k in range(len(x)):
        envelope[k] = min(values[k], linprog(values, A_eq=constraints, b_eq=constraints[:, k]).fun)
    return envelope
