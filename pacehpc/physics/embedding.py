"""The embedding function F(rho_1, rho_2, ...) = sum_p w_p f(rho_p; m_p) of an atom."""

from __future__ import annotations

import numpy as np

from pacehpc.errors import PacehpcError
from pacehpc.physics.parameters import Embedding


def embed(embedding: Embedding, rho: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F (n,), dF/drho_p (n, ndensity) and d2F/drho_p^2 (n, ndensity; mixed derivatives are zero) of densities rho.

    rho: (n, ndensity). fs_parameters are [w_1, m_1, w_2, m_2, ...]. f is odd and has slope everywhere; its second
    derivative jumps or grows beyond bounds towards rho = 0 for some m, it is set to 0 at rho = 0 itself.

    Raises:
        PacehpcError: an unknown npot.
    """
    try:
        function = {"FinnisSinclairShiftedScaled": _shifted_scaled, "FinnisSinclair": _finnis_sinclair}[embedding.npot]
    except KeyError:
        raise PacehpcError(
            f"unknown embedding '{embedding.npot}': use FinnisSinclairShiftedScaled or FinnisSinclair."
        ) from None
    value, first, second = np.zeros(len(rho)), np.zeros_like(rho), np.zeros_like(rho)
    for p in range(embedding.ndensity):
        weight, m = embedding.fs_parameters[2 * p : 2 * p + 2]
        f, df, d2f = function(np.abs(rho[:, p]), m)
        sign = np.sign(rho[:, p])
        value += weight * sign * f
        first[:, p] = weight * df
        second[:, p] = weight * sign * d2f
    return value, first, second


def _shifted_scaled(a: np.ndarray, m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f, f', f'' at a = |rho|: (a + X)^m - Y, X = q^(q/(1-q)) e^-a, Y = q^(1/(1-q)) e^-a, q = 1/m; f = a for m = 1."""
    if m == 1.0:
        return a, np.ones_like(a), np.zeros_like(a)
    q = 1.0 / m
    e = np.exp(-a)
    x, y = q ** (q / (1.0 - q)) * e, q ** (1.0 / (1.0 - q)) * e
    u, du = a + x, 1.0 - x
    first = m * u ** (m - 1.0) * du + y
    second = m * (m - 1.0) * u ** (m - 2.0) * du**2 + m * u ** (m - 1.0) * x - y
    return u**m - y, first, second


def _finnis_sinclair(a: np.ndarray, m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f, f', f'' at a = |rho|: (1 - h) a^m + w^(1-m) h a with h = exp(-(w a)^3), w = 1e6; linear for a <= 1e-10."""
    w = 1e6
    linear = a <= 1e-10
    b = np.where(linear, 1.0, a)
    cube = (w * b) ** 3
    h = np.where(cube > 30.0, 0.0, np.exp(-np.minimum(cube, 30.0)))
    dh = -3.0 * w**3 * b**2 * h
    d2h = (9.0 * w**6 * b**4 - 6.0 * w**3 * b) * h
    slope = w ** (1.0 - m)
    value = (1.0 - h) * b**m + slope * h * b
    first = (1.0 - h) * m * b ** (m - 1.0) - dh * b**m + slope * (dh * b + h)
    second = (
        (1.0 - h) * m * (m - 1.0) * b ** (m - 2.0)
        - 2.0 * dh * m * b ** (m - 1.0)
        - d2h * b**m
        + slope * (d2h * b + 2.0 * dh)
    )
    return np.where(linear, slope * a, value), np.where(linear, slope, first), np.where(linear, 0.0, second)
