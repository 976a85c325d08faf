from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from pacehpc.fit.line_search import TRIALS, strong_wolfe


def functions(rng, number):
    """(f, f') along a line, of kinds that need every way to interpolate and to extrapolate."""
    for k in range(number):
        a, w, kind = rng.normal(size=6), rng.uniform(0.1, 8.0, size=6) * 10 ** rng.uniform(-1, 1), k % 4
        q, scale = 10 ** rng.uniform(-4, 1), 10 ** rng.uniform(-2, 2)
        d = abs(a[0]) + 1e-3

        def f(t, a=a, w=w, q=q, d=d, kind=kind, scale=scale):
            t = t / scale
            if kind == 0:
                value, slope = (a * np.sin(w * t)).sum() + q * t * t, (a * w * np.cos(w * t)).sum() + 2 * q * t
            elif kind == 1:
                value, slope = d * t**4 + a[1] * t**3 + a[2] * t * t - d * t, 4 * d * t**3 + 3 * a[1] * t**2 - d
                slope += 2 * a[2] * t
            elif kind == 2:
                value, slope = -t / (t * t + d), (t * t - d) / (t * t + d) ** 2
            else:
                e = np.exp(-d * abs(t)) * np.sign(t + 1e-300)
                value, slope = -e * (1 + a[1] * np.sin(w[0] * t)), abs(e) * d * (1 + a[1] * np.sin(w[0] * t))
                slope -= e * a[1] * w[0] * np.cos(w[0] * t)
            return float(value), float(slope / scale)

        yield f


@pytest.mark.parametrize(("c1", "c2"), [(1e-4, 0.9), (1e-3, 0.05)])
@pytest.mark.filterwarnings("ignore")
def test_asks_for_the_same_points_as_scipys_bfgs(c1, c2):
    """Bit for bit, as long as scipy's first search succeeds; its second one is not ours."""
    rng, same, by_trials = np.random.default_rng(3), 0, {}
    for f in functions(rng, 600):
        theirs, ours, x = [], [], np.array([rng.normal()])
        loss, slope = f(x[0])
        if abs(slope) < 1e-6:  # steps that do not change x
            continue
        scipy.optimize.minimize(
            lambda y, f=f, t=theirs: (t.append(y[0]), f(y[0])[0])[1],
            x,
            jac=lambda y, f=f: np.array([f(y[0])[1]]),
            method="BFGS",
            options={"maxiter": 1, "c1": c1, "c2": c2, "gtol": 0.0},
        )

        def asked(y, f=f, ours=ours):
            ours.append(y[0])
            value, slope = f(y[0])
            return value, np.array([slope])

        g = np.array([slope])
        found = strong_wolfe(asked, x, -g, loss, g, loss + np.linalg.norm(g) / 2, c1, c2)
        if found is None:
            continue
        assert ours == theirs[1:]
        assert found.loss <= loss + c1 * found.length * (g @ -g)
        assert abs(found.gradient @ -g) <= c2 * abs(g @ g)
        assert x + found.length * -g == ours[-1]
        same += 1
        by_trials[len(ours)] = by_trials.get(len(ours), 0) + 1
    assert same > 500 and len(by_trials) >= 6  # searches of one trial to many


def test_gives_up_where_the_direction_rises_or_there_is_no_minimum():
    calls = []

    def line(x):
        calls.append(x)
        return float(-x[0]), np.array([-1.0])

    g = np.array([-1.0])
    assert strong_wolfe(line, np.zeros(1), g, 0.0, g, 1.0) is None and not calls  # uphill
    assert strong_wolfe(line, np.zeros(1), -g, 0.0, g, 1.0) is None  # falls for ever
    assert len(calls) == TRIALS


def test_a_loss_that_is_not_finite_halves_the_way_to_the_best_trial():
    def f(x):
        t = x[0]
        return (
            (float(-np.sqrt(1 - t) - t), np.array([0.5 / np.sqrt(1 - t) - 1.0])) if t < 1 else (np.inf, np.array([0.0]))
        )

    loss, g = f(np.zeros(1))
    found = strong_wolfe(f, np.zeros(1), -8 * g, loss, g, loss + 100.0, c2=0.1)  # the first trial is at 4
    assert found.loss < loss and abs(found.slope) <= 0.1 * abs(g @ (-8 * g))
