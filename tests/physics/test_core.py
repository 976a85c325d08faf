from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pacehpc.physics.core import COULOMB, core_repulsion, core_switch, zbl_switch
from pacehpc.physics.parameters import Bond, Embedding

EXPONENTIAL = Bond(
    radbase="ChebExpCos", radparameters=(5.25,), rcut=5.0, dcut=0.4, r_in=1.6, delta_in=0.5,
    inner_cutoff_type="distance", core_repulsion=(100.0, 1.0), nradbase=4, nradmax=2, lmax=1,
)  # fmt: skip
ZBL = replace(EXPONENTIAL, inner_cutoff_type="zbl", core_repulsion=(1.0, 1.0))
NUMBERS = (13, 28)


@pytest.mark.parametrize(
    "bond",
    [EXPONENTIAL, replace(EXPONENTIAL, inner_cutoff_type="density"), ZBL, replace(ZBL, core_repulsion=(-2.0, 1.0))],
    ids=["distance", "density", "zbl", "zbl negative"],
)
def test_derivative(bond):
    r = np.linspace(0.3, 4.99, 70)
    h = 1e-6
    value, slope = core_repulsion(bond, NUMBERS, r)
    difference = (core_repulsion(bond, NUMBERS, r + h)[0] - core_repulsion(bond, NUMBERS, r - h)[0]) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-7, atol=1e-7 * np.abs(value[0]))


def test_exponential_values():
    r = np.array([0.5, 1.0, 7.5 / 5])
    bare = 100 * np.exp(-(r**2)) / r * 0.5 * (1 + np.cos(np.pi * r / 5))
    density, _ = core_repulsion(replace(EXPONENTIAL, inner_cutoff_type="density"), NUMBERS, r)
    np.testing.assert_allclose(density, bare, rtol=1e-14)
    distance, _ = core_repulsion(EXPONENTIAL, NUMBERS, np.array([0.5, 1.0, 1.6, 2.0]))
    np.testing.assert_allclose(distance[:2], bare[:2], rtol=1e-14)
    assert distance[2:].tolist() == [0, 0]
    negative, _ = core_repulsion(replace(EXPONENTIAL, core_repulsion=(-100.0, -1.0)), NUMBERS, r)
    np.testing.assert_allclose(negative, core_repulsion(EXPONENTIAL, NUMBERS, r)[0], rtol=1e-14)


def test_exponential_is_cut_at_fifty():
    bond = replace(EXPONENTIAL, inner_cutoff_type="density", core_repulsion=(1e20, 4.0))
    value, slope = core_repulsion(bond, NUMBERS, np.sqrt(np.array([49.9, 50.1]) / 4.0))
    assert value[0] > 0 > slope[0]
    assert value[1] == 0 == slope[1]


def test_no_inner_cutoff_means_no_repulsion():
    value, slope = core_repulsion(replace(EXPONENTIAL, r_in=0.0, delta_in=0.0), NUMBERS, np.array([0.1, 1.0]))
    assert not value.any() and not slope.any()


def test_zbl_is_coulomb_near_the_nuclei():
    r = np.array([1e-6])
    value, slope = core_repulsion(ZBL, NUMBERS, r)
    assert 2 * value[0] == pytest.approx(COULOMB * 13 * 28 / r[0], rel=1e-4)
    assert 2 * slope[0] == pytest.approx(-COULOMB * 13 * 28 / r[0] ** 2, rel=1e-4)


def test_zbl_ends_smoothly():
    """Value, slope and curvature go to zero at rcut, and join where the smoothing sets in."""
    h = 1e-4
    start = ZBL.rcut - ZBL.dcut
    near, slope = core_repulsion(ZBL, NUMBERS, np.array([start - h, start + h, ZBL.rcut - h, ZBL.rcut]))
    inner, _ = core_repulsion(ZBL, NUMBERS, np.array([start]))
    assert near[1] - near[0] == pytest.approx((slope[0] + slope[1]) * h, rel=1e-5)
    assert abs(near[2]) < 1e-6 * abs(inner[0]) and abs(slope[2]) < 1e-4 * abs(slope[0])
    assert near[3] == 0 == slope[3]
    r = np.array([start - 2 * h, start - h, start + h, start + 2 * h])
    _, slopes = core_repulsion(ZBL, NUMBERS, r)
    assert slopes[1] - slopes[0] == pytest.approx(slopes[3] - slopes[2], rel=2e-2)


def test_zbl_without_smoothing_range():
    with np.errstate(all="raise"):
        value, _ = core_repulsion(replace(ZBL, dcut=0.0), NUMBERS, np.array([1.0, np.nextafter(5.0, 0), 5.0]))
    assert value[0] > 1 and abs(value[1]) < 1e-10 and value[2] == 0


def test_core_switch():
    embedding = Embedding(
        npot="FinnisSinclair", fs_parameters=(1.0, 1.0), ndensity=1, rho_core_cut=5.0, drho_core_cut=4.0
    )
    value, slope = core_switch(embedding, np.array([0.0, 1.0, 3.0, 5.0, 9.0]))
    np.testing.assert_allclose(value, [1, 1, 0.5, 0, 0], atol=1e-15)
    assert slope[2] == pytest.approx(-15 / 32)


def test_zbl_switch():
    value, slope = zbl_switch(np.array([-0.1, 0.0, 0.25, 0.5, 0.7, np.inf]), np.full(6, 0.5))
    np.testing.assert_allclose(value, [0, 0, 0.5, 1, 1, 1], atol=1e-15)
    assert slope[2] == pytest.approx(15 / 4)
    jump, _ = zbl_switch(np.array([-1e-9, 0.0, 1e-9]), np.zeros(3))
    assert jump.tolist() == [0, 0, 1]
