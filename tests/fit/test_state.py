"""A state comes back from a checkpoint's text with the same bits."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

from pacehpc.fit.state import FitState, Minimum, Start, first_state, state_body
from pacehpc.potential import Potential


@pytest.fixture
def state(golden):
    rng = np.random.default_rng(3)
    rng.normal(size=17)
    x = rng.normal(size=5) * 10.0 ** rng.integers(-200, 200, size=5)
    best = Minimum(x, 1 / 3, {"loss": 1 / 3, "rmse_epa": np.pi}, 12, 15, "gradient below gtol", False)
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    start = Start(x / 7, iteration=3, evaluations=4, attempt=1)
    return FitState(rng, ladder_step=2, cycle=1, potential=potential, best=best, start=start, ended="asked to stop")


def test_everything_comes_back(state):
    text = json.dumps({**state_body(state), "stage": "fit"})
    found = first_state(42, None, json.loads(text), forced=True)
    assert found.forced
    for name in ("x", "iteration", "evaluations", "attempt"):
        np.testing.assert_array_equal(getattr(found.start, name), getattr(state.start, name))
    for field in fields(Minimum):
        np.testing.assert_array_equal(getattr(found.best, field.name), getattr(state.best, field.name))
    for name in ("ladder_step", "cycle", "ended", "failed"):
        assert getattr(found, name) == getattr(state, name)
    np.testing.assert_array_equal(found.potential.parameters, state.potential.parameters)
    assert found.rng.normal() == state.rng.normal()


def test_a_new_fit_starts_with_a_stream_of_its_own():
    one, two, other = (first_state(seed, None, None, forced=False) for seed in (1, 1, 2))
    assert one.start is None and one.ladder_step == 0
    draws = [s.rng.normal() for s in (one, two, other)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] != np.random.default_rng(1).normal()  # that made the initial coefficients
