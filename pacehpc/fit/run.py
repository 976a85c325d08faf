"""A whole run: data, ladder steps with their cycles, final potential, predictions."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from pacehpc import backends, parallel
from pacehpc.checkpoint.state import FOLDER
from pacehpc.errors import PacehpcError
from pacehpc.fit import outputs
from pacehpc.fit.cycles import FitState, run_cycles
from pacehpc.fit.data import (
    nearest_distances,
    predicted_imbalance,
    prepare,
    queried,
    read_shard,
    shortest_bonds,
    warn_of_elements,
)
from pacehpc.fit.dry_run import describe as describe_data
from pacehpc.fit.dry_run import dry_run
from pacehpc.fit.optimizers import check_memory
from pacehpc.fit.progress import Interrupted, Progress, restore
from pacehpc.fit.resources import backend_options, check_gpu
from pacehpc.fit.resume import changed_data, describe, fingerprint, new_header, old_header, origin
from pacehpc.fit.stopping import load_callbacks
from pacehpc.machine import set_blas_threads, set_kernel_threads, share_of_cores, threads_given
from pacehpc.objective import LOSS_KEYS, Objective, agreed_backend
from pacehpc.potential import Potential, build_potential, ladder_start, next_ladder_potential, trainable_mask
from pacehpc.walltime import UNFINISHED, Stop

if TYPE_CHECKING:
    from pacehpc.config.models import Settings
    from pacehpc.dataset import Dataset
    from pacehpc.shard import Shard

log = logging.getLogger("pacehpc")


@dataclass(frozen=True)
class Tasks:
    """What the command line asks for."""

    fit: bool = True
    predict: bool = True
    dry_run: bool = False
    prepare: bool = False
    """Prepare the data and stop."""
    query: bool = False
    """Ask the database for the data, also where an earlier result is kept."""
    rebuild: bool = False
    """Prepare the data anew."""
    output: str = "output_potential.yaml"
    force: bool = False
    """Go on with an unfinished fit although data or settings have changed."""
    profile: bool = False
    """Log the time of each stage of an evaluation; NVTX ranges on a GPU."""


@dataclass
class Plan:
    """What the root alone knows: the data and the potentials at both ends."""

    train: Dataset
    test: Dataset | None
    stores: dict[str, Path]
    target: Potential
    start: Potential | None
    """Where a ladder begins; None: from nothing."""
    callbacks: list
    metadata: dict[str, str]


def run(
    settings: Settings,
    comm: Any | None,
    tasks: Tasks,
    input_file: Path | None = None,
    resume: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
) -> int:
    """The exit code of a run by all ranks together, in the working directory.

    resume: the checkpoint of the unfinished fit that goes on; on the root. stop: asked on every rank.
    """
    seconds = outputs.Seconds()
    root = parallel.is_root(comm)
    hosts = parallel.hosts(comm)
    # ranks, cores and environment do not set the threads of BLAS, on which an optimizer's bits depend
    blas_threads = (settings.backend.optimizer_threads or 1) if root else 1
    set_blas_threads(blas_threads)
    share = share_of_cores(parallel.node_rank(comm)[1])
    kernel_threads = settings.backend.threads or threads_given() or share
    set_kernel_threads(kernel_threads)
    if root:
        outputs.log_start(settings, hosts)
        log.info("Threads of a rank: %d of the kernels, %d of BLAS", kernel_threads, blas_threads)
    if tasks.prepare:
        parallel.on_root(lambda: _prepare_alone(settings, tasks), comm, share=False)
        return 0
    evaluator = agreed_backend(settings.backend.evaluator, comm)
    settings = settings.model_copy(update={"backend": settings.backend.model_copy(update={"evaluator": evaluator})})
    check_gpu(settings, comm)
    if tasks.profile and backends.resolve(settings.backend.evaluator) == "reference":
        raise PacehpcError("--profile: the reference backend has no stages to time; use the backend cpu or cuda.")
    progress, forced = None, False
    if tasks.fit and not tasks.dry_run:
        ranks = parallel.gather((outputs.processor(), backends.made_with(settings.backend.evaluator)), comm)

        def opened() -> tuple[dict[str, Any], bool]:
            now = origin(settings, ranks)
            if resume is None:
                return new_header(now, blas_threads), False
            log.info("%s", describe(resume, FOLDER))
            return old_header(resume, now, blas_threads, tasks.force)

        header, forced = parallel.on_root(opened, comm)
        set_blas_threads(header["threads"]["blas"])
        set_kernel_threads(header["threads"]["kernels"])
        progress = Progress(FOLDER, header, settings.checkpoint.journal_limit, stop)
    with seconds.spent_on("data"):
        plan = parallel.on_root(lambda: _plan(settings, tasks, input_file, progress), comm, share=False)
        if tasks.dry_run:
            if root:
                dry_run(settings, plan, len(hosts))
            return 0
        if root:
            for name, data in (("train", plan.train), ("test", plan.test)):
                if data is not None:
                    describe_data(name, data)
        if progress is not None:
            forced = parallel.on_root(lambda: _same_data(plan, progress, resume, forced or tasks.force), comm) or forced
        target = parallel.broadcast(plan.target if root else None, comm)
        stores = parallel.broadcast(plan.stores if root else None, comm)
        shards = {name: read_shard(path, target, comm, settings.backend.memory_limit) for name, path in stores.items()}
        predicted = predicted_imbalance(stores, parallel.size_of(comm)) if root else 1.0
        shortest = {}
        if tasks.fit and settings.fit.repulsion == "auto":
            shortest = shortest_bonds(shards["train"], target, comm)
            parallel.on_root(lambda: check_zbl(target, shortest), comm, share=False)
        if root and settings.fit.loss.stress > 0:
            outputs.log_stress(plan.train, plan.test)
    if root:
        with seconds.spent_on("report"):
            target.save("target_potential.yaml")
            outputs.save_data(plan.train, "fitting_data_info")
            if plan.test is not None:
                outputs.save_data(plan.test, "test_data_info")

    potential, rank_seconds, code, iteration = target, np.zeros(parallel.size_of(comm)), 0, 0
    if tasks.fit:
        # not the stream that made the initial coefficients
        state = FitState(np.random.default_rng([settings.seed, 1]), potential=plan.start if root else None)
        if root and resume is not None:
            restore(state, resume)
            state.forced = forced
        finished = parallel.broadcast(root and resume is not None and resume["stage"] == "finish", comm)
        if not finished:
            record = outputs.Record(settings, Path(), seconds, resumed=resume is not None) if root else None
            rank_seconds = _fit(settings, comm, plan, state, record, progress, shards, seconds, tasks.profile)
            if rank_seconds is None:
                if root:
                    _say_stopped(stop)
                return UNFINISHED
            parallel.on_root(lambda: _fitted(record, progress, state), comm, share=False)
        else:
            rank_seconds = np.zeros(parallel.size_of(comm))
        potential = parallel.broadcast(state.potential if root else None, comm)
        code = parallel.broadcast(int(state.failed), comm)
        iteration = state.best.n_iterations if root else 0
        if settings.fit.repulsion == "auto":
            potential = with_zbl(potential, shortest)
    _finish(settings, comm, tasks, plan, shards, potential, iteration, seconds)
    if root:
        if progress is not None:
            progress.done()
        outputs.log_times(seconds, rank_seconds, predicted)
    return code


def _same_data(plan: Plan, progress: Progress, resume: Mapping[str, Any] | None, force: bool) -> bool:
    """Keep what tells the prepared data from others; whether they are others than an unfinished fit began with."""
    now = progress.header["prepared"] = fingerprint(plan.train, plan.test, plan.stores)
    return resume is not None and changed_data(resume.get("prepared"), now, force)


def _fitted(record: outputs.Record, progress: Progress, state: FitState) -> None:
    record.sync()
    progress.save(state, "finish")


def _say_stopped(stop: Stop | None) -> None:
    reason = (stop.reason if stop is not None else "") or "another rank"
    log.warning("Stopped in order (%s). The fit is unfinished: the same command goes on with it", reason)


def _stop_agreed(stop: Stop | None, comm: Any | None) -> bool:
    """Whether any rank was asked to stop."""
    mine = np.array([float(stop is not None and stop.due())])
    return bool(parallel.allreduce_sum(mine, comm)[0] > 0)


def _prepare_alone(settings: Settings, tasks: Tasks) -> None:
    potential = None if settings.potential is None else build_potential(settings.potential)
    if potential is None and settings.cutoff is None:
        raise PacehpcError("--prepare-data needs `cutoff` or `potential` in the input.")
    if tasks.query:
        if settings.data.filename is not None:
            raise PacehpcError("--query-data: data.filename names the data; remove it, and give data.config.element.")
        with queried(settings, again=True) as settings:
            _, _, stores = prepare(settings, potential, tasks.rebuild, ahead=True)
    else:
        _, _, stores = prepare(settings, potential, tasks.rebuild, ahead=True)
    log.info("Prepared: %s", ", ".join(map(str, stores.values())))


def _plan(settings: Settings, tasks: Tasks, input_file: Path | None, progress: Progress | None) -> Plan:
    """Read and check everything that the user gives."""
    started = datetime.now() if progress is None else datetime.fromisoformat(progress.header["starttime"])
    rng = np.random.default_rng(settings.seed)
    section = settings.potential
    target = build_potential(section, rng=rng)
    start = ladder_start(section) if settings.fit.ladder_step is not None else None
    if settings.cutoff is not None and settings.cutoff < target.cutoff:
        raise PacehpcError(f"cutoff: {settings.cutoff} Å is smaller than the largest rcut, {target.cutoff} Å.")
    if settings.fit.repulsion == "auto" and tasks.fit:
        inner = [pair for pair, bond in target.bonds.items() if bond.r_in > 0]
        if inner:
            raise PacehpcError(
                f"fit.repulsion: auto, but the bond {' '.join(inner[0])} has an inner cutoff (r_in "
                f"{target.bonds[inner[0]].r_in}): auto would drop this trained factor. Remove one of them."
            )
        sharp = [pair for pair, bond in target.bonds.items() if bond.dcut == 0]
        if sharp:
            raise PacehpcError(
                f"fit.repulsion: auto, but the bond {' '.join(sharp[0])} has dcut 0, and ZBL needs a positive "
                "one, such as 0.01."
            )
    if tasks.fit:
        n_trainable = int(trainable_mask(target, settings.fit.trainable_parameters).sum())
        if n_trainable == 0:
            raise PacehpcError("fit.trainable_parameters: nothing is left to fit.")
        check_memory(settings.fit.optimizer, n_trainable, settings.fit.maxiter)
    if tasks.predict and Path("report").is_file():
        raise PacehpcError("report: figures go into a folder of this name, and here it is a file: rename it.")
    callbacks = load_callbacks(settings.fit.callbacks) if tasks.fit else []
    train, test, stores = prepare(settings, target, tasks.rebuild)
    if tasks.fit:
        warn_of_elements(target, train)
        target.metadata = outputs.metadata_that_lasts(target.metadata)
    metadata = outputs.metadata(settings, input_file, train, started)
    return Plan(train, test, stores, target, start, callbacks, metadata)


def _fit(
    settings: Settings,
    comm: Any | None,
    plan: Plan | None,
    state: FitState,
    record: outputs.Record | None,
    progress: Progress,
    shards: dict[str, Shard],
    seconds: outputs.Seconds,
    profile: bool = False,
) -> np.ndarray | None:
    """All ladder steps and cycles; the root's state holds the fitted potential. Seconds of each rank, None if stopped.

    plan and record: on the root.
    """
    root = parallel.is_root(comm)
    rank_seconds = np.zeros(parallel.size_of(comm))
    interrupted = _stop_agreed(progress.stop, comm)
    while not interrupted:
        potential = parallel.on_root(lambda: _next_potential(settings, plan, state), comm)
        if potential is None:
            return rank_seconds
        with seconds.spent_on("compile"):
            objective = make_objective(settings, comm, potential, shards, stop=progress.stop, profile=profile)
        if root:
            outputs.log_objective(objective)
            before = seconds.get("output", 0.0)
            try:
                with seconds.spent_on("optimizer"):
                    run_cycles(objective, state, settings, record, progress, plan.callbacks)
                    record.ladder(objective, state)
            except Interrupted:
                interrupted = True
            seconds["evaluation"] = seconds.get("evaluation", 0.0) + objective.evaluation_seconds
            seconds["optimizer"] -= objective.evaluation_seconds + seconds.get("output", 0.0) - before
            if profile and not interrupted:
                outputs.log_stages(objective)
            objective.close()
        else:
            objective.serve()
        interrupted = parallel.broadcast(interrupted, comm)
        rank_seconds += objective.rank_seconds
        del objective  # and the memory of its evaluators, before those of the next step are made
        state.ladder_step += 1
    return None


def _next_potential(settings: Settings, plan: Plan, state: FitState) -> Potential | None:
    """What the next ladder step fits, None at the end."""
    if state.ended:
        log.warning("The fit ends here: %s", state.ended)
        return None
    if settings.fit.ladder_step is None:
        return plan.target if state.ladder_step == 0 else None
    potential = next_ladder_potential(state.potential, plan.target, settings.fit.ladder_step, settings.fit.ladder_type)
    if potential is None and state.ladder_step == 0:
        return plan.target  # the initial potential has it all
    if potential is not None:
        log.info(
            "Ladder step %d: %d of %d functions", state.ladder_step, potential.n_functions, plan.target.n_functions
        )
    return potential


def make_objective(
    settings: Settings,
    comm: Any | None,
    potential: Potential,
    shards: dict[str, Shard],
    virials: bool = False,
    stop: Stop | None = None,
    profile: bool = False,
    refuse: bool = True,
) -> Objective:
    """The objective of these settings on all ranks; virials: predict them, too, where the loss does not need them.

    refuse: raise PacehpcError where backend.memory_limit is too small.
    """
    loss = settings.fit.loss
    structures, node = [s.structures for s in shards.values()], parallel.node_rank(comm)
    piece = max(s.piece_memory for s in shards.values())
    options = backend_options(settings, potential, structures, virials or loss.stress > 0, node, piece, refuse)
    options = replace(options, virials=virials or None, profile=profile)
    return Objective(
        potential,
        shards["train"],
        {name: getattr(loss, name) for name in LOSS_KEYS},
        backend=settings.backend.evaluator,
        comm=comm,
        trainable=trainable_mask(potential, settings.fit.trainable_parameters),
        test=shards.get("test"),
        stop=None if stop is None else stop.due,
        wait=settings.backend.wait,
        options=options,
    )


def with_zbl(potential: Potential, shortest: dict[tuple[str, str], float]) -> Potential:
    """`repulsion: auto`: ZBL below the smallest distance of each bond in the data, Å.

    A bond that is absent from the data begins at the sum of the covalent radii.
    """
    potential = potential.copy()
    for a, b in potential.bonds:
        pair = (min(a, b), max(a, b))
        r_in = shortest.get(pair, covalent_distance(a, b))
        potential.bonds[a, b] = replace(
            potential.bonds[a, b], inner_cutoff_type="zbl", r_in=r_in, delta_in=0.1, core_repulsion=(1.0, 1.0)
        )
        if a <= b:
            log.info("repulsion: %s %s below %.3f Å%s", a, b, r_in, "" if pair in shortest else " (not in the data)")
    for element, embedding in potential.embeddings.items():
        potential.embeddings[element] = replace(embedding, rho_core_cut=1.0, drho_core_cut=1.0)
    return potential


def check_zbl(potential: Potential, shortest: dict[tuple[str, str], float]) -> None:
    """Raises PacehpcError where `with_zbl` would begin at or beyond a cutoff."""
    for (a, b), bond in potential.bonds.items():
        if (min(a, b), max(a, b)) not in shortest and covalent_distance(a, b) >= bond.rcut:
            raise PacehpcError(
                f"fit.repulsion: auto, but no bond {a} {b} is in the data, and the sum of the covalent radii "
                f"({covalent_distance(a, b):.2f} Å), where ZBL would begin, is not smaller than its rcut "
                f"({bond.rcut:g} Å): make rcut larger."
            )


def covalent_distance(a: str, b: str) -> float:
    """Sum of the covalent radii of two elements, Å."""
    return float(covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]])


def _finish(
    settings: Settings,
    comm: Any | None,
    tasks: Tasks,
    plan: Plan | None,
    shards: dict[str, Shard],
    potential: Potential,
    iteration: int,
    seconds: outputs.Seconds,
) -> None:
    """Write the potential, read it again, and compute the final errors and predictions with what the file holds."""
    root = parallel.is_root(comm)
    name = tasks.output if tasks.fit else "target_potential.yaml"

    def written() -> Potential:
        if tasks.fit:
            potential.metadata.update(plan.metadata)
            potential.save(name)
        return Potential.load(name)

    with seconds.spent_on("report"):
        potential = parallel.on_root(written, comm)
    with seconds.spent_on("compile"):
        with_stress = tasks.predict and any(shard.structures.stress is not None for shard in shards.values())
        with_stress = parallel.broadcast(with_stress, comm)
        objective = make_objective(
            settings, comm, potential, shards, with_stress, profile=tasks.profile, refuse=not tasks.fit
        )
    predictions = {}
    if root:
        _, _, metrics = objective.evaluate(objective.x)
        test = objective.evaluate_test(objective.x) if "test" in shards else None
        if tasks.predict:
            predictions = {which: objective.predict(objective.x, which) for which in shards}
        if tasks.profile and not tasks.fit:
            outputs.log_stages(objective)
        objective.close()
    else:
        objective.serve()
    distances = (
        {which: nearest_distances(shard, potential, comm) for which, shard in shards.items()} if tasks.predict else {}
    )
    if not root:
        return
    with seconds.spent_on("report"):
        if tasks.fit:
            errors = {f"final_{key}": repr(metrics[key]) for key in outputs.FINAL_ERRORS}
            if test is not None:
                errors |= {f"final_test_{key}": repr(test[key]) for key in outputs.FINAL_ERRORS}
            potential.metadata.update(errors)
            potential.save(name)
        for which, prediction in predictions.items():
            data = plan.train if which == "train" else plan.test
            outputs.save_predictions(settings, data, which, prediction, distances[which])
        if tasks.fit and tasks.predict:
            outputs.save_learning_curve(settings)
    outputs.log_final(objective, iteration, metrics, test, name)
    if tasks.fit:
        log.info("Fitted potential: %s", os.path.abspath(name))
