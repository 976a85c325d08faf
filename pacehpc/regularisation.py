"""What is added to the loss for large coefficients and rough radial functions R_nl = sum_k c_nlk g_k.

    L1 Σ|c_B| + L2 Σ c_B² + w0 I_0 + w1 I_1 + w2 I_2 + w_orth O

Bochkarev et al., Phys. Rev. Materials 6, 013804 (2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from pacehpc.physics.parameters import Bond
from pacehpc.physics.radial import bare_basis
from pacehpc.potential.model import Potential

SMOOTHNESS_POINTS = 100


def regularisation(
    potential: Potential, parameters: np.ndarray, loss: Mapping[str, Any]
) -> tuple[dict[str, float], np.ndarray]:
    """The contributions to the loss (by column of metrics.txt, factors included) and their gradient (n_parameters,).

    L1 and L2 act on the function coefficients, smoothness and orthogonality on the radial ones. Sets the radial
    coefficients of `potential`.
    """
    slope = np.zeros(len(parameters))
    n_radial = sum(c.size for c in potential.radcoefficients.values())
    functions, of_functions = parameters[n_radial:], slope[n_radial:]
    l1, l2 = float(loss["L1_coeffs"]), float(loss["L2_coeffs"])
    found = {"l1_reg_contrib": 0.0, "l2_reg_contrib": 0.0, "smooth_orth": 0.0}
    found |= {"smooth_w1": 0.0, "smooth_w2": 0.0, "smooth_w3": 0.0}
    if l1:
        found["l1_reg_contrib"] = l1 * float(np.abs(functions).sum())
        np.multiply(l1, np.sign(functions), out=of_functions)
    if l2:
        found["l2_reg_contrib"] = l2 * float(functions @ functions)
        of_functions += 2.0 * l2 * functions
    factors = [loss["w0_rad"], loss["w1_rad"], loss["w2_rad"]]
    if any(factors) or loss["w_orth"]:
        for pair, where in potential.radial_slices.items():
            potential.radcoefficients[pair] = parameters[where].reshape(potential.radcoefficients[pair].shape)
    if any(factors):
        values, slopes = smoothness(potential)
        for k, value in enumerate((np.array(factors, float) * values).tolist()):
            found[f"smooth_w{k + 1}"] = value
        slope[:n_radial] += np.array(factors, float) @ slopes
    if loss["w_orth"]:
        value, slope_orth = orthogonality(potential)
        found["smooth_orth"] = float(loss["w_orth"] * value)
        slope[:n_radial] += loss["w_orth"] * slope_orth
    return found, slope


def smoothness(potential: Potential) -> tuple[np.ndarray, np.ndarray]:
    """I_0, I_1, I_2 and their gradients by the radial coefficients.

    I_d is the mean over ordered bonds of (1/rcut^2) sum_q r_q^2 sum_nl |d^d R_nl/dr^d (r_q)| h, with 100 equidistant
    points r_q on [1e-10, R - 1e-5], R the largest rcut of the potential and h their spacing; R_nl is taken without
    inner cutoff and without the dcut factor, and is 0 beyond its own rcut.

    Returns values (3,) and gradients (3, n_radial), n_radial the leading, radial part of potential.parameters.
    """
    n_bonds = len(potential.bonds)
    values = np.zeros(3)
    gradients = np.zeros((3, sum(c.size for c in potential.radcoefficients.values())))
    for pair, c in potential.radcoefficients.items():
        share = _orders(pair) / n_bonds
        table = _smoothness_table(potential.bonds[pair], potential.cutoff)
        functions = np.einsum("dqk,nlk->dqnl", table, c)
        values += share * np.abs(functions).sum(axis=(1, 2, 3))
        slope = np.einsum("dqk,dqnl->dnlk", table, np.sign(functions))
        gradients[:, potential.radial_slices[pair]] = share * slope.reshape(3, -1)
    return values * _spacing(potential.cutoff), gradients * _spacing(potential.cutoff)


def orthogonality(potential: Potential) -> tuple[float, np.ndarray]:
    """O and its gradient by the radial coefficients (n_radial,).

    O = sum over ordered bonds of mean((c_l c_l^T - 1)^2) + mean((c_l^T c_l - 1)^2), means over l and matrix entries,
    c_l the nradmax x nradbase matrix of radial coefficients.
    """
    value = 0.0
    gradient = np.zeros(sum(c.size for c in potential.radcoefficients.values()))
    for pair, c in potential.radcoefficients.items():
        cl = c.transpose(1, 0, 2)
        rows = cl @ cl.transpose(0, 2, 1) - np.eye(cl.shape[1])
        columns = cl.transpose(0, 2, 1) @ cl - np.eye(cl.shape[2])
        value += _orders(pair) * (np.mean(rows**2) + np.mean(columns**2))
        slope = 4.0 * _orders(pair) * (rows @ cl / rows.size + cl @ columns / columns.size)
        gradient[potential.radial_slices[pair]] = slope.transpose(1, 0, 2).ravel()
    return float(value), gradient


def _orders(pair: tuple[str, str]) -> int:
    """Ordered bonds that share the coefficients of a pair."""
    return 1 if pair[0] == pair[1] else 2


def _spacing(largest: float) -> float:
    return (largest - 1e-5 - 1e-10) / (SMOOTHNESS_POINTS - 1)


@lru_cache(maxsize=512)
def _smoothness_table(bond: Bond, largest: float) -> np.ndarray:
    """(r_q/rcut)^2 d^d g_k/dr^d (r_q), (3, points, nradbase)."""
    r = np.linspace(1e-10, largest - 1e-5, SMOOTHNESS_POINTS)
    return np.stack(bare_basis(bond, r)) * (r[:, None] / bond.rcut) ** 2
