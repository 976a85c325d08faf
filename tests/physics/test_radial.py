from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.physics.cutoff import smooth_step
from pacehpc.physics.radial import FAMILIES, orthogonality, radial_basis, smoothness
from pacehpc.potential import Bond, Potential

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
