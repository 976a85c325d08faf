"""Core repulsion between close atoms and the switch f_c that hands an atom's energy over to it.

E_i = F f_c + rho_core, or F f_c + rho_core (1 - f_c) for inner_cutoff_type `zbl`. Nothing here is trainable.
"""

from __future__ import annotations

import numpy as np

from pacehpc.physics.cutoff import cosine_step, smooth_step
from pacehpc.physics.parameters import Bond, Embedding

COULOMB = 14.399645351950543  # e^2/(4 pi eps0) in eV Å
SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))


def core_repulsion(bond: Bond, numbers: tuple[int, int], r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A bond's contribution to rho_core of its centre and its derivative, eV and eV/Å, (n,) each.

    numbers: atomic numbers of centre and neighbour, used by `zbl` only. r: distances in Å, (n,), 0 < r < rcut.
    """
    if bond.inner_cutoff_type == "zbl":
        return _zbl(bond, numbers, r)
    scale, decay = abs(bond.core_repulsion[0]), abs(bond.core_repulsion[1])
    exponent = decay * r * r
    seen = exponent < 50.0
    screened = np.where(seen, scale * np.exp(-np.minimum(exponent, 50.0)) / r, 0.0)
    slope = -screened * (2.0 * decay * r + 1.0 / r)
    step, dstep = cosine_step(r, 0.0, bond.rcut)
    value, slope = screened * step, slope * step + screened * dstep
    if bond.inner_cutoff_type == "distance":
        step, dstep = smooth_step(r, bond.r_in, bond.delta_in)
        value, slope = value * step, slope * step + value * dstep
    return value, slope


def core_switch(embedding: Embedding, rho_core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f_c = S(rho_core; rho_core_cut, drho_core_cut) and df_c/drho_core, for `distance` and `density`."""
    return smooth_step(rho_core, embedding.rho_core_cut, embedding.drho_core_cut)


def zbl_switch(distance: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f_c = S(delta - d; delta, delta) and df_c/dd of the `zbl` inner cutoff.

    distance: d, the smallest r - (r_in - delta_in) over the neighbours of an atom (inf without neighbours);
    delta: delta_in of that bond.
    """
    value, slope = smooth_step(delta - distance, delta, delta)
    return value, -slope


def screening_length(numbers: tuple[int, int]) -> float:
    """Screening length of the Ziegler-Biersack-Littmark repulsion between two atomic numbers, Å."""
    return 0.46850 / (numbers[0] ** 0.23 + numbers[1] ** 0.23)


def _zbl(bond: Bond, numbers: tuple[int, int], r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half of the Ziegler-Biersack-Littmark repulsion of a bond, smoothed to zero over dcut below rcut."""
    scale = 0.5 * bond.core_repulsion[0] * COULOMB * numbers[0] * numbers[1]
    length = screening_length(numbers)
    w, start = bond.dcut, bond.rcut - bond.dcut
    value, slope, _ = _screened_coulomb(r, length)
    e, de, d2e = (float(v[0]) for v in _screened_coulomb(np.array([bond.rcut]), length))
    if w > 0.0:
        a, b = (-3.0 * de + w * d2e) / w**2, (2.0 * de - w * d2e) / w**3
        u = np.maximum(r - start, 0.0)
        value = value + u**3 * (a / 3.0 + b / 4.0 * u)
        slope = slope + u**2 * (a + b * u)
    value = scale * (value - e + 0.5 * w * de - w * w * d2e / 12.0)
    step, dstep = smooth_step(r, bond.rcut, w)
    return value * step, scale * slope * step + value * dstep


def _screened_coulomb(r: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """phi(r/length)/r and its first two derivatives by r."""
    phi, dphi, d2phi = np.zeros_like(r), np.zeros_like(r), np.zeros_like(r)
    for c, exponent in SCREENING:
        k = exponent / length
        term = c * np.exp(-k * r)
        phi, dphi, d2phi = phi + term, dphi - k * term, d2phi + k * k * term
    value = phi / r
    first = (dphi - value) / r
    return value, first, (d2phi - 2.0 * first) / r
