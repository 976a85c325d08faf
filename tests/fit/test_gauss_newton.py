"""GN-BFGS on sums of squares whose Jacobian is known."""

from __future__ import annotations

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.fit.bfgs import PRECISION_REACHED, Iterate
from pacehpc.fit.gauss_newton import FAILURES, Method, NormalMatrix, Renewals, RowMatrix
from pacehpc.fit.optimizers import minimize
from pacehpc.gram import gram
from pacehpc.parallel import Ranks
from pacehpc.spread_columns import SpreadColumns


class Rows:
    """A Jacobian on this rank alone."""

    def __init__(self, jacobian):
        self.columns = SpreadColumns(jacobian, Ranks())
        self.squares = self.columns.squares()
        self.times, self.transposed_times = self.columns.times, self.columns.transposed_times
        self.weighted_gram = self.columns.weighted_gram


class Squares:
    """Residuals A h(x) - b, h = x + 0.3 sin x, with columns of A from 1 to 1e-3: curvatures over six powers of ten."""

    def __init__(self, n=60, m=150):
        rng = np.random.default_rng(7)
        self.a = rng.normal(size=(m, n)) * 10.0 ** np.linspace(0, -3, n) / np.sqrt(m)
        self.a[:, 1:] += 0.9 * self.a[:, :-1]  # neighbours nearly parallel
        self.b = self.a @ rng.normal(size=n) + 1e-4 * rng.normal(size=m)
        self.n = n

    def jacobian(self, x):
        return self.a * (1 + 0.3 * np.cos(x))

    def __call__(self, x):
        r = self.a @ (x + 0.3 * np.sin(x)) - self.b
        return float(r @ r), 2 * self.jacobian(x).T @ r, {"loss": float(r @ r)}


def renewals(problem, method=None, curvature=None):
    method = method or Method(start=10, renew=30)
    curvature = curvature or (lambda x, number: NormalMatrix(*gram(problem.jacobian(x).copy(), Ranks())))
    return Renewals(method, method.renew, curvature, np.arange(problem.n) < 10, 0.0, 0.0)


def evaluations_to(loss, method, **options):
    """Evaluations until the loss is reached."""
    problem, losses = Squares(), []

    def f(x):
        found = problem(x)
        losses.append(found[0])
        return found

    if method == "GN-BFGS":
        options["renewals"] = renewals(problem)
    minimize(f, np.zeros(problem.n), method, 2000, {"gtol": 0.0}, lambda x, m, k, n: m["loss"] <= loss, **options)
    return next((k for k, value in enumerate(losses) if value <= loss), np.inf)


def test_renewals_reach_the_minimum_of_bfgs_in_a_third_of_its_evaluations():
    problem = Squares()
    lowest = minimize(problem, np.zeros(problem.n), "BFGS", 5000, {"gtol": 1e-13}).loss
    goal = 1.001 * lowest
    assert 3 * evaluations_to(goal, "GN-BFGS") < evaluations_to(goal, "BFGS") < np.inf


