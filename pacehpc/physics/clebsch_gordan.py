"""Clebsch-Gordan coefficients ⟨l1 m1 l2 m2 | L M⟩ of integer angular momenta, in the Condon-Shortley phase."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import factorial, sqrt

import numpy as np


def clebsch_gordan(l1: int, m1: int, l2: int, m2: int, L: int, M: int) -> float:
    """⟨l1 m1 l2 m2 | L M⟩ by Racah's formula in exact rational arithmetic, rounded once at the end.

    Zero where M != m1 + m2, where the triangle rule fails, or where |m| > l.
    Source: A. R. Edmonds, Angular Momentum in Quantum Mechanics (1957), eq. 3.6.11.
    """
    if m1 + m2 != M or not abs(l1 - l2) <= L <= l1 + l2 or abs(m1) > l1 or abs(m2) > l2 or abs(M) > L:
        return 0.0
    f = factorial
    total = Fraction(0)
    for k in range(max(0, l2 - L - m1, l1 + m2 - L), min(l1 + l2 - L, l1 - m1, l2 + m2) + 1):
        denominator = f(k) * f(l1 + l2 - L - k) * f(l1 - m1 - k) * f(l2 + m2 - k)
        denominator *= f(L - l2 + m1 + k) * f(L - l1 - m2 + k)
        total += Fraction((-1) ** k, denominator)
    square = Fraction((2 * L + 1) * f(l1 + l2 - L) * f(l1 - l2 + L) * f(l2 - l1 + L), f(l1 + l2 + L + 1))
    square *= f(l1 + m1) * f(l1 - m1) * f(l2 + m2) * f(l2 - m2) * f(L + M) * f(L - M)
    square *= total * total
    return -sqrt(square) if total < 0 else sqrt(square)


@cache
def coupling_matrix(l1: int, l2: int, L: int) -> np.ndarray:
    """All coefficients of one coupling, read-only.

    Returns
    -------
    (2 l1 + 1, 2 l2 + 1, 2 L + 1) float64; entry [l1 + m1, l2 + m2, L + M] is ⟨l1 m1 l2 m2 | L M⟩.
    """
    matrix = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * L + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(-l2, l2 + 1):
            if abs(m1 + m2) <= L:
                matrix[l1 + m1, l2 + m2, L + m1 + m2] = clebsch_gordan(l1, m1, l2, m2, L, m1 + m2)
    matrix.flags.writeable = False
    return matrix
