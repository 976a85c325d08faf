"""The cycles of one ladder step: minimise, disturb the best, minimise again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pacehpc.config.models import Fit
from pacehpc.fit.evaluations import Checkpoints, Diverged, Evaluations, Interrupted
from pacehpc.fit.gauss_newton import split_options
from pacehpc.fit.optimizers import GRADIENT_FREE, minimize
from pacehpc.fit.record import Iteration, Record
from pacehpc.fit.renewal_plan import plan_of, renewals_of
from pacehpc.fit.state import FitState, Minimum, Start
from pacehpc.fit.stopping import CallbackFailed, EarlyStop, call_all
from pacehpc.objective import GRADIENT, VALUE, Objective

log = logging.getLogger("pacehpc")

Callbacks = Sequence[Callable[..., Any]]
NOISE = ("noise_relative_sigma", "noise_absolute_sigma", "randomize_func_coeffs")  # as disturb takes them


def disturb(
    x: np.ndarray,
    functions: np.ndarray,
    rng: np.random.Generator,
    relative: float = 0.0,
    absolute: float = 0.0,
    randomize: float = 0.0,
) -> np.ndarray:
    """A disturbed copy of the trainable parameters x (n,).

    Args:
        x: (n,)
        functions: which of them are function coefficients, bool (n,).
        rng: source of the normal deviates N.
        relative: σ of x + N σ max(|x|, 0.01).
        absolute: σ of x + N σ.
        randomize: function coefficients become N σ.
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
    fit: Fit,
    record: Record,
    checkpoints: Checkpoints,
    callbacks: Callbacks = (),
) -> None:
    """Run all cycles of this ladder step, on the root; leaves the best in `state.best` and `state.potential`.

    A stage of a schedule is one cycle, `state.cycle`, whose settings are `fit`. With `state.start` set it resumes that
    minimisation.

    Raises:
        Interrupted: the run was asked to stop.
    """
    n_radial = sum(c.size for c in objective.potential.radcoefficients.values())
    functions = np.flatnonzero(objective.trainable) >= n_radial
    first = 0 if state.start is None else state.cycle
    if state.start is None:
        state.best = None
    elif state.forced:
        _accept_changes(objective, state, fit, checkpoints)
    else:
        checkpoints.save(state)  # with the ranks and versions of now
    scheduled = fit.schedule is not None
    for cycle in [state.cycle] if scheduled else range(first, fit.fit_cycles):
        state.cycle = cycle
        if state.start is None:
            x = objective.x if cycle == 0 or scheduled else _disturbed_best(state, fit, functions)
            state.start = Start(x)
            record.sync()
            checkpoints.save(state)
        start, elsewhere = time.perf_counter(), objective.evaluation_seconds + record.seconds.get("output", 0.0)
        minimum = _minimise(objective, state, fit, record, checkpoints, callbacks)
        state.evaluations += minimum.n_evaluations
        if state.best is None or minimum.loss < state.best.loss:
            state.best = minimum
        wall = time.perf_counter() - start
        elsewhere = objective.evaluation_seconds + record.seconds.get("output", 0.0) - elsewhere
        record.cycle(objective, state, minimum, max(wall - elsewhere, 0.0) / wall)
        state.start = None
        if state.ended:
            break
    state.potential = objective.potential_at(state.best.x)


def _disturbed_best(state: FitState, fit: Fit, functions: np.ndarray) -> np.ndarray:
    noise = [getattr(fit, name) for name in NOISE]
    given = [f"{name} {size:g}" for name, size in zip(NOISE, noise, strict=True) if size]
    kind = ", disturbed: " + ", ".join(given) if given else ""
    log.info("Cycle %d starts from the best so far (loss %.6e)%s", state.cycle, state.best.loss, kind)
    return disturb(state.best.x, functions, state.rng, *noise)


def _command(fit: Fit) -> int:
    """What its optimizer asks for at a point."""
    return VALUE if fit.optimizer in GRADIENT_FREE else GRADIENT


def _accept_changes(objective: Objective, state: FitState, fit: Fit, checkpoints: Checkpoints) -> None:
    """With other data, loss or kernels: resume from the best point; earlier losses are not comparable."""
    evaluations = checkpoints.evaluations(objective, state, _command(fit), 0)
    state.start = evaluations.best_start(state.start)
    evaluations.close()
    if state.best is not None:
        loss, _, metrics = objective.evaluate(state.best.x, VALUE)
        state.best = replace(state.best, loss=loss, metrics=metrics)
    state.forced = False
    checkpoints.save(state)


def _minimise(
    objective: Objective, state: FitState, fit: Fit, record: Record, checkpoints: Checkpoints, callbacks: Callbacks
) -> Minimum:
    """The running minimisation: answered from its journal as far as that reaches, else from its best point."""
    method, options, plan = None, fit.options, None
    if fit.optimizer == "GN-BFGS":
        method, options = split_options(fit.options)
        plan = plan_of(objective, method)
    while True:
        evaluations = checkpoints.evaluations(objective, state, _command(fit), fit.maxiter)
        if evaluations.journal is None and evaluations.best.point is not None:
            state.start = evaluations.best_start(state.start)
            log.warning("There is no journal: the minimisation resumes from its best point, not bit for bit")
            checkpoints.save(state)
            evaluations.close()
            continue
        start = state.start
        try:
            minimum = minimize(
                evaluations,
                start.x,
                fit.optimizer,
                max(fit.maxiter - start.iteration, 0),
                options,
                _watch(objective, evaluations, state, fit, record, callbacks),
                None if plan is None else renewals_of(objective, method, plan, state.seed, evaluations.check),
            )
            return replace(
                minimum,
                n_iterations=minimum.n_iterations + start.iteration,
                n_evaluations=minimum.n_evaluations + start.evaluations,
            )
        except Diverged:
            log.warning(
                "The optimizer no longer takes the path of the journal after %d evaluations (another machine, BLAS or "
                "version): the minimisation resumes from its best point, not bit for bit",
                evaluations.count,
            )
            state.start = evaluations.best_start(start)
            checkpoints.save(state)
        except Interrupted:
            if evaluations.best.point is not None:
                record.interim(objective, state, evaluations.best.point.x)
            raise
        finally:
            evaluations.close()


def _watch(
    objective: Objective, evaluations: Evaluations, state: FitState, fit: Fit, record: Record, callbacks: Callbacks
) -> Callable[[np.ndarray, dict[str, float], int, int], bool]:
    """What happens after each iteration of one minimisation; the result says whether it stops."""
    train_stop, test_stop = (
        None if threshold is None else EarlyStop(threshold, fit.early_stopping_patience)
        for threshold in (fit.min_relative_train_loss_per_iter, fit.min_relative_test_loss_per_iter)
    )
    start = state.start

    def on_iteration(x: np.ndarray, metrics: dict[str, float], number: int, count: int) -> bool:
        number += start.iteration
        evaluations.iteration = number
        replayed = evaluations.replaying
        test = evaluations.test(x) if record.shows(number) and "test" in objective.shards else None
        record.iteration(objective, state, Iteration(number, count + start.evaluations, x, metrics, test, replayed))
        stop = False
        if train_stop is not None and train_stop.update(number, metrics["loss"]):
            log.info("Early stop: the loss fell by less than %g per iteration", train_stop.threshold)
            stop = True
        if test_stop is not None and test is not None and test_stop.update(number, test["loss"]):
            log.info("Early stop: the loss of the test set fell by less than %g per iteration", test_stop.threshold)
            stop = True
        if callbacks and number > 0:
            keywords = {
                "basis_config": objective.potential_at(x),
                "current_fit_iteration": number,
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
