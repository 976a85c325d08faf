"""Complex spherical harmonics, scaled so that Y_00 = 1, with the Condon-Shortley phase."""

from __future__ import annotations

import math

import numpy as np


def spherical_harmonics(lmax: int, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Y_lm of the directions of `vectors` and their gradients by the vectors.

    vectors: (n, 3), none of them zero. Returns Y complex (n, (lmax + 1)^2), column l^2 + l + m, and the gradients
    dY/dr complex (n, 3, (lmax + 1)^2) in 1/Å. Y_lm = sqrt(4 pi) times the orthonormal harmonic, that is
    (-1)^m sqrt((2l+1) (l-m)!/(l+m)!) (x + iy)^m d^m P_l/dz^m on the unit sphere, and Y_l,-m = (-1)^m conj(Y_lm):
    polynomials in x, y, z, so that nothing is singular at the poles.
    """
    r = np.linalg.norm(vectors, axis=1)
    unit = vectors / r[:, None]
    z = unit[:, 2]
    powers = _powers(unit[:, 0] + 1j * unit[:, 1], lmax)
    q = _legendre_derivatives(z, lmax)
    n = len(vectors)
    y = np.zeros((n, (lmax + 1) ** 2), dtype=complex)
    ambient = np.zeros((n, 3, (lmax + 1) ** 2), dtype=complex)  # gradient of the polynomial in x, y, z
    for l in range(lmax + 1):
        for m in range(l + 1):
            scale = (-1) ** m * math.sqrt((2 * l + 1) * (math.factorial(l - m) / math.factorial(l + m)))
            column, mirror = l * l + l + m, l * l + l - m
            y[:, column] = scale * q[l, m] * powers[m]
            if m > 0:
                ambient[:, 0, column] = scale * q[l, m] * m * powers[m - 1]
                ambient[:, 1, column] = 1j * ambient[:, 0, column]
            ambient[:, 2, column] = scale * q[l, m + 1] * powers[m]
            if m > 0:
                y[:, mirror] = (-1) ** m * y[:, column].conj()
                ambient[:, :, mirror] = (-1) ** m * ambient[:, :, column].conj()
    along = np.einsum("na,nac->nc", unit, ambient)
    return y, (ambient - unit[:, :, None] * along[:, None, :]) / r[:, None, None]


def _powers(value: np.ndarray, highest: int) -> np.ndarray:
    """value^0 .. value^highest, (highest + 1, n)."""
    powers = np.ones((highest + 1, len(value)), dtype=complex)
    for m in range(highest):
        powers[m + 1] = powers[m] * value
    return powers


def _legendre_derivatives(z: np.ndarray, lmax: int) -> np.ndarray:
    """d^m P_l/dz^m for l = 0..lmax, m = 0..lmax + 1, (lmax + 1, lmax + 2, n)."""
    q = np.zeros((lmax + 1, lmax + 2, len(z)))
    q[0, 0] = 1.0
    for l in range(1, lmax + 1):
        q[l, l] = (2 * l - 1) * q[l - 1, l - 1]
        for m in range(l):
            below = q[l - 2, m] if l > 1 else 0.0
            q[l, m] = ((2 * l - 1) * z * q[l - 1, m] - (l + m - 1) * below) / (l - m)
    return q
