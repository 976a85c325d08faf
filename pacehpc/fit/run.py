"""A whole run: data, ladder steps with their cycles, final potential, predictions."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from pacehpc import backends, parallel
from pacehpc.errors import PacehpcError
from pacehpc.fit import outputs
from pacehpc.fit.cycles import FitState, run_cycles
from pacehpc.fit.data import log_balance, nearest_distances, prepare, queried, read_shard, shortest_bonds
from pacehpc.fit.dry_run import dry_run
from pacehpc.fit.optimizers import check_memory
from pacehpc.fit.resources import backend_options, check_gpu
from pacehpc.fit.stopping import load_callbacks
from pacehpc.objective import LOSS_KEYS, Objective, Shard
from pacehpc.potential import Potential, ladder_start, next_ladder_potential, trainable_mask

if TYPE_CHECKING:
    from pacehpc.config.models import Settings
    from pacehpc.dataset import Dataset

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


def run(settings: Settings, comm: Any | None, tasks: Tasks, input_file: Path | None = None) -> int:
    """The exit code of a run by all ranks together, in the working directory."""
    seconds = outputs.Seconds()
    root = parallel.is_root(comm)
    hosts = parallel.hosts(comm)
    parallel.share_cores(comm)
    if root:
        outputs.log_start(settings, hosts)
    if tasks.prepare:
        parallel.on_root(lambda: _prepare_alone(settings, tasks), comm, share=False)
        return 0
    check_gpu(settings, comm)
    with seconds.spent_on("data"):
        plan = parallel.on_root(lambda: _plan(settings, tasks, input_file), comm, share=False)
        if tasks.dry_run:
            if root:
                dry_run(settings, plan, len(hosts))
            return 0
        target = parallel.broadcast(plan.target if root else None, comm)
        stores = parallel.broadcast(plan.stores if root else None, comm)
        shards = {name: read_shard(path, target, comm) for name, path in stores.items()}
        if root and comm is not None:
            log_balance(stores, comm.size)
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
        state, rank_seconds = _fit(settings, comm, plan, shards, seconds)
        potential = parallel.broadcast(state.potential if root else None, comm)
        code = parallel.broadcast(int(state.failed), comm)
        iteration = state.best.n_iterations if root else 0
        if settings.fit.repulsion == "auto":
            potential = with_zbl(potential, shortest_bonds(shards["train"], potential, comm))
    _finish(settings, comm, tasks, plan, shards, potential, iteration, seconds)
    if root:
        outputs.log_times(seconds, rank_seconds)
    return code


def _prepare_alone(settings: Settings, tasks: Tasks) -> None:
    potential = None if settings.potential is None else Potential.build(settings.potential)
    if potential is None and settings.cutoff is None:
        raise PacehpcError("--prepare-data needs `cutoff` or `potential` in the input.")
    if tasks.query:
        if settings.data.filename is not None:
            raise PacehpcError("--query-data: data.filename names the data; remove it, and give data.config.element.")
        with queried(settings, again=True) as settings:
            _, _, stores = prepare(settings, potential, tasks.rebuild)
    else:
        _, _, stores = prepare(settings, potential, tasks.rebuild)
    log.info("Prepared: %s", ", ".join(map(str, stores.values())))


def _plan(settings: Settings, tasks: Tasks, input_file: Path | None) -> Plan:
    """Read and check everything that the user gives."""
    started = datetime.now()
    rng = np.random.default_rng(settings.seed)
    section = settings.potential
    target = Potential.build(section, rng=rng)
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
    if tasks.fit:
        n_trainable = int(trainable_mask(target, settings.fit.trainable_parameters).sum())
        if n_trainable == 0:
            raise PacehpcError("fit.trainable_parameters: nothing is left to fit.")
        check_memory(settings.fit.optimizer, n_trainable)
    callbacks = load_callbacks(settings.fit.callbacks) if tasks.fit else []
    train, test, stores = prepare(settings, target, tasks.rebuild)
    metadata = outputs.metadata(settings, input_file, train, started)
    return Plan(train, test, stores, target, start, callbacks, metadata)


def _fit(
    settings: Settings, comm: Any | None, plan: Plan | None, shards: dict[str, Shard], seconds: outputs.Seconds
) -> tuple[FitState, np.ndarray]:
    """All ladder steps and cycles; the root's state holds the fitted potential."""
    root = parallel.is_root(comm)
    rng = np.random.default_rng([settings.seed, 1])  # not the stream that made the initial coefficients
    state = FitState(rng, potential=plan.start if root else None)
    record = outputs.Record(settings, Path.cwd(), seconds) if root else None
    rank_seconds = np.zeros(parallel.size_of(comm))
    while True:
        potential = parallel.on_root(lambda: _next_potential(settings, plan, state), comm)
        if potential is None:
            return state, rank_seconds
        with seconds.spent_on("compile"):
            objective = make_objective(settings, comm, potential, shards)
        if root:
            outputs.log_objective(objective)
            before = seconds.get("output", 0.0)
            with seconds.spent_on("optimizer"):
                run_cycles(objective, state, settings, record, plan.callbacks)
                record.ladder(objective, state)
            seconds["evaluation"] = seconds.get("evaluation", 0.0) + objective.evaluation_seconds
            seconds["optimizer"] -= objective.evaluation_seconds + seconds.get("output", 0.0) - before
            objective.close()
        else:
            objective.serve()
        rank_seconds += objective.rank_seconds
        state.ladder_step += 1


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
    settings: Settings, comm: Any | None, potential: Potential, shards: dict[str, Shard], virials: bool = False
) -> Objective:
    """The objective of these settings on all ranks; virials: predict them, too, where the loss does not need them."""
    loss = settings.fit.loss
    options = backend_options(settings, potential, [s.structures for s in shards.values()], virials or loss.stress > 0)
    if virials and backends.resolve(settings.backend.evaluator) == "cpu":
        options["virials"] = True
    return Objective(
        potential,
        shards["train"],
        {name: getattr(loss, name) for name in LOSS_KEYS},
        backend=settings.backend.evaluator,
        comm=comm,
        trainable=trainable_mask(potential, settings.fit.trainable_parameters),
        test=shards.get("test"),
        **options,
    )


def with_zbl(potential: Potential, shortest: dict[tuple[str, str], float]) -> Potential:
    """`repulsion: auto`: ZBL below the smallest distance of each bond in the data, Å.

    A bond that is absent from the data begins at the sum of the covalent radii.
    """
    potential = potential.copy()
    for a, b in potential.bonds:
        pair = (min(a, b), max(a, b))
        r_in = shortest.get(pair, float(covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]]))
        potential.bonds[a, b] = replace(
            potential.bonds[a, b], inner_cutoff_type="zbl", r_in=r_in, delta_in=0.1, core_repulsion=(1.0, 1.0)
        )
        if a <= b:
            log.info("repulsion: %s %s below %.3f Å%s", a, b, r_in, "" if pair in shortest else " (not in the data)")
    for element, embedding in potential.embeddings.items():
        potential.embeddings[element] = replace(embedding, rho_core_cut=1.0, drho_core_cut=1.0)
    return potential


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
        objective = make_objective(settings, comm, potential, shards, parallel.broadcast(with_stress, comm))
    predictions = {}
    if root:
        _, _, metrics = objective.evaluate(objective.x)
        test = objective.evaluate_test(objective.x) if "test" in shards else None
        if tasks.predict:
            predictions = {which: objective.predict(objective.x, which) for which in shards}
        objective.close()
    else:
        objective.serve()
    distances = {which: nearest_distances(shard, comm) for which, shard in shards.items()} if tasks.predict else {}
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
