"""A whole run: ranks, plan, shards; each potential of the ladder with its cycles; final files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.config.models import Settings
from pacehpc.fit import outputs
from pacehpc.fit.data import predicted_imbalance, read_shard, shortest_bonds
from pacehpc.fit.dry_run import describe, dry_run
from pacehpc.fit.final import finish
from pacehpc.fit.ladder_steps import fit_ladder_steps
from pacehpc.fit.plan import Tasks, make_plan, prepare_data
from pacehpc.fit.record import Record, Seconds
from pacehpc.fit.repulsion import check_zbl, with_zbl
from pacehpc.fit.resources import agree_on_backend, set_threads
from pacehpc.fit.resume import open_checkpoints, record_data
from pacehpc.fit.schedule import weights_of_stage
from pacehpc.fit.state import first_state
from pacehpc.fit.summarise import Course
from pacehpc.parallel import Ranks
from pacehpc.walltime import UNFINISHED, Stop


def run(
    settings: Settings,
    ranks: Ranks,
    tasks: Tasks,
    input_file: Path | None = None,
    resume: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
) -> int:
    """Run what the command line asks for, on all ranks together, in the working directory.

    Args:
        settings: the input.
        ranks: that run.
        tasks: what to do.
        input_file: named in the metadata of the potential.
        resume: the checkpoint of the unfinished fit to resume; on the root.
        stop: asked on every rank.

    Returns:
        The exit code.
    """
    seconds, fit = Seconds(), settings.fit
    hosts, threads = ranks.hosts(), set_threads(settings.backend, ranks)
    ranks.on_root(lambda: outputs.log_start(settings, hosts, threads))
    if tasks.prepare:
        ranks.on_root(lambda: prepare_data(settings, tasks))
        return 0
    settings = settings.model_copy(update={"backend": agree_on_backend(settings.backend, ranks, tasks.profile)})
    checkpoints, forced = None, False
    if tasks.fit and not tasks.dry_run:
        checkpoints, forced = open_checkpoints(settings, ranks, threads, resume, tasks.force, stop)
    with seconds.spent_on("data"):
        plan = ranks.on_root(lambda: make_plan(settings, tasks, input_file, checkpoints and checkpoints.started))
        if tasks.dry_run:
            ranks.on_root(lambda: dry_run(settings, plan, ranks.size))
            return 0
        ranks.on_root(lambda: describe(plan))
        if checkpoints is not None:
            forced = ranks.share(lambda: record_data(plan, checkpoints, resume, forced or tasks.force)) or forced
        target, stores = ranks.share(lambda: (plan.target, plan.stores))
        shards = {name: read_shard(path, target, ranks, settings.backend.memory_limit) for name, path in stores.items()}
        predicted = ranks.on_root(lambda: predicted_imbalance(stores, ranks.size))
        zbl = tasks.fit and fit.repulsion == "auto"
        shortest = shortest_bonds(shards["train"], target, ranks) if zbl else {}
        if zbl:
            ranks.on_root(lambda: check_zbl(target, shortest))
        if any(stage.loss.stress > 0 for stage in fit.stages):
            ranks.on_root(lambda: outputs.log_stress(plan.train, plan.test))
    with seconds.spent_on("report"):
        ranks.on_root(lambda: target.save("target_potential.yaml"))

    potential, rank_seconds, code = target, np.zeros(ranks.size), 0
    course = Course(hosts, threads["kernels"], tasks.log)
    if tasks.fit:
        state = ranks.on_root(lambda: first_state(settings.seed, plan.start, resume, forced))
        if not ranks.share(lambda: resume is not None and resume["stage"] == "finish"):
            step = settings.backend.display_step
            record = ranks.on_root(lambda: Record(fit, step, Path(), seconds, resumed=resume is not None))
            finished = fit_ladder_steps(
                fit, settings.backend, ranks, plan, state, record, checkpoints, shards, rank_seconds, tasks.profile
            )
            if not finished:
                ranks.on_root(lambda: outputs.log_stopped("" if stop is None else stop.reason))
                return UNFINISHED
            ranks.on_root(lambda: (record.sync(), checkpoints.save(state, "finish")))
            course.made = ranks.on_root(lambda: record.made)
        potential, code = ranks.share(lambda: (state.potential, int(state.failed)))
        if ranks.root:
            course.started, course.resumed = checkpoints.started.isoformat(" ", "seconds"), resume is not None
            course.iterations, course.evaluations = state.best.n_iterations, state.evaluations
            course.rank_seconds = rank_seconds
        if zbl:
            potential = with_zbl(potential, shortest)
    shards = weights_of_stage(ranks, plan and plan.factors, shards, len(fit.stages) - 1)
    drawing = finish(settings, fit.stages[-1], ranks, tasks, plan, shards, potential, course, seconds)
    ranks.part()
    if ranks.root:  # the others end here
        if drawing is not None:
            with seconds.spent_on("figures"):
                drawing.wait()
        if checkpoints is not None:
            checkpoints.done()
        outputs.log_times(seconds, rank_seconds, predicted)
    return code
