"""Which points are drawn where there are many."""

from __future__ import annotations

import numpy as np

MOST = 20_000  # points of a figure
WORST = 2_000  # of them, those with the largest errors


def sample(errors: np.ndarray, most: int = MOST, worst: int = WORST) -> np.ndarray:
    """Numbers of the points to draw, ascending: all, or the worst and a random sample of the rest.

    The sample is the same at each call.

    Args:
        errors: of the points, (n,), without NaN.
        most: number of points from which some are left out.
        worst: number of the largest |errors| that are always drawn.
    """
    if len(errors) <= most:
        return np.arange(len(errors))
    order = np.argsort(-np.abs(errors), kind="stable")
    rest = np.random.default_rng(0).choice(order[worst:], most - worst, replace=False)
    return np.sort(np.concatenate([order[:worst], rest]))


def sample_text(shown: int, total: int, what: str) -> str:
    """A sentence that says what was left out; "" where all points are drawn."""
    if shown == total:
        return ""
    return (
        f"{shown:,} of {total:,} {what} are drawn: the {min(WORST, shown):,} with the largest errors, and a random "
        "sample of the others."
    )
