"""Encoded sums: exact to what they promise, and independent of order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pacehpc import fixed_point


def test_values_come_back():
    rng = np.random.default_rng(3)
    values = rng.choice([-1, 1], 2000) * rng.uniform(1, 2, 2000) * 2.0 ** rng.integers(-28, 69, size=2000)
    np.testing.assert_array_equal(fixed_point.decode(fixed_point.encode(values)), values)
    small = rng.normal(size=100) * 2.0**-60
    np.testing.assert_allclose(fixed_point.decode(fixed_point.encode(small)), small, atol=2.0**-80)


def test_sums_are_exact_and_do_not_depend_on_order():
    rng = np.random.default_rng(4)
    for scale in (40, 5, -20):
        values = rng.normal(size=fixed_point.MAX_TERMS) * 2.0 ** rng.integers(scale - 20, scale, fixed_point.MAX_TERMS)
        values[:2] = 1.5 * 2.0**scale, -1.5 * 2.0**scale  # large ones that cancel
        encoded = fixed_point.encode(values)
        total = encoded.sum(axis=1)
        np.testing.assert_array_equal(encoded[:, rng.permutation(len(values))].sum(axis=1), total)
        exact = float(sum(map(Fraction, values.tolist())))
        assert fixed_point.decode(total) == pytest.approx(exact, rel=1e-15, abs=2.0**-68)  # half a unit for each term


def test_the_largest_sums_do_not_overflow():
    values = np.full(fixed_point.MAX_TERMS, np.nextafter(fixed_point.LIMIT, 0))
    total = fixed_point.encode(values).sum(axis=1)
    assert fixed_point.decode(total) == pytest.approx(fixed_point.LIMIT * fixed_point.MAX_TERMS, rel=1e-15)


def test_what_does_not_fit_is_known():
    values = np.array([0.0, -1e20, 1e22, np.nan, np.inf, -np.inf])
    limbs, too_large = fixed_point.encode_checked(values)
    assert too_large and (limbs[:, 2:] == 0).all() and not fixed_point.encode_checked(values[:2])[1]
    np.testing.assert_array_equal(limbs[:, :2], fixed_point.encode(values[:2]))
    np.testing.assert_array_equal(fixed_point.decode(fixed_point.encode(values))[2:], 0)
