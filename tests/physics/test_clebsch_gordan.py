"""Clebsch-Gordan coefficients against their defining relations and against integrals of spherical harmonics."""

import numpy as np
import pytest
from scipy.special import roots_legendre, sph_harm_y

from pacehpc.physics.clebsch_gordan import clebsch_gordan, coupling_matrix


def test_known_values():
    assert clebsch_gordan(1, 1, 1, -1, 0, 0) == pytest.approx(np.sqrt(1 / 3), abs=1e-16)
    assert clebsch_gordan(1, 0, 1, 0, 0, 0) == pytest.approx(-np.sqrt(1 / 3), abs=1e-16)
    assert clebsch_gordan(1, 0, 1, 0, 2, 0) == pytest.approx(np.sqrt(2 / 3), abs=1e-16)
    assert clebsch_gordan(2, 2, 1, -1, 1, 1) == pytest.approx(np.sqrt(3 / 5), abs=1e-16)
    assert clebsch_gordan(1, 1, 1, 0, 1, 1) == pytest.approx(np.sqrt(1 / 2), abs=1e-16)
    assert clebsch_gordan(1, 1, 1, 1, 1, 1) == 0
    assert clebsch_gordan(1, 0, 1, 0, 3, 0) == 0


@pytest.mark.parametrize(("l1", "l2"), [(0, 3), (2, 2), (3, 5), (10, 10)])
def test_unitary(l1, l2):
    matrices = [coupling_matrix(l1, l2, L) for L in range(abs(l1 - l2), l1 + l2 + 1)]
    columns = np.concatenate([matrix.reshape(-1, matrix.shape[2]) for matrix in matrices], axis=1)
    assert np.abs(columns.T @ columns - np.eye(len(columns))).max() < 1e-14


@pytest.mark.parametrize(("l1", "l2", "L"), [(1, 2, 2), (4, 3, 5), (10, 9, 11)])
def test_total_lowering_operator(l1, l2, L):
    """(J1- + J2-) applied to |L M> gives sqrt(L(L+1) - M(M-1)) |L M-1>; the phase: <l1 l1, l2 L-l1 | L L> > 0."""

    def lowering(l):
        m = np.arange(-l + 1, l + 1)
        return np.diag(np.sqrt(l * (l + 1) - m * (m - 1)), 1)  # from m to m - 1

    c = coupling_matrix(l1, l2, L)
    lowered = np.einsum("ax,xbM->abM", lowering(l1), c) + np.einsum("bx,axM->abM", lowering(l2), c)
    expected = np.einsum("abM,MK->abK", c, lowering(L))
    assert np.abs(lowered - expected).max() < 1e-12
    assert c[2 * l1, l2 + L - l1, 2 * L] > 0


def test_integrals_of_three_harmonics():
    """∫ Y_l1m1 Y_l2m2 conj(Y_LM) = sqrt((2 l1 + 1)(2 l2 + 1) / (4π (2 L + 1))) <l1 0 l2 0|L 0> <l1 m1 l2 m2|L M>."""
    x, w = roots_legendre(12)
    phi = 2 * np.pi * np.arange(16) / 16
    theta, phi = np.meshgrid(np.arccos(x), phi, indexing="ij")
    weights = w[:, None] * 2 * np.pi / 16
    for l1, m1, l2, m2, L in [(1, 1, 2, -1, 3), (3, -2, 2, 2, 3), (3, 1, 4, -3, 5), (2, -1, 2, -1, 2)]:
        product = sph_harm_y(l1, m1, theta, phi) * sph_harm_y(l2, m2, theta, phi)
        integral = (weights * product * sph_harm_y(L, m1 + m2, theta, phi).conj()).sum()
        factor = np.sqrt((2 * l1 + 1) * (2 * l2 + 1) / (4 * np.pi * (2 * L + 1)))
        expected = factor * clebsch_gordan(l1, 0, l2, 0, L, 0) * clebsch_gordan(l1, m1, l2, m2, L, m1 + m2)
        assert integral == pytest.approx(expected, abs=1e-13)
