from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from pacehpc.fit import bfgs as module
from pacehpc.fit.bfgs import PRECISION_REACHED, InverseHessian, bfgs
from pacehpc.fit.optimizers import minimize


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
    assert inverse._count == 150 - 75 - module.TERMS  # one block has been added to the matrix


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


def quadratic_problem(n=40):
    rng = np.random.default_rng(5)
    scales = 10.0 ** np.linspace(0, 3, n)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    hessian = (q * scales) @ q.T
    return lambda x: (0.5 * float(x @ hessian @ x), hessian @ x), rng.normal(size=n), hessian


def test_a_renewed_inverse_hessian_takes_the_place_of_the_old_one():
    """With the exact inverse after three iterations, the next search asks for the minimum at once."""
    f, x0, hessian = quadratic_problem()
    asked, seen = [], []

    def renew(iterate, failed):
        assert not failed
        loss, gradient = f(iterate.x)
        assert iterate.loss == loss and (iterate.gradient == gradient).all()
        if iterate.number == 3:
            asked.clear()
            return InverseHessian(len(x0), lambda g: np.linalg.solve(hessian, g))
        return None

    def counted(x):
        asked.append(x.copy())
        return f(x)

    message = bfgs(counted, x0, lambda x: seen.append(x.copy()), 100, renew=renew)
    assert "gtol" in message and len(seen) == 4
    np.testing.assert_allclose(asked[0], 0.0, atol=1e-12)


def test_updates_go_on_top_of_a_given_inverse_hessian():
    f, x0, hessian = quadratic_problem()
    rough = np.linalg.inv(hessian + 5.0 * np.eye(len(x0)))
    inverse, explicit, x = InverseHessian(len(x0), lambda g: rough @ g), rough, x0
    g = f(x)[1]
    p = -inverse.product(g)
    for _ in range(20):
        s = 0.7 * p
        y = f(x + s)[1] - g
        x, g = x + s, g + y
        rho = 1.0 / (y @ s)
        left = np.eye(len(x0)) - rho * np.outer(s, y)
        explicit = left @ explicit @ left.T + rho * np.outer(s, s)
        p = inverse.update(s, y, g, p, rho)
        np.testing.assert_allclose(p, -explicit @ g, rtol=1e-8, atol=1e-8 * np.abs(p).max())


@pytest.mark.parametrize("cures", [0, 2])
def test_a_failed_search_asks_for_another_inverse_hessian(cures):
    f, x0, _ = quadratic_problem()
    failures = []

    def renew(iterate, failed):
        if iterate.number == 0 and not failed:
            return InverseHessian(len(x0), lambda g: -g)  # uphill: the search fails
        if not failed or len(failures) >= cures:
            return None
        failures.append(iterate.number)
        return InverseHessian(len(x0), (lambda g: g) if len(failures) == cures else lambda g: -g)

    steps = []
    message = bfgs(f, x0, steps.append, 300, renew=renew)
    if cures:
        assert failures == [0, 0] and "gtol" in message
    else:
        assert message == PRECISION_REACHED and not steps
