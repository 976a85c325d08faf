from __future__ import annotations

import numpy as np
import pytest
from scipy.special import sph_harm_y

from pacehpc.physics.harmonics import spherical_harmonics

LMAX = 12


@pytest.fixture(scope="module")
def vectors():
    poles = [[0, 0, 2.0], [0, 0, -0.5], [1e-9, 0, 1.0]]
    return np.concatenate([poles, np.random.default_rng(3).normal(size=(30, 3))])


def test_against_scipy(vectors):
    y, _ = spherical_harmonics(LMAX, vectors)
    x, yy, z = vectors.T
    theta, phi = np.arctan2(np.hypot(x, yy), z), np.arctan2(yy, x)
    for l in range(LMAX + 1):
        for m in range(-l, l + 1):
            expected = np.sqrt(4 * np.pi) * sph_harm_y(l, m, theta, phi)
            np.testing.assert_allclose(y[:, l * l + l + m], expected, atol=1e-13 * (2 * l + 1))


def test_first_ones(vectors):
    y, _ = spherical_harmonics(1, vectors)
    u = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    np.testing.assert_allclose(y[:, 0], 1)
    np.testing.assert_allclose(y[:, 2], np.sqrt(3) * u[:, 2], atol=1e-15)
    np.testing.assert_allclose(y[:, 3], -np.sqrt(1.5) * (u[:, 0] + 1j * u[:, 1]), atol=1e-15)


def test_gradients(vectors):
    h = 1e-6
    _, slopes = spherical_harmonics(LMAX, vectors)
    assert np.isfinite(slopes).all()
    for a, step in enumerate(h * np.eye(3)):
        plus, _ = spherical_harmonics(LMAX, vectors + step)
        minus, _ = spherical_harmonics(LMAX, vectors - step)
        np.testing.assert_allclose(slopes[:, a], (plus - minus) / (2 * h), atol=2e-6 * np.abs(slopes).max())


def test_no_change_along_the_vector(vectors):
    _, slopes = spherical_harmonics(LMAX, vectors)
    along = np.einsum("na,nac->nc", vectors, slopes)
    np.testing.assert_allclose(along, 0, atol=1e-12 * LMAX**2)


def test_addition_theorem_for_large_l(vectors):
    y, _ = spherical_harmonics(40, vectors)
    for l in (20, 40):
        sums = (np.abs(y[:, l * l : (l + 1) ** 2]) ** 2).sum(axis=1)
        np.testing.assert_allclose(sums, 2 * l + 1, rtol=1e-9)
