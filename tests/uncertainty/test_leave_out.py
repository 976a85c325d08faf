"""Leaving out through the hat matrix, and the calibration, on linear models that are fitted for real."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import cholesky, solve_triangular

from pacehpc.uncertainty.calibration import LEAST, LEVELS, LeftOut, calibrate, conformal, group_names
from pacehpc.uncertainty.leave_out import leave_out

N, R = 12, np.linspace(0.1, 2.0, 12)


class Model:
    """Structures with some linear values each, fitted with weights and a penalty Σ R θ²."""

    def __init__(self, n_structures, noise=0.3, seed=1, factor=1.0):
        rng = np.random.default_rng(seed)
        self.truth = rng.normal(size=N)
        self.blocks = [rng.normal(size=(rng.integers(1, 6), N)) for _ in range(n_structures)]
        self.weights = [factor * rng.uniform(0.5, 1.5, size=len(block)) for block in self.blocks]
        self.references = [
            block @ self.truth + noise / np.sqrt(w) * np.sqrt(factor) * rng.normal(size=len(block))
            for block, w in zip(self.blocks, self.weights, strict=True)
        ]

    def fit(self, left_out=None):
        """(parameters, M)."""
        matrix, right = np.diag(R), np.zeros(N)
        for k, (block, w, reference) in enumerate(zip(self.blocks, self.weights, self.references, strict=True)):
            if k != left_out:
                matrix = matrix + block.T @ (w[:, None] * block)
                right = right + block.T @ (w * reference)
        return np.linalg.solve(matrix, right), matrix

    def left_out(self):
        """Errors and variances of every structure, of the whole fit's matrix."""
        theta, matrix = self.fit()
        factor = cholesky(matrix, lower=True)
        found = []
        for block, w, reference in zip(self.blocks, self.weights, self.references, strict=True):
            white = solve_triangular(factor, block.T, lower=True)
            errors = block @ theta - reference
            found.append(leave_out(white, white * np.sqrt(w), white @ (w * errors), errors))
        return found


def test_errors_and_variances_are_those_of_refits():
    model = Model(9)
    for k, (errors, variances) in enumerate(model.left_out()):
        theta, matrix = model.fit(left_out=k)
        block = model.blocks[k]
        np.testing.assert_allclose(errors, block @ theta - model.references[k], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(variances, np.diag(block @ np.linalg.solve(matrix, block.T)), rtol=1e-8)


def test_a_structure_without_rows_keeps_its_errors():
    values = np.random.default_rng(1).normal(size=(N, 3))
    errors, variances = leave_out(values, np.zeros((N, 0)), np.zeros(N), np.array([1.0, np.nan, 2.0]))
    np.testing.assert_array_equal(errors, [1.0, np.nan, 2.0])
    np.testing.assert_allclose(variances, (values**2).sum(axis=0))


@pytest.mark.parametrize("factor", [1.0, 1e4])
def test_intervals_hold_what_they_promise_on_linear_data(factor):
    """Errors of a linear model and normal noise, whatever the scale of the weights; fresh values of the same kind."""
    model = Model(150, factor=factor)
    theta, matrix = model.fit()
    errors, variances = (np.concatenate(parts) for parts in zip(*model.left_out(), strict=True))
    owners = np.repeat(np.arange(150), [len(block) for block in model.blocks])
    scale = calibrate(LeftOut(errors, np.sqrt(variances), owners), np.full(150, "all"), ("all",))
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(4000, N))
    s = np.sqrt(np.einsum("rn,rn->r", rows, np.linalg.solve(matrix, rows.T).T))
    sigma = scale.sigma(s)
    references = rows @ model.truth + 0.3 / np.sqrt(rng.uniform(0.5, 1.5, size=4000)) * rng.normal(size=4000)
    scores = np.abs(rows @ theta - references) / sigma
    assert np.mean(scores < 1.0) == pytest.approx(0.68, abs=0.06)
    for level, quantile in zip(LEVELS, scale.quantiles[1], strict=True):
        assert np.mean(scores < quantile) == pytest.approx(level, abs=0.05)
    np.testing.assert_array_equal(scale.quantiles[0], scale.quantiles[1])


def test_small_groups_and_zeros_by_symmetry():
    rng = np.random.default_rng(3)
    labels = np.array(["many"] * 20 + ["few"] * (LEAST - 1))
    owners = np.repeat(np.arange(len(labels)), 4)
    s = rng.uniform(0.5, 2.0, size=len(owners))
    errors = s * rng.normal(size=len(owners))
    groups = group_names(labels)
    assert groups == ("many",)
    scale = calibrate(LeftOut(errors, s, owners), labels, groups)
    zeros = np.concatenate([errors, np.full(40, 5.0)]), np.concatenate([s, np.full(40, 1e-9)])
    with_zeros = calibrate(LeftOut(*zeros, np.concatenate([owners, np.zeros(40, int)])), labels, groups)
    assert with_zeros.alpha == pytest.approx(scale.alpha) and with_zeros.rmse == pytest.approx(scale.rmse)
    assert scale.alpha == pytest.approx(1.0, abs=0.15)
    np.testing.assert_allclose(scale.sigma(np.zeros(3)), scale.floor)
    np.testing.assert_allclose(scale.floor, 0.05 * scale.rmse)


def test_quantiles_of_few_scores_are_cautious():
    assert conformal(np.arange(1.0, 20.0)).tolist() == [14.0, 18.0]  # of 20 values
    assert conformal(np.arange(1.0, 6.0)).tolist() == [5.0, 5.0]


def test_nothing_to_calibrate():
    empty = np.zeros(0)
    assert calibrate(LeftOut(empty, empty, np.zeros(0, int)), np.array(["a"]), ()) is None
    assert calibrate(LeftOut(np.ones(3), np.zeros(3), np.arange(3)), np.full(3, "a"), ()) is None
