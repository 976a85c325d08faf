"""Sums that come out with the same bits in any order: numbers as integers in units of 2^-80.

Floating-point sums depend on the order of their terms, so a plain reduction over ranks gives other bits on another
number of ranks. Integer sums do not. A number x with |x| < 2^70 becomes three 64-bit integers,

    x ≈ l_0 2^20 + l_1 2^-30 + l_2 2^-80,   |l_0| ≤ 2^50, |l_1|, |l_2| ≤ 2^49,

exact but for what lies below 2^-81 (4e-25). Sums of up to 2^12 of them are at most 2^62, inside int64. Used for losses
(eV², dimensionless weights) and their gradients, which lie far inside that range.
"""

from __future__ import annotations

import numpy as np

LIMBS = 3
BITS = 50  # by which the weights of successive limbs differ
WEIGHTS = (2.0**20, 2.0**-30, 2.0**-80)
LIMIT = 2.0**70
MAX_TERMS = 4096
_HALF = 1 << (BITS - 1)


def encode(values: np.ndarray) -> np.ndarray:
    """int64 (3, *values.shape) of float64 values; what is not finite or too large becomes 0: see `fits`."""
    inside = fits(values)
    rest = values if inside.all() else np.where(inside, values, 0.0)
    limbs = np.empty((LIMBS, *rest.shape), np.int64)
    for limb, weight in zip(limbs, WEIGHTS, strict=True):
        whole = np.rint(rest * (1.0 / weight))
        limb[...] = whole
        rest = rest - whole * weight
    return limbs


def decode(limbs: np.ndarray) -> np.ndarray:
    """float64 values of sums of encoded numbers, (3, …) → (…)."""
    high, middle, low = limbs
    # carry, so that limbs of opposite sign do not cancel after rounding
    carry = (low + _HALF) >> BITS
    low = low - (carry << BITS)
    middle = middle + carry
    carry = (middle + _HALF) >> BITS
    middle -= carry << BITS
    return (high + carry) * WEIGHTS[0] + (middle * WEIGHTS[1] + low * WEIGHTS[2])


def fits(values: np.ndarray) -> np.ndarray:
    """Which values `encode` can represent."""
    return np.abs(values) < LIMIT
