from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from pacehpc.errors import PacehpcError
from pacehpc.fit import optimizers
from pacehpc.fit.optimizers import InverseHessian, check_memory, minimize


def rosenbrock(x):
    value = float(scipy.optimize.rosen(x))
    return value, scipy.optimize.rosen_der(x), {"loss": value}


X0 = np.array([1.3, 0.7, 0.8, 1.9, 1.2])


def test_bfgs_takes_the_iterates_of_scipy():
    ours, theirs = [], [X0]
    found = minimize(rosenbrock, X0, "BFGS", 40, on_iteration=lambda x, m, k, n: ours.append(x.copy()))
    expected = scipy.optimize.minimize(
        scipy.optimize.rosen,
        X0,
        jac=scipy.optimize.rosen_der,
        method="BFGS",
        options={"maxiter": 40},
        callback=theirs.append,
    )
    assert len(ours) == len(theirs) == found.n_iterations + 1
    # round-off grows along the path: strict at the start, and the same end
    np.testing.assert_allclose(ours[:12], theirs[:12], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-6)
    assert found.n_evaluations == expected.nfev


def test_bfgs_stops_where_scipy_stops():
    found = minimize(rosenbrock, X0, "BFGS", 1000, {"gtol": 1e-6})
    expected = scipy.optimize.minimize(
        scipy.optimize.rosen, X0, jac=scipy.optimize.rosen_der, method="BFGS", options={"gtol": 1e-6}
    )
    assert found.n_iterations == expected.nit
    assert "gtol" in found.message and not found.stopped


def test_scipy_line_search_is_there():
    """The private import exists in the installed scipy: without it iterates differ from scipy's."""
    assert optimizers._line_search_wolfe12 is not None


def test_bfgs_without_the_private_line_search(monkeypatch):
    monkeypatch.setattr(optimizers, "_line_search_wolfe12", None)
    assert minimize(rosenbrock, X0, "BFGS", 200).loss < 1e-10


@pytest.mark.parametrize(
    "method",
    [
        "BFGS",
        "scipy-BFGS",
        "L-BFGS-B",
        "CG",
        "Newton-CG",
        "SLSQP",
        "COBYLA",
        "Powell",
        "Nelder-Mead",
        "COBYQA",
        "trust-constr",
    ],
)
def test_methods_by_name_go_down_and_stop_when_told(method):
    seen = []

    def on_iteration(x, metrics, iteration, evaluations):
        assert metrics["loss"] == pytest.approx(float(scipy.optimize.rosen(x)), rel=1e-14)
        seen.append(metrics["loss"])
        return iteration == 3

    found = minimize(rosenbrock, X0, method, 50, on_iteration=on_iteration)
    assert found.stopped and len(seen) == 4 and found.n_iterations == 3
    assert found.loss == seen[-1]
    whole = minimize(rosenbrock, X0, method, 50)
    assert whole.loss < seen[0] and whole.loss == whole.metrics["loss"]


def test_accepted_points_are_not_evaluated_again():
    calls = []

    def counted(x):
        calls.append(x.copy())
        return rosenbrock(x)

    found = minimize(counted, X0, "BFGS", 30, on_iteration=lambda x, m, k, n: False)
    assert len(calls) == found.n_evaluations == len({c.tobytes() for c in calls})


def test_maxiter_zero_evaluates_once():
    found = minimize(rosenbrock, X0, "BFGS", 0)
    assert found.n_iterations == 0 and found.n_evaluations == 1
    np.testing.assert_array_equal(found.x, X0)


def test_a_start_that_is_not_finite_is_an_error():
    with pytest.raises(PacehpcError, match="loss at the start is nan"):
        minimize(lambda x: (np.nan, x, {"loss": np.nan}), X0)


def test_memory_is_checked_before_allocation():
    with pytest.raises(PacehpcError, match="L-BFGS-B"):
        check_memory("BFGS", 112_745, 10**6, total=128 * 2**30)
    check_memory("BFGS", 112_745, 500, total=4 * 2**30)
    check_memory("L-BFGS-B", 10**9, 100, total=2**30)
    with pytest.raises(PacehpcError):
        check_memory("scipy-BFGS", 10_000, 100, total=2 * 2**30)
    with pytest.raises(PacehpcError, match="GiB"):
        minimize(rosenbrock, np.zeros(10**6), "BFGS", 10**6)


def test_the_inverse_hessian_is_the_same_as_vectors_and_as_a_matrix():
    """Directions agree with those of the explicit matrix, across both ways to keep it and what lies between."""
    rng = np.random.default_rng(2)
    n = 300
    a = rng.normal(size=(n, n))
    hessian = np.eye(n) + a @ a.T / n
    inverse, explicit = InverseHessian(n), np.eye(n)
    g = rng.normal(size=n)
    p = -g
    for k in range(150):
        s = rng.normal(size=n)
        y = hessian @ s
        rho, g = 1.0 / (y @ s), g + y
        left = np.eye(n) - rho * np.outer(s, y)
        explicit = left @ explicit @ left.T + rho * np.outer(s, s)
        p = inverse.update(s, y, g, p, rho)
        np.testing.assert_allclose(p, -explicit @ g, rtol=1e-9, atol=1e-9 * np.abs(p).max())
        assert (inverse.entries is not None) == (k >= 75)
    assert inverse._count == 150 - 75 - optimizers.TERMS  # one block has been added to the matrix


def test_the_inverse_hessian_update_equals_the_textbook_formula():
    """On a quadratic form BFGS ends after about n steps, if H stays the right symmetric matrix."""
    rng = np.random.default_rng(1)
    n = 30
    a = rng.normal(size=(n, n))
    hessian = a @ a.T + n * np.eye(n)
    b = rng.normal(size=n)

    def quadratic(x):
        value = float(0.5 * x @ hessian @ x - b @ x)
        return value, hessian @ x - b, {"loss": value}

    found = minimize(quadratic, np.zeros(n), "BFGS", 200, {"gtol": 1e-10})
    np.testing.assert_allclose(found.x, np.linalg.solve(hessian, b), atol=1e-10)
    assert found.n_iterations < 60
