from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from pacehpc.errors import PacehpcError
from pacehpc.fit.optimizers import check_memory, minimize


def rosenbrock(x):
    value = float(scipy.optimize.rosen(x))
    return value, scipy.optimize.rosen_der(x), {"loss": value}


X0 = np.array([1.3, 0.7, 0.8, 1.9, 1.2])


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
