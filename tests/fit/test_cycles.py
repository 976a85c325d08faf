from __future__ import annotations

import json

import numpy as np

from pacehpc import Objective, Potential, load_dataset
from pacehpc.fit.cycles import disturb
from pacehpc.fit.optimizers import minimize
from pacehpc.yamlio import loads_yaml

X = np.array([2.0, -0.5, 0.0, 1e-5])
FUNCTIONS = np.array([False, False, True, True])


def rng():
    return np.random.default_rng(5)


def test_each_kind_of_noise():
    noise = rng().normal(size=4)
    np.testing.assert_allclose(disturb(X, FUNCTIONS, rng(), relative=0.1), X + noise * 0.1 * [2.0, 0.5, 0.01, 0.01])
    np.testing.assert_allclose(disturb(X, FUNCTIONS, rng(), absolute=0.1), X + 0.1 * noise)
    random = disturb(X, FUNCTIONS, rng(), randomize=0.3)
    np.testing.assert_array_equal(random[:2], X[:2])
    np.testing.assert_allclose(random[2:], 0.3 * noise[:2])


def test_without_noise_nothing_changes_and_the_input_is_kept():
    x = X.copy()
    result = disturb(x, FUNCTIONS, rng(), 0.1, 0.1, 0.1)
    np.testing.assert_array_equal(x, X)
    assert not np.array_equal(result, X)
    np.testing.assert_array_equal(disturb(X, FUNCTIONS, rng()), X)


def test_the_minimisation_after_noise_takes_pacemakers_path(tmp_path, golden, shared):
    """From a loss of 314 down a steep slope, where every choice of the line search shows."""
    known = json.loads((golden / "fit" / "trajectory_cu_disturbed.json").read_text())
    (tmp_path / "start.yaml").write_text(known["start.yaml"])
    data = load_dataset(str(shared(f"data/{known['data']}")), elements=("Cu",))
    loss = loads_yaml(known["input.yaml"], "input")["fit"]["loss"]
    objective = Objective(Potential.load(tmp_path / "start.yaml"), data, loss, backend="cpu")
    losses = []
    minimize(objective.evaluate, objective.x, "BFGS", 10, None, lambda x, metrics, *_: losses.append(metrics["loss"]))
    np.testing.assert_allclose(losses, known["loss"][:11], rtol=1e-4)
