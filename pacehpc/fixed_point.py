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
    """int64 (3, *values.shape) of float64 values; what is not finite or too large becomes 0."""
    return encode_checked(values)[0]


def encode_checked(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """`encode`, and whether a value is not finite or too large."""
    sizes = np.abs(values)
    too_large = not sizes.max(initial=0.0) < LIMIT
    rest = np.where(sizes < LIMIT, values, 0.0) if too_large else values
    limbs = np.empty((LIMBS, *rest.shape), np.int64)
    for limb, weight in zip(limbs, WEIGHTS, strict=True):
        whole = rest * (1.0 / weight)
        limb[...] = np.rint(whole, out=whole)
        if weight != WEIGHTS[-1]:
            whole *= weight
            rest = np.subtract(rest, whole, out=whole)
    return limbs, too_large


def decode(limbs: np.ndarray) -> np.ndarray:
    """float64 values of sums of encoded numbers, (3, …) → (…)."""
    high, middle, low = limbs
    # carry, so that limbs of opposite sign do not cancel after rounding
    carry = low + _HALF
    carry >>= BITS
    middle = middle + carry
    carry <<= BITS
    values = (low - carry) * WEIGHTS[2]
    carry = middle + _HALF
    carry >>= BITS
    high = high + carry
    carry <<= BITS
    middle -= carry
    values += middle * WEIGHTS[1]
    values += high * WEIGHTS[0]
    return values
