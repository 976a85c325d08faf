"""Radial functions of a bond: the basis g_k(r) and its cutoffs.

Drautz, Phys. Rev. B 99, 014104 (2019); Bochkarev et al., Phys. Rev. Materials 6, 013804 (2022).
"""

from __future__ import annotations

import numpy as np

from pacehpc.errors import PacehpcError
from pacehpc.physics.cutoff import cosine_step, smooth_step
from pacehpc.physics.parameters import FAMILIES, Bond


def radial_basis(bond: Bond, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g_k(r) and dg_k/dr, both (len(r), nradbase), with outer and inner cutoff.

    r: distances in Å, (n,). The inner cutoff `distance` multiplies g_k by 1 - S(r; r_in, delta_in); with `distance` and
    `density` g_k = 0 for r <= r_in - delta_in; `zbl` leaves g_k alone. g_k = 0 for r >= rcut.

    Raises:
        PacehpcError: an unknown family or type of inner cutoff.
    """
    r = np.asarray(r, dtype=float)
    g, dg, _ = bare_basis(bond, r)
    factor, slope = np.ones_like(r), np.zeros_like(r)
    if bond.radbase == "ChebExpCos":
        factor, slope = cosine_step(r, bond.rcut - bond.dcut, bond.dcut)
    if bond.inner_cutoff_type == "distance":
        step, dstep = smooth_step(r, bond.r_in, bond.delta_in)
        factor, slope = factor * (1.0 - step), slope * (1.0 - step) - factor * dstep
    elif bond.inner_cutoff_type not in ("density", "zbl"):
        raise PacehpcError(
            f"unknown inner_cutoff_type '{bond.inner_cutoff_type}': use 'distance' (or 'density', 'zbl')."
        )
    if bond.inner_cutoff_type != "zbl":
        seen = r > bond.r_in - bond.delta_in
        factor, slope = np.where(seen, factor, 0.0), np.where(seen, slope, 0.0)
    return g * factor[:, None], dg * factor[:, None] + g * slope[:, None]


def bare_basis(bond: Bond, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """g_k, g_k', g_k'' (len(r), nradbase) without dcut factor and inner cutoff; 0 for r >= rcut."""
    values = [np.zeros((len(r), bond.nradbase)) for _ in range(3)]
    seen = r < bond.rcut
    if bond.radbase == "SBessel":
        parts = _bessel(bond, r[seen])
    elif bond.radbase in FAMILIES:
        parts = _chebyshev(bond, r[seen])
    else:
        raise PacehpcError(f"unknown radbase '{bond.radbase}': use one of {', '.join(FAMILIES)}.")
    for value, part in zip(values, parts, strict=True):
        value[seen] = part
    return tuple(values)


def _chebyshev(bond: Bond, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rc = bond.rcut
    if bond.radbase == "ChebExpCos":
        lam = bond.radparameters[0]
        e = np.exp(-lam * r / rc)
        scale = -2.0 / (1.0 - np.exp(-lam))
        x, dx, d2x = 1.0 + scale * (e - np.exp(-lam)), -scale * lam / rc * e, scale * (lam / rc) ** 2 * e
    elif bond.radbase == "ChebPow":
        lam = bond.radparameters[0]
        u = (rc - r) / rc  # never rounds to 0 for r < rc
        x, dx = 1.0 - 2.0 * u**lam, 2.0 * lam / rc * u ** (lam - 1.0)
        d2x = -2.0 * lam * (lam - 1.0) / rc**2 * u ** (lam - 2.0)
    else:
        x, dx, d2x = 1.0 - r / rc, np.full_like(r, -1.0 / rc), np.zeros_like(r)

    t, dt, d2t = _chebyshev_polynomials(x, bond.nradbase)
    h, dh, d2h = 0.5 * (1.0 - t), -0.5 * dt * dx, -0.5 * (d2t * dx**2 + dt * d2x)
    if bond.radbase != "ChebExpCos":
        return h[1:].T, dh[1:].T, d2h[1:].T

    phase = np.pi * r / rc
    env = 0.5 * (1.0 + np.cos(phase))
    denv = -0.5 * np.pi / rc * np.sin(phase)
    d2env = -0.5 * (np.pi / rc) ** 2 * np.cos(phase)
    h, dh, d2h = h[:-1], dh[:-1], d2h[:-1]
    h[:1] = 1.0  # g_1 is the envelope itself
    return (h * env).T, (dh * env + h * denv).T, (d2h * env + 2.0 * dh * denv + h * d2env).T


def _chebyshev_polynomials(x: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T_n(x), T_n', T_n'', n = 0..degree, each (degree + 1, len(x))."""
    t, dt, d2t = (np.zeros((degree + 1, len(x))) for _ in range(3))
    t[0] = 1.0
    if degree > 0:
        t[1], dt[1] = x, 1.0
    for n in range(1, degree):
        t[n + 1] = 2.0 * x * t[n] - t[n - 1]
        dt[n + 1] = 2.0 * t[n] + 2.0 * x * dt[n] - dt[n - 1]
        d2t[n + 1] = 4.0 * dt[n] + 2.0 * x * d2t[n] - d2t[n - 1]
    return t, dt, d2t


def _bessel(bond: Bond, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orthogonalised spherical Bessel functions, Kocer et al., J. Chem. Phys. 150, 154102 (2019)."""
    rc = bond.rcut
    f = np.zeros((3, bond.nradbase, len(r)))
    for n in range(bond.nradbase):
        p, q = n + 1, n + 2
        scale = (-1) ** n * np.sqrt(2.0) * np.pi / rc**1.5 * p * q / np.hypot(p, q)
        f[:, n] = scale * (_sinc(r, p * np.pi / rc) + _sinc(r, q * np.pi / rc))
    g = np.zeros_like(f)
    d = 1.0
    for n in range(bond.nradbase):
        e = n**2 * (n + 2) ** 2 / (4.0 * (n + 1) ** 4 + 1.0)
        if n == 0:
            g[:, 0] = f[:, 0]
            continue
        ratio = e / d
        d = 1.0 - ratio
        g[:, n] = (f[:, n] + np.sqrt(ratio) * g[:, n - 1]) / np.sqrt(d)
    return g[0].T, g[1].T, g[2].T


def _sinc(r: np.ndarray, k: float) -> np.ndarray:
    """sin(k r)/(k r) and its first two derivatives by r, (3, len(r))."""
    x = k * r
    small = np.abs(x) < 0.1
    y = np.where(small, 1.0, x)
    value = np.sin(y) / y
    first = (np.cos(y) - value) / y
    second = -value - 2.0 * first / y
    s = x * x
    # Taylor series where the closed forms lose digits; the next terms are below 1e-16
    value = np.where(small, 1.0 - s / 6.0 * (1.0 - s / 20.0 * (1.0 - s / 42.0 * (1.0 - s / 72.0))), value)
    first = np.where(small, -x / 3.0 * (1.0 - s / 10.0 * (1.0 - s / 28.0 * (1.0 - s / 54.0))), first)
    third = 1.0 - 3.0 * s / 10.0 * (1.0 - 5.0 * s / 84.0 * (1.0 - 7.0 * s / 270.0))
    second = np.where(small, -third / 3.0, second)
    return np.stack([value, k * first, k * k * second])
