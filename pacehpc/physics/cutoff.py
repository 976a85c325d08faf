"""Smooth switching functions."""

from __future__ import annotations

import numpy as np


def smooth_step(r: np.ndarray, a: float | np.ndarray, delta: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S(r; a, delta) and dS/dr: descends from 1 at r <= a - delta to 0 at r >= a, twice continuously differentiable.

    S = 1/2 + 15/4 (x/4 - x^3/6 + x^5/20), x = 1 - 2 (1 + (r - a)/delta). With delta = 0 it is a jump, S(a) = 0.
    Arguments are broadcast against each other.
    """
    r, a, delta = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (r, a, delta)))
    inside = (r < a) & (r > a - delta)
    width = np.where(inside, delta, 1.0)
    x = np.where(inside, 1.0 - 2.0 * (1.0 + (r - a) / width), 0.0)
    value = 0.5 + 3.75 * x * (0.25 + x * x * (-1.0 / 6.0 + x * x * 0.05))
    slope = -1.875 * (1.0 - x * x) ** 2 / width
    return np.where(r >= a, 0.0, np.where(inside, value, 1.0)), np.where(inside, slope, 0.0)


def cosine_step(r: np.ndarray, start: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """(1 + cos(pi (r - start)/width))/2 and its derivative, 1 for r <= start; width = 0 means no step at all."""
    r = np.asarray(r, dtype=float)
    if width == 0.0:
        return np.ones_like(r), np.zeros_like(r)
    inside = r > start
    phase = np.where(inside, np.pi * (r - start) / width, 0.0)
    return 0.5 * (1.0 + np.cos(phase)), -0.5 * np.pi / width * np.sin(phase)
