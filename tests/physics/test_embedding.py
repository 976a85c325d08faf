from __future__ import annotations

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.physics.embedding import embed
from pacehpc.physics.parameters import Embedding

EXPONENTS = (1.0, 0.5, 0.7, 2.0)


def single(npot, m, weight=1.0):
    return Embedding(npot=npot, fs_parameters=(weight, m), ndensity=1, rho_core_cut=1e5, drho_core_cut=250.0)


@pytest.fixture(params=["FinnisSinclairShiftedScaled", "FinnisSinclair"])
def npot(request):
    return request.param


@pytest.mark.parametrize("m", EXPONENTS)
def test_all_zero_densities_are_finite(npot, m):
    with np.errstate(all="raise"):
        value, first, second = embed(single(npot, m), np.zeros((3, 1)))
    assert np.all(value == 0)
    assert np.isfinite(first).all() and np.isfinite(second).all()


@pytest.mark.parametrize("m", EXPONENTS)
def test_finite_everywhere(npot, m):
    rho = np.concatenate([10.0 ** np.arange(-300.0, 7, 1), [9.9e-11, 1e-10, 1.1e-10, 1e-6, 3e-6, 4e-6]])
    for part in embed(single(npot, m), np.concatenate([rho, -rho])[:, None]):
        assert np.isfinite(part).all()


@pytest.mark.parametrize("m", EXPONENTS)
def test_odd(npot, m):
    rho = np.array([[1e-12], [1e-7], [2e-6], [0.3], [4.0]])
    plus, minus = embed(single(npot, m), rho), embed(single(npot, m), -rho)
    for sign, a, b in zip((-1, 1, -1), plus, minus, strict=True):
        np.testing.assert_array_equal(b, sign * a)


@pytest.mark.parametrize("m", EXPONENTS)
def test_derivatives(npot, m):
    # the interval where FinnisSinclair is regularised is 1e-6 wide
    for rho in (2e-7, 1.3e-6, 0.02, 0.4, -0.7, 3.0, 25.0):
        if npot == "FinnisSinclairShiftedScaled" and abs(rho) < 0.01:
            continue
        h = 1e-4 * abs(rho)
        parts = [embed(single(npot, m, 0.8), np.array([[rho + s * h]])) for s in (-2, -1, 1, 2)]
        _, first, second = embed(single(npot, m, 0.8), np.array([[rho]]))

        def slope(which, parts=parts, h=h):
            a, b, c, d = (float(np.ravel(part[which])[0]) for part in parts)
            return (a - 8 * b + 8 * c - d) / (12 * h)

        assert first[0, 0] == pytest.approx(slope(0), rel=1e-8)
        assert second[0, 0] == pytest.approx(slope(1), rel=1e-7, abs=1e-14 / h)


def test_shifted_scaled_formula():
    """m = 1/2: q = 2, so that X = e^-a / 4 and Y = e^-a / 2; slope 1 - X + Y at zero."""
    a = np.array([1e-12, 0.1, 1.0, 30.0])
    value, first, _ = embed(single("FinnisSinclairShiftedScaled", 0.5), a[:, None])
    np.testing.assert_allclose(value, np.sqrt(a + 0.25 * np.exp(-a)) - 0.5 * np.exp(-a), rtol=1e-12, atol=1e-15)
    assert first[0, 0] == pytest.approx(1.25)


def test_finnis_sinclair_formula():
    value, first, second = embed(single("FinnisSinclair", 0.5), np.array([[5e-11], [-5e-11], [4.0]]))
    np.testing.assert_allclose(value, [5e-8, -5e-8, 2.0], rtol=1e-14)
    np.testing.assert_allclose(first[:, 0], [1e3, 1e3, 0.25], rtol=1e-14)
    np.testing.assert_allclose(second[:, 0], [0, 0, -1 / 32], rtol=1e-14)


def test_several_densities():
    """Each density has its own weight and exponent; a linear one passes through."""
    e = Embedding(
        npot="FinnisSinclairShiftedScaled",
        fs_parameters=(1.0, 1.0, -0.5, 0.7, 0.2, 2.0),
        ndensity=3,
        rho_core_cut=1e5,
        drho_core_cut=250.0,
    )
    rho = np.random.default_rng(0).normal(size=(6, 3))
    value, first, second = embed(e, rho)
    parts = [embed(single(e.npot, m, w), rho[:, [p]]) for p, (w, m) in enumerate([(1, 1), (-0.5, 0.7), (0.2, 2.0)])]
    np.testing.assert_allclose(value, sum(part[0] for part in parts), rtol=1e-14)
    np.testing.assert_allclose(first, np.hstack([part[1] for part in parts]), rtol=1e-14)
    np.testing.assert_allclose(second, np.hstack([part[2] for part in parts]), rtol=1e-14)


def test_unknown_name():
    with pytest.raises(PacehpcError, match="Finnis'"):
        embed(single("Finnis", 1.0), np.zeros((1, 1)))
