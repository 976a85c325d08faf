"""What tests of the cuda backend share."""

from __future__ import annotations

import numpy as np

from pacehpc.backends.interface import LossWeights

LOSS = LossWeights(kappa=0.3, stress=0.1)


def with_random_targets(s, seed=1):
    rng = np.random.default_rng(seed)
    n = s.n_structures
    s.energy, s.forces = rng.normal(size=n), rng.normal(size=(s.n_atoms, 3))
    s.w_energy, s.w_forces = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(s.n_atoms))
    s.stress = np.where((s.volumes > 0)[:, None], 0.01 * rng.normal(size=(n, 6)), np.nan)
    s.low = rng.random(n) < 0.5
    return s


def agree(sums, expected):
    scale = np.abs(expected.gradient).max()
    np.testing.assert_allclose(sums.gradient, expected.gradient, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(sums.terms, expected.terms, rtol=1e-9)
    np.testing.assert_allclose(sums.maxima, expected.maxima, rtol=1e-9)


def same(a, b):
    np.testing.assert_array_equal(a.gradient, b.gradient)
    np.testing.assert_array_equal(a.encoded_terms, b.encoded_terms)
    np.testing.assert_array_equal(a.maxima, b.maxima)
