"""Encoded sums: exact to what they promise, and independent of order."""

from __future__ import annotations

import ctypes
import subprocess
from fractions import Fraction

import numpy as np
import pytest

from pacehpc import fixed_point
from pacehpc.backends.compile import FLAGS, architecture, compiler, kernel_folder, lanes


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


def test_the_kernels_encode_alike(tmp_path):
    source = tmp_path / "encode.cpp"
    source.write_text(
        f"""#define LANES {lanes()}
        #include "{kernel_folder() / "fixed_point.h"}"
        extern "C" int64_t encode(const double* x, int64_t n, int64_t* limbs) {{ return add_encoded(x, n, limbs, n); }}
        """
    )
    command = [compiler(), *FLAGS, f"-march={architecture()}", source, "-o", tmp_path / "encode.so"]
    subprocess.run(command, check=True, capture_output=True)
    library = ctypes.CDLL(str(tmp_path / "encode.so"))
    rng = np.random.default_rng(5)
    values = rng.normal(size=1003) * 10.0 ** rng.integers(-26, 20, 1003)
    halves = np.array([0.5, 1.5, 2.5, -0.5, -1.5]) * fixed_point.WEIGHTS[2]
    special = [0.0, -0.0, np.nextafter(fixed_point.LIMIT, 0), fixed_point.LIMIT, -1e300, np.inf, np.nan]
    values = np.concatenate((values, halves, special))
    limbs = np.zeros((3, len(values)), np.int64)
    wrong = [library.encode(ctypes.c_void_p(a.ctypes.data), ctypes.c_int64(a.size), ctypes.c_void_p(b.ctypes.data))
             for a, b in ((values, limbs), (values, limbs))]  # fmt: skip
    assert wrong == [4, 4]
    np.testing.assert_array_equal(limbs, 2 * fixed_point.encode(values))
