"""The cycles of one ladder step: minimise, disturb the best, minimise again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pacehpc.fit.optimizers import GRADIENT_FREE, Minimum, minimize
from pacehpc.fit.progress import Diverged, Evaluations, Interrupted, Progress, Start
from pacehpc.fit.stopping import CallbackFailed, EarlyStop, call_all
from pacehpc.objective import GRADIENT, VALUE

if TYPE_CHECKING:
    from pacehpc.config.models import Fit, Settings
    from pacehpc.fit.outputs import Record
    from pacehpc.objective import Objective
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

NOISE = ("noise_relative_sigma", "noise_absolute_sigma", "randomize_func_coeffs")  # as disturb takes them


@dataclass
class FitState:
    """Where a fit stands: all that a running minimisation does not know."""

    rng: np.random.Generator
    ladder_step: int = 0
    cycle: int = 0
    potential: Potential | None = None
    """The best of the last finished ladder step; before the first one, the initial potential, or None."""
    best: Minimum | None = None
    """The best of the finished cycles of the running ladder step."""
    start: Start | None = None
    """Of the running minimisation; None between minimisations."""
    forced: bool = False
    """Data, loss or kernels may have changed since: losses have to be made anew."""
    ended: str = field(default="")
    """Why the whole fit ended before its plan; "" while it goes on."""
    failed: bool = False
    """It ended because a callback raised."""


def disturb(
    x: np.ndarray,
    functions: np.ndarray,
    rng: np.random.Generator,
    relative: float = 0.0,
    absolute: float = 0.0,
    randomize: float = 0.0,
) -> np.ndarray:
    """A disturbed copy of the trainable parameters x (n,).

    relative: x + N(0,1) σ max(|x|, 0.01); absolute: x + N(0,1) σ; randomize: those that are function coefficients
    (`functions`, bool (n,)) become N(0,1) σ.
    """
    x = x.copy()
    if relative:
        x += rng.normal(size=len(x)) * relative * np.maximum(np.abs(x), 0.01)
    if absolute:
        x += rng.normal(size=len(x)) * absolute
    if randomize:
        x[functions] = rng.normal(size=np.count_nonzero(functions)) * randomize
    return x


def run_cycles(
    objective: Objective,
    state: FitState,
    settings: Settings,
    record: Record,
    progress: Progress,
    callbacks: Sequence[Callable[..., Any]] = (),
) -> None:
    """All cycles of this ladder step, on the root; leaves the best in `state.best` and `state.potential`.

    With `state.start` set it goes on with that minimisation. Raises Interrupted.
    """
    fit = settings.fit
    n_radial = sum(c.size for c in objective.potential.radcoefficients.values())
    functions = np.flatnonzero(objective.trainable) >= n_radial
    first = 0 if state.start is None else state.cycle
    if state.start is None:
        state.best = None
    elif state.forced:
        _accept_changes(objective, state, progress, fit)
    else:
        progress.save(state)  # with the ranks and versions of now
    for cycle in range(first, fit.fit_cycles):
        state.cycle = cycle
        if state.start is None:
            x = objective.x
            if cycle > 0:
                noise = [getattr(fit, name) for name in NOISE]
                x = disturb(state.best.x, functions, state.rng, *noise)
                given = [f"{name} {size:g}" for name, size in zip(NOISE, noise, strict=True) if size]
                kind = ", disturbed: " + ", ".join(given) if given else ""
                log.info("Cycle %d starts from the best so far (loss %.6e)%s", cycle, state.best.loss, kind)
            state.start = Start(x)
            record.sync()
            progress.save(state)
        start, elsewhere = time.perf_counter(), objective.evaluation_seconds + record.seconds.get("output", 0.0)
        minimum = _minimise(objective, state, settings, record, progress, callbacks)
        if state.best is None or minimum.loss < state.best.loss:
            state.best = minimum
        wall = time.perf_counter() - start
        elsewhere = objective.evaluation_seconds + record.seconds.get("output", 0.0) - elsewhere
        record.cycle(objective, state, minimum, max(wall - elsewhere, 0.0) / wall)
        state.start = None
        if state.ended:
            break
    state.potential = objective.potential_at(state.best.x)


def _command(fit: Fit) -> int:
    """What its optimizer asks for at a point."""
    return VALUE if fit.optimizer in GRADIENT_FREE else GRADIENT


def _accept_changes(objective: Objective, state: FitState, progress: Progress, fit: Fit) -> None:
    """With other data, loss or kernels: go on from the best point; losses of before are not comparable."""
    evaluations = progress.evaluations(objective, state, _command(fit), 0)
    state.start = evaluations.best_start(state.start)
    evaluations.close()
    if state.best is not None:
        loss, _, metrics = objective.evaluate(state.best.x, VALUE)
        state.best = replace(state.best, loss=loss, metrics=metrics)
    state.forced = False
    progress.save(state)


def _minimise(
    objective: Objective,
    state: FitState,
    settings: Settings,
    record: Record,
    progress: Progress,
    callbacks: Sequence[Callable[..., Any]],
) -> Minimum:
    """The running minimisation: answered from its journal as far as that goes, else from its best point."""
    fit = settings.fit
    command = _command(fit)
    while True:
        evaluations = progress.evaluations(objective, state, command, fit.maxiter)
        if evaluations.journal is None and evaluations.best.point is not None:
            state.start = evaluations.best_start(state.start)
            log.warning("There is no journal: the minimisation goes on from its best point, not bit for bit")
            progress.save(state)
            evaluations.close()
            continue
        start = state.start
        try:
            minimum = minimize(
                evaluations,
                start.x,
                fit.optimizer,
                max(fit.maxiter - start.iteration, 0),
                fit.options,
                _watch(objective, evaluations, state, settings, record, callbacks),
            )
            return replace(
                minimum,
                n_iterations=minimum.n_iterations + start.iteration,
                n_evaluations=minimum.n_evaluations + start.evaluations,
            )
        except Diverged:
            log.warning(
                "The optimizer no longer takes the path of the journal after %d evaluations (another machine, BLAS or "
                "version): the minimisation goes on from its best point, not bit for bit",
                evaluations.count,
            )
            state.start = evaluations.best_start(start)
            progress.save(state)
        except Interrupted:
            if evaluations.best.point is not None:
                record.interim(objective, state, evaluations.best.point.x)
            raise
        finally:
            evaluations.close()


def _watch(
    objective: Objective,
    evaluations: Evaluations,
    state: FitState,
    settings: Settings,
    record: Record,
    callbacks: Sequence[Callable[..., Any]],
) -> Callable[[np.ndarray, dict[str, float], int, int], bool]:
    """What happens after each iteration of one minimisation; the result says whether it stops."""
    fit = settings.fit
    train_stop, test_stop = (
        None if threshold is None else EarlyStop(threshold, fit.early_stopping_patience)
        for threshold in (fit.min_relative_train_loss_per_iter, fit.min_relative_test_loss_per_iter)
    )

    start = state.start

    def on_iteration(x: np.ndarray, metrics: dict[str, float], iteration: int, count: int) -> bool:
        iteration += start.iteration
        evaluations.iteration = iteration
        shown = iteration % settings.backend.display_step == 0
        quiet = evaluations.replaying
        test = evaluations.test(x) if shown and "test" in objective.shards else None
        record.iteration(objective, state, x, iteration, count + start.evaluations, metrics, test, shown, quiet)
        stop = False
        if train_stop is not None and train_stop.update(iteration, metrics["loss"]):
            record.say(f"Early stop: the loss fell by less than {train_stop.threshold:g} per iteration")
            stop = True
        if test_stop is not None and test is not None and test_stop.update(iteration, test["loss"]):
            record.say(f"Early stop: the loss of the test set fell by less than {test_stop.threshold:g} per iteration")
            stop = True
        if callbacks and iteration > 0:
            keywords = {
                "basis_config": objective.potential_at(x),
                "current_fit_iteration": iteration,
                "current_fit_cycle": state.cycle,
                "current_ladder_step": state.ladder_step,
            }
            try:
                if call_all(callbacks, **keywords):
                    state.ended = "a callback asked to stop"
            except CallbackFailed as error:
                state.ended, state.failed = f"callback {error} raised", True
        return stop or bool(state.ended)

    return on_iteration
