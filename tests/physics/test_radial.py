from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.physics.cutoff import smooth_step
from pacehpc.physics.parameters import FAMILIES, Bond
from pacehpc.physics.radial import radial_basis
from pacehpc.potential import Potential

PLAIN = Bond(
    radbase="ChebExpCos", radparameters=(3.0,), rcut=5.0, dcut=0.0, r_in=0.0, delta_in=0.0,
    inner_cutoff_type="distance", core_repulsion=(0.0, 1.0), nradbase=6, nradmax=3, lmax=2,
)  # fmt: skip
BONDS = {
    "expcos": PLAIN,
    "expcos dcut": replace(PLAIN, dcut=0.7),
    "expcos inner": replace(PLAIN, dcut=0.1, r_in=1.9, delta_in=0.6),
    "expcos density": replace(PLAIN, inner_cutoff_type="density"),
    "expcos zbl": replace(PLAIN, r_in=1.9, delta_in=0.6, inner_cutoff_type="zbl"),
    "pow 2": replace(PLAIN, radbase="ChebPow", radparameters=(2.0,), dcut=0.5),
    "pow 1.5 inner": replace(PLAIN, radbase="ChebPow", radparameters=(1.5,), r_in=1.2, delta_in=0.4),
    "linear": replace(PLAIN, radbase="ChebLinear", radparameters=(1.0,)),
    "bessel": replace(PLAIN, radbase="SBessel"),
    "bessel inner": replace(PLAIN, radbase="SBessel", r_in=1.2, delta_in=0.4),
}


def test_all_families_are_here():
    assert {bond.radbase for bond in BONDS.values()} == set(FAMILIES)


@pytest.fixture(params=BONDS.values(), ids=BONDS)
def bond(request):
    return request.param


def test_golden(golden, golden_name):
    potential = Potential.load(golden / "potentials" / f"{golden_name}.yaml")
    reference = np.load(golden / "potentials" / f"{golden_name}.radial.npz")
    checked = 0
    for (a, b), bond in potential.bonds.items():
        g, _ = radial_basis(bond, reference["r"])
        np.testing.assert_allclose(g, reference[f"g_{a}_{b}"][:, : bond.nradbase], rtol=1e-12, atol=1e-14)
        checked += 1
    assert checked == len(potential.elements) ** 2


def test_derivative(bond):
    r = np.linspace(0.301, 4.97, 83)
    h = 1e-6
    _, slopes = radial_basis(bond, r)
    difference = (radial_basis(bond, r + h)[0] - radial_basis(bond, r - h)[0]) / (2 * h)
    assert np.abs(slopes).max() > 0.1
    np.testing.assert_allclose(slopes, difference, rtol=1e-7, atol=2e-8)


def test_ends(bond):
    """Finite at the smallest distances, zero from rcut on, no division by widths of zero."""
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        g, slopes = radial_basis(bond, np.array([1e-12, 1e-3, np.nextafter(bond.rcut, 0), bond.rcut, 7.0]))
    assert np.isfinite(g).all() and np.isfinite(slopes).all()
    assert np.all(g[3:] == 0) and np.all(slopes[3:] == 0)
    if bond.radbase != "ChebLinear":  # that family jumps at rcut
        assert np.abs(g[2]).max() < 1e-12


def test_inner_cutoff():
    r = np.linspace(0.9, 2.2, 40)
    bare, _ = radial_basis(PLAIN, r)
    factor = 1 - smooth_step(r, 1.9, 0.6)[0]
    distance, _ = radial_basis(replace(PLAIN, r_in=1.9, delta_in=0.6), r)
    np.testing.assert_allclose(distance, bare * factor[:, None], atol=1e-15)
    density, _ = radial_basis(replace(PLAIN, r_in=1.9, delta_in=0.6, inner_cutoff_type="density"), r)
    np.testing.assert_array_equal(density, np.where(r[:, None] > 1.9 - 0.6, bare, 0))
    zbl, _ = radial_basis(replace(PLAIN, r_in=1.9, delta_in=0.6, inner_cutoff_type="zbl"), r)
    np.testing.assert_array_equal(zbl, bare)
    jump, _ = radial_basis(replace(PLAIN, r_in=1.5, delta_in=0.0), r)
    np.testing.assert_array_equal(jump, np.where(r[:, None] > 1.5, bare, 0))


def test_joins_are_continuous():
    """Value and slope on both sides of every edge where a factor sets in."""
    edges = {
        "expcos dcut": (4.3, 5.0),
        "expcos inner": (1.3, 1.9, 4.9, 5.0),
        "pow 1.5 inner": (0.8, 1.2),
        "pow 2": (5.0,),
        "bessel inner": (0.8, 1.2, 5.0),
    }
    h = 1e-9
    for name, places in edges.items():
        for edge in places:
            g, slopes = radial_basis(BONDS[name], np.array([edge - h, edge + h]))
            assert np.abs(g[1] - g[0]).max() < 1e-7, (name, edge)
            assert np.abs(slopes[1] - slopes[0]).max() < 1e-5, (name, edge)


def test_bessel_functions_are_orthonormal():
    nodes, weights = np.polynomial.legendre.leggauss(200)
    r = 2.5 * (nodes + 1)
    g, _ = radial_basis(BONDS["bessel"], r)
    overlap = np.einsum("q,qk,qm->km", 2.5 * weights * r**2, g, g)
    np.testing.assert_allclose(overlap, np.eye(6), atol=1e-12)


def test_unknown_names():
    r = np.array([1.0])
    with pytest.raises(PacehpcError, match="ChebPowers"):
        radial_basis(replace(PLAIN, radbase="ChebPowers"), r)
    with pytest.raises(PacehpcError, match="inner_cutoff_type 'inside'"):
        radial_basis(replace(PLAIN, inner_cutoff_type="inside"), r)
