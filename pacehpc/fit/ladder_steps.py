"""All ladder steps of a fit and the stages of each, with their objectives and cycles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pacehpc.config.models import Backend, Fit
from pacehpc.fit import outputs
from pacehpc.fit.cycles import run_cycles
from pacehpc.fit.evaluations import Checkpoints, Interrupted
from pacehpc.fit.gauss_newton import renews
from pacehpc.fit.plan import Plan, next_potential
from pacehpc.fit.record import Record, Seconds
from pacehpc.fit.resources import make_objective
from pacehpc.fit.schedule import advance, is_last, stage_of, weights_of_stage
from pacehpc.fit.state import FitState
from pacehpc.objective import Objective
from pacehpc.parallel import Ranks
from pacehpc.shard import Shard


def fit_ladder_steps(
    fit: Fit,
    backend: Backend,
    ranks: Ranks,
    plan: Plan | None,
    state: FitState | None,
    record: Record | None,
    checkpoints: Checkpoints,
    shards: Mapping[str, Shard],
    rank_seconds: np.ndarray,
    profile: bool,
) -> bool:
    """Fit all ladder steps, stages and cycles; the root's state then holds the potential.

    Args:
        fit, backend: sections of the input.
        ranks: all of them take part.
        plan, state, record: on the root.
        checkpoints: of the fit.
        shards: this rank's structures.
        rank_seconds: of evaluations on each rank, (n_ranks,), added to.
        profile: log the times of stages.

    Returns:
        False where the fit was asked to stop.
    """
    seconds = record.seconds if ranks.root else Seconds()
    interrupted = ranks.any(checkpoints.due())
    while not interrupted:
        potential = ranks.share(lambda: next_potential(plan, fit, state))
        if potential is None:
            return True
        number = ranks.share(lambda: stage_of(fit, state))
        stage, weighted = fit.stages[number], weights_of_stage(ranks, plan and plan.factors, shards, number)
        with seconds.spent_on("compile"):
            objective = make_objective(
                stage, backend, ranks, potential, weighted, stop=checkpoints.stop, profile=profile
            )
            if renews(stage):
                objective.compile_rows_ahead()  # for the first renewal, in the time of the iterations before it
        if ranks.root:
            interrupted = not _run_ladder_step(objective, stage, plan, state, record, checkpoints)
            if profile and not interrupted:
                outputs.log_stages(objective)
            objective.close()
            advance(fit, state)
        else:
            objective.serve()
        interrupted = ranks.broadcast(interrupted)
        rank_seconds += objective.rank_seconds
        del objective, weighted  # and the memory of its evaluators, before those of the next step are created
    return False


def _run_ladder_step(
    objective: Objective, fit: Fit, plan: Plan, state: FitState, record: Record, checkpoints: Checkpoints
) -> bool:
    """Run the cycles of a ladder step, or one of its stages, on the root; fit: its settings. False: asked to stop."""
    outputs.log_objective(objective)
    seconds = record.seconds
    before, finished = seconds.get("output", 0.0), True
    try:
        with seconds.spent_on("optimizer"):
            record.fit = fit
            run_cycles(objective, state, fit, record, checkpoints, plan.callbacks)
            if is_last(fit, state):
                record.ladder(objective, state)
    except Interrupted:
        finished = False
    record.made += objective.n_evaluations
    seconds["evaluation"] = seconds.get("evaluation", 0.0) + objective.evaluation_seconds
    seconds["optimizer"] -= objective.evaluation_seconds + seconds.get("output", 0.0) - before
    return finished