@pytest.mark.parametrize("m", [25, 150])
def test_both_forms_give_the_damped_inverse(m):
    problem = Squares(m=m)
    rng = np.random.default_rng(1)
    x, g = rng.normal(size=problem.n), rng.normal(size=problem.n)
    jacobian, e = problem.jacobian(x), 10.0 ** rng.uniform(-6, -3, problem.n)
    expected = 0.5 * np.linalg.solve(jacobian.T @ jacobian + np.diag(e), g)
    for form in (NormalMatrix(*gram(jacobian.copy(), Ranks())), RowMatrix(Rows(jacobian))):
        np.testing.assert_allclose(form.squares, (jacobian**2).sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(form.damped(e)(g), expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


def test_the_parts_of_the_damping():
    """L1, L2 and μ D on function coefficients, 100 μ D on radial ones."""
    problem = Squares()
    seen = []

    class Seen(RowMatrix):
        def damped(self, e):
            seen.append(e)
            return super().damped(e)

    x = np.random.default_rng(0).normal(size=problem.n)
    x[20] = 0.0
    loss, g, _ = problem(x)
    squares = (problem.jacobian(x) ** 2).sum(axis=0)
    radial = np.arange(problem.n) < 10
    found = Renewals(Method(start=0), 30, lambda x, number: Seen(Rows(problem.jacobian(x))), radial, 1e-8, 1e-7)
    found.renew(lambda x: problem(x)[:2], Iterate(x, loss, g, 0), False)
    penalty = np.where(radial, 0.0, 1e-7 + 0.5e-8 / np.maximum(np.abs(x), 1e-5))
    assert penalty[20] == pytest.approx(5.001e-4)
    diagonal = np.maximum(squares + penalty, 1e-10 * (squares + penalty).max())
    np.testing.assert_allclose(seen[0], penalty + 1e-4 * np.where(radial, 100.0, 1.0) * diagonal, rtol=1e-12)


class Threshold:
    """A curvature whose steps lower the loss only where μ is at least `least`."""

    def __init__(self, least):
        self.least, self.squares = least, np.ones(3)
        self.probed = []

    def damped(self, e):
        self.probed.append(float(e[0]))
        sign = 1.0 if e[0] >= 0.99 * self.least else -1.0
        return lambda g: sign * g if sign > 0 else 1e3 * g

    @staticmethod
    def f(x):
        return float(x @ x), 2 * x


def found_after(least, times):
    """μ after each of so many renewals."""
    curvature = Threshold(least)
    found = Renewals(Method(start=0), 1, lambda x, number: curvature, np.zeros(3, bool), 0.0, 0.0)
    x, values = np.ones(3), []
    for number in range(times):
        found.renew(curvature.f, Iterate(x, *curvature.f(x), number), False)
        values.append(found.mu)
    return values


def test_the_first_damping_is_searched_and_later_ones_fall_by_one_power_of_ten():
    np.testing.assert_allclose(found_after(1e-7, 3), [1e-7, 1e-7, 1e-7])
    np.testing.assert_allclose(found_after(1e-3, 2), [1e-3, 1e-3])
    np.testing.assert_allclose(found_after(10.0, 1), [1e-2])  # the largest that is searched
    np.testing.assert_allclose(found_after(0.0, 1), [1e-10], rtol=1e-6)  # the smallest
    curvature = Threshold(1e-4)
    found = Renewals(Method(start=0), 1, lambda x, number: curvature, np.zeros(3, bool), 0.0, 0.0)
    x = np.ones(3)
    found.renew(curvature.f, Iterate(x, *curvature.f(x), 0), False)
    curvature.least = 0.0  # later renewals: once each
    found.renew(curvature.f, Iterate(x, *curvature.f(x), 1), False)
    assert found.mu == pytest.approx(1e-5)


def test_a_failed_line_search_raises_the_damping_until_the_fit_ends():
    curvature = Threshold(1e-6)
    found = Renewals(Method(start=5), 100, lambda x, number: curvature, np.zeros(3, bool), 0.0, 0.0)
    x = np.ones(3)
    at = Iterate(x, *curvature.f(x), 2)
    assert found.renew(curvature.f, at, False) is None  # not yet
    seen = []
    for _ in range(FAILURES):
        assert found.renew(curvature.f, at, True) is not None
        seen.append(found.mu)
    np.testing.assert_allclose(seen, [1e-6, 1e-5, 1e-4, 1e-3])  # the first is searched
    assert found.renew(curvature.f, at, True) is None
    later = Iterate(x, *curvature.f(x), 3)  # a step in between: counted again
    assert found.renew(curvature.f, later, True) is not None


def test_a_fit_ends_after_failures_with_its_best_point():
    """A loss that is too rough for any step."""
    problem = Squares()
    rough = np.random.default_rng(1)

    def f(x):
        loss, g, metrics = problem(x)
        if np.any(x):
            loss += 10 + rough.random()
        return loss, g, metrics

    found = minimize(f, np.zeros(problem.n), "GN-BFGS", 500, {}, renewals=renewals(problem))
    assert found.message == PRECISION_REACHED and not found.x.any() and found.n_iterations == 0


def test_derivatives_that_are_not_finite_are_an_error():
    problem = Squares()
    method = Method(start=0)
    bad = renewals(problem, method, lambda x, number: RowMatrix(Rows(np.full((5, problem.n), np.nan))))
    with pytest.raises(PacehpcError, match="not finite"):
        minimize(problem, np.zeros(problem.n), "GN-BFGS", 5, {}, renewals=bad)


def test_the_interval_and_the_start_count_iterations():
    problem, at = Squares(), []
    found = renewals(problem, Method(start=7, renew=20))
    original = found._curvature

    def curvature(x, number):
        at.append((number, steps[-1]))
        return original(x, number)

    found._curvature = curvature
    steps = []
    minimize(problem, np.zeros(problem.n), "GN-BFGS", 50, {"gtol": 0.0}, lambda x, m, k, n: steps.append(k), found)
    assert at == [(0, 7), (1, 27), (2, 47)]
