"""Where a fit stands, in memory and as a checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pacehpc.potential import Potential
from pacehpc.potential.bbasis_yaml import format_bbasis, parse_bbasis


@dataclass
class Start:
    """Where a minimisation begins."""

    x: np.ndarray
    """(n_trainable,)"""
    iteration: int = 0
    """Iterations of this minimisation before x: more than 0 where an exact continuation was not possible."""
    evaluations: int = 0
    attempt: int = 0


@dataclass
class Minimum:
    """How a minimisation ended."""

    x: np.ndarray
    """(n,): the last accepted point (gradient-free methods: the best)."""
    loss: float
    metrics: dict[str, float]
    n_iterations: int
    n_evaluations: int
    message: str
    stopped: bool
    """Ended by `on_iteration`."""


@dataclass
class FitState:
    """Where a fit stands: all that a running minimisation does not know."""

    rng: np.random.Generator
    seed: int = 0
    """Of the input; the random rows of GN-BFGS follow it."""
    ladder_step: int = 0
    cycle: int = 0
    potential: Potential | None = None
    """The best of the last finished ladder step; before the first one, the initial potential, or None."""
    best: Minimum | None = None
    """The best of the finished cycles of the running ladder step."""
    start: Start | None = None
    """Of the running minimisation; None between minimisations."""
    forced: bool = False
    """Data, loss or kernels may have changed since: losses have to be computed again."""
    evaluations: int = 0
    """Of all finished minimisations."""
    ended: str = ""
    """Why the whole fit ended before its plan; "" while it runs."""
    failed: bool = False
    """It ended because a callback raised."""


def first_state(seed: int, potential: Potential | None, resume: Mapping[str, Any] | None, forced: bool) -> FitState:
    """The state at the start of a run.

    Args:
        seed: of the input.
        potential: where a ladder begins; None: from nothing.
        resume: the checkpoint of an unfinished fit.
        forced: data, loss or kernels may have changed since it was written.
    """
    # not the stream that made the initial coefficients
    state = FitState(np.random.default_rng([seed, 1]), seed, potential=potential)
    if resume is not None:
        restore(state, resume)
        state.forced = forced
    return state


def state_body(state: FitState) -> dict[str, Any]:
    """A FitState as JSON keeps it."""
    return {
        "ladder_step": state.ladder_step,
        "cycle": state.cycle,
        "rng": state.rng.bit_generator.state,
        "potential": None if state.potential is None else format_bbasis(state.potential),
        "best": None if state.best is None else {**asdict(state.best), "x": state.best.x.tolist()},
        "start": None if state.start is None else {**asdict(state.start), "x": state.start.x.tolist()},
        "evaluations": state.evaluations,
        "ended": state.ended,
        "failed": state.failed,
    }


def restore(state: FitState, body: Mapping[str, Any]) -> None:
    """Set what `state_body` kept."""
    state.ladder_step, state.cycle = body["ladder_step"], body["cycle"]
    state.rng.bit_generator.state = body["rng"]
    if body["potential"] is not None:
        state.potential = parse_bbasis(body["potential"], "checkpoint")
    if body["best"] is not None:
        state.best = Minimum(**{**body["best"], "x": np.array(body["best"]["x"], dtype=np.float64)})
    if body["start"] is not None:
        state.start = Start(**{**body["start"], "x": np.array(body["start"]["x"], dtype=np.float64)})
    state.evaluations = body.get("evaluations", 0)
    state.ended, state.failed = body["ended"], body["failed"]
