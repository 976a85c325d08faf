"""Regularisation against golden values, definitions and finite differences."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pacehpc.physics.radial import radial_basis
from pacehpc.potential import Potential
from pacehpc.regularisation import orthogonality, regularisation, smoothness

KEYS = ("L1_coeffs", "L2_coeffs", "w0_rad", "w1_rad", "w2_rad", "w_orth")


@pytest.mark.parametrize("name", ["alni_energy_only", "cu_forces", "ethanol_reg"])
def test_regularisation_of_golden_potentials(golden, name):
    potential = Potential.load(golden / "loss" / f"{name}.yaml")
    expected = json.loads((golden / "loss" / f"{name}.json").read_text())["regularisation"]
    loss = dict.fromkeys(KEYS, 0.0) | {"L1_coeffs": 1.0, "L2_coeffs": 1.0}
    if len(expected) > 2:
        loss |= {"w0_rad": 1.0, "w1_rad": 1.0, "w2_rad": 1.0}
    found, _ = regularisation(potential, potential.parameters, loss)
    names = ["l1_reg_contrib", "l2_reg_contrib", "smooth_w1", "smooth_w2", "smooth_w3"][: len(expected)]
    assert [found[key] for key in names] == pytest.approx(expected, rel=1e-10)


@pytest.fixture
def alloy(golden):
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    rng = np.random.default_rng(5)
    potential.parameters = potential.parameters + 0.1 * rng.normal(size=potential.n_parameters)
    return potential


def n_radial(potential):
    return sum(c.size for c in potential.radcoefficients.values())


def changed(potential, index, step):
    other = potential.copy()
    x = other.parameters
    x[index] += step
    other.parameters = x
    return other


def test_smoothness_is_its_definition(alloy):
    """From the radial basis with its factors switched off; the second derivative by differences of the first."""
    largest = max(bond.rcut for bond in alloy.bonds.values())
    r = np.linspace(1e-10, largest - 1e-5, 100)
    h = 1e-6
    expected = np.zeros(3)
    for (a, b), bond in alloy.bonds.items():
        c = alloy.radcoefficients[min(a, b), max(a, b)]
        bare = replace(bond, dcut=0.0, r_in=0.0, delta_in=0.0)
        inside = r < bond.rcut
        value, first = radial_basis(bare, r[inside])
        second = (radial_basis(bare, r[inside] + h)[1] - radial_basis(bare, r[inside] - h)[1]) / (2 * h)
        for d, g in enumerate((value, first, second)):
            functions = np.abs(np.einsum("nlk,qk->qnl", c, g)).sum(axis=(1, 2))
            expected[d] += (r[inside] ** 2 * functions).sum() * (r[1] - r[0]) / bond.rcut**2
    values, _ = smoothness(alloy)
    np.testing.assert_allclose(values, expected / len(alloy.bonds), rtol=1e-7)


def test_smoothness_gradient(alloy):
    _, gradients = smoothness(alloy)
    assert gradients.shape == (3, n_radial(alloy))
    h = 1e-7
    for index in range(0, n_radial(alloy), 7):
        difference = (smoothness(changed(alloy, index, h))[0] - smoothness(changed(alloy, index, -h))[0]) / (2 * h)
        np.testing.assert_allclose(gradients[:, index], difference, rtol=1e-5, atol=1e-6)


def test_orthogonality(alloy):
    expected = 0.0
    for a, b in alloy.bonds:
        c = alloy.radcoefficients[min(a, b), max(a, b)]
        rows = [c[:, l] @ c[:, l].T - np.eye(c.shape[0]) for l in range(c.shape[1])]
        columns = [c[:, l].T @ c[:, l] - np.eye(c.shape[2]) for l in range(c.shape[1])]
        expected += np.mean(np.square(rows)) + np.mean(np.square(columns))
    value, gradient = orthogonality(alloy)
    assert value == pytest.approx(expected, rel=1e-12)
    h = 1e-6
    for index in range(0, n_radial(alloy), 5):
        difference = (orthogonality(changed(alloy, index, h))[0] - orthogonality(changed(alloy, index, -h))[0]) / (
            2 * h
        )
        assert gradient[index] == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_orthogonality_of_the_identity(alloy):
    """Rows of the identity are orthonormal; columns lack nradbase - nradmax ones on the diagonal."""
    expected = 0.0
    for (a, b), c in alloy.radcoefficients.items():
        nradmax, _, nradbase = c.shape
        c[:] = np.eye(nradmax, nradbase)[:, None, :]
        expected += (1 if a == b else 2) * (nradbase - nradmax) / nradbase**2
    assert orthogonality(alloy)[0] == pytest.approx(expected, rel=1e-12)
