"""All ladder steps of a fit, each with its objective and its cycles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pacehpc.config.models import Backend, Fit
from pacehpc.fit import outputs
from pacehpc.fit.cycles import run_cycles
from pacehpc.fit.evaluations import Checkpoints, Interrupted
from pacehpc.fit.plan import Plan, next_potential
from pacehpc.fit.record import Record, Seconds
from pacehpc.fit.resources import make_objective
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
    """Fit all ladder steps and cycles; the root's state then holds the potential.

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
        with seconds.spent_on("compile"):
            objective = make_objective(fit, backend, ranks, potential, shards, stop=checkpoints.stop, profile=profile)
        if ranks.root:
            interrupted = not _run_ladder_step(objective, fit, plan, state, record, checkpoints)
            if profile and not interrupted:
                outputs.log_stages(objective)
            objective.close()
            state.ladder_step += 1
        else:
            objective.serve()
        interrupted = ranks.broadcast(interrupted)
        rank_seconds += objective.rank_seconds
        del objective  # and the memory of its evaluators, before those of the next step are created
    return False


def _run_ladder_step(
    objective: Objective, fit: Fit, plan: Plan, state: FitState, record: Record, checkpoints: Checkpoints
) -> bool:
    """Run the cycles of a ladder step on the root. False: asked to stop."""
    outputs.log_objective(objective)
    seconds = record.seconds
    before, finished = seconds.get("output", 0.0), True
    try:
        with seconds.spent_on("optimizer"):
            run_cycles(objective, state, fit, record, checkpoints, plan.callbacks)
            record.ladder(objective, state)
    except Interrupted:
        finished = False
    record.made += objective.n_evaluations
    seconds["evaluation"] = seconds.get("evaluation", 0.0) + objective.evaluation_seconds
    seconds["optimizer"] -= objective.evaluation_seconds + seconds.get("output", 0.0) - before
    return finished
