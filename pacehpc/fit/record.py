"""The files and log lines of a running fit: tables, interim potentials. The root alone uses this."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np

from pacehpc.config.models import Fit
from pacehpc.fit.labels import warn_of_stress_share
from pacehpc.fit.schedule import title
from pacehpc.fit.state import FitState, Minimum
from pacehpc.objective import Objective
from pacehpc.replacing import sync_folder
from pacehpc.report import lines, tables

log = logging.getLogger("pacehpc")

TABLES = ("metrics", "cycle_metrics", "ladder_metrics", "test_metrics", "test_cycle_metrics", "test_ladder_metrics")
INTERIM_SHARE = 0.01  # of the time that interim potentials may take


class Seconds(dict):
    """Time by what it was spent on."""

    @contextmanager
    def spent_on(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self[name] = self.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Iteration:
    """One iteration of a minimisation."""

    number: int
    evaluations: int
    x: np.ndarray
    """(n,)"""
    metrics: Mapping[str, float]
    test: Mapping[str, float] | None
    """Metrics of the test set, where they were computed."""
    replayed: bool
    """Answered from a journal: shown before, so that only rows that a kill prevented are written."""


@dataclass
class Record:
    """The files and lines of a running fit; `fit`: the settings of the stage that runs."""

    fit: Fit
    display_step: int
    folder: Path
    seconds: Seconds
    resumed: bool = False
    """Tables are continued; else they start again."""
    made: int = 0
    """Evaluations of the finished ladder steps of this start."""
    _start: float = field(default_factory=time.perf_counter)
    _minimisation: tuple[int, int, int, float] = (-1, -1, 0, 0.0)  # the running one: its first iteration here, and when
    _interim: float = 0.0  # seconds spent on interim potentials
    _interim_cost: float = 0.0  # of the last one
    _tables: dict[str, tables.MetricsTable] = field(default_factory=dict)
    _seen: tuple[float, int] = (0.0, 0)  # seconds and number of evaluations at the last iteration

    def __post_init__(self) -> None:
        if not self.resumed:
            for name in TABLES:
                (self.folder / f"{name}.txt").unlink(missing_ok=True)
        for name in TABLES:
            if name.startswith("test_"):  # programs read them without a test set, too
                tables.MetricsTable(self.folder / f"{name}.txt").close()

    def shows(self, iteration: int) -> bool:
        """Whether this is one of every display_step, which get a block of errors and rows in the tables."""
        return iteration % self.display_step == 0

    def iteration(self, objective: Objective, state: FitState, now: Iteration) -> None:
        """Write the lines, table rows and interim potential of an iteration."""
        with self.seconds.spent_on("output"):
            if not now.replayed:
                self._log_iteration(objective, state, now)
            if self.shows(now.number):
                self._row("metrics", state, now.number, now.metrics)
            if now.test is not None:
                self._row("test_metrics", state, now.number, now.test)
            spent = time.perf_counter() - self._start
            due = now.number <= 1 or self._interim + self._interim_cost < INTERIM_SHARE * spent
            if due and not now.replayed:
                self._save_interim(objective, state, now.x)

    def _log_iteration(self, objective: Objective, state: FitState, now: Iteration) -> None:
        per_atom, number = self._seconds_per_atom(objective), now.number
        first, shown = number == 0, self.shows(number)
        if first:
            log.info("%s", lines.initial_line(now.metrics, per_atom))
            warn_of_stress_share(now.metrics)
            if now.test is not None:
                log.info("%s", lines.initial_line(now.test, per_atom, test=True))
        elif not shown:
            log.info("%s", lines.iteration_line(number, now.evaluations, now.metrics, per_atom))
        if self._minimisation[:2] != (state.ladder_step, state.cycle):
            self._minimisation = (state.ladder_step, state.cycle, number, time.perf_counter())
        if shown:
            log.info("%s", lines.statistics("INIT STATS" if first else "FIT STATS", number, now.metrics, per_atom))
            _, _, start, since = self._minimisation
            if start < number < self.fit.maxiter:
                each = (time.perf_counter() - since) / (number - start)
                left = timedelta(seconds=round(each * (self.fit.maxiter - number)))
                log.info("At most %s left of this minimisation (%.3g s per iteration)", left, each)
        if now.test is not None:
            title = "INIT TEST STATS" if first else "TEST STATS"
            log.info("%s", lines.statistics(title, number, now.test, per_atom))

    def cycle(self, objective: Objective, state: FitState, minimum: Minimum, optimizer_share: float) -> None:
        """Write the result of a finished cycle; `state.best` is the best so far.

        optimizer_share: part of the cycle's time that the optimizer itself took.
        """
        fit = self.fit
        test = objective.evaluate_test(minimum.x) if "test" in objective.shards else None
        compared = ""
        if fit.fit_cycles > 1:
            compared = ", the best so far" if minimum is state.best else f", the best so far is {state.best.loss:.6e}"
        with self.seconds.spent_on("output"):
            log.info(
                "%s ended after %d iterations (%d evals): %s. Final loss %.6e%s. Time of the optimizer itself: %.1f %%",
                f"Cycle {state.cycle}" if fit.schedule is None else title(fit, state.cycle),
                minimum.n_iterations,
                minimum.n_evaluations,
                minimum.message,
                minimum.loss,
                compared,
                100 * optimizer_share,
            )
            self._log_last_iteration(objective, minimum, test)
            self._save_interim(objective, state, minimum.x)
            if fit.randomize_func_coeffs:
                objective.potential_at(minimum.x).save(self.folder / f"ensemble_potential_{state.cycle}.yaml")
            if fit.fit_cycles > 1 and minimum is state.best:
                objective.potential_at(minimum.x).save(self.folder / "interim_potential_best_cycle.yaml")
            for table in ("metrics", "cycle_metrics"):  # the former lacks it between two display steps
                self._row(table, state, minimum.n_iterations, minimum.metrics)
            if test is not None:
                self._row("test_metrics", state, minimum.n_iterations, test)
                self._row("test_cycle_metrics", state, minimum.n_iterations, test)

    def ladder(self, objective: Objective, state: FitState) -> None:
        """Write the result of a finished ladder step, which is the whole fit where there is no ladder."""
        test = objective.evaluate_test(state.best.x) if "test" in objective.shards else None
        with self.seconds.spent_on("output"):
            if self.fit.ladder_step is not None:
                self._log_last_iteration(objective, state.best, test)
                name = f"interim_potential_ladder_step_{state.ladder_step}.yaml"
                state.potential.save(self.folder / name)
                log.info("Intermediate potential saved in %s", name)
            self._row("ladder_metrics", state, state.best.n_iterations, state.best.metrics)
            if test is not None:
                self._row("test_ladder_metrics", state, state.best.n_iterations, test)

    def _log_last_iteration(self, objective: Objective, minimum: Minimum, test: Mapping[str, float] | None) -> None:
        per_atom = self._seconds_per_atom(objective)
        title, number = "Cycle last iteration:", minimum.n_iterations
        log.info("%s", lines.statistics(title, number, minimum.metrics, per_atom))
        if test is not None:
            log.info("%s", lines.statistics(f"TEST {title}", number, test, per_atom))

    def interim(self, objective: Objective, state: FitState, x: np.ndarray) -> None:
        """Save the potential at x as the current one of this cycle."""
        with self.seconds.spent_on("output"):
            self._save_interim(objective, state, x)

    def sync(self) -> None:
        """Bring the tables to the disk, before a checkpoint says that their rows are behind us."""
        for table in self._tables.values():
            table.sync()
        sync_folder(self.folder)

    def _save_interim(self, objective: Objective, state: FitState, x: np.ndarray) -> None:
        start = time.perf_counter()
        objective.potential_at(x).save(self.folder / f"interim_potential_{state.cycle}.yaml")
        self._interim_cost = time.perf_counter() - start
        self._interim += self._interim_cost

    def _row(self, table: str, state: FitState, iteration: int, metrics: Mapping[str, float]) -> None:
        step = {"ladder_step": state.ladder_step, "cycle_step": state.cycle, "iter_num": iteration}
        if table not in self._tables:
            self._tables[table] = tables.MetricsTable(self.folder / f"{table}.txt")
        self._tables[table].append({**metrics, **step})

    def _seconds_per_atom(self, objective: Objective) -> float:
        """Wall time of an evaluation, mean since the last iteration, per atom of all data."""
        seconds, evaluations = objective.evaluation_seconds, objective.n_evaluations
        spent, number = seconds - self._seen[0], evaluations - self._seen[1]
        if number <= 0:  # a new objective, or nothing since
            spent, number = seconds, max(evaluations, 1)
        self._seen = seconds, evaluations
        return spent / number / sum(atoms for _, atoms, _ in objective.shard_sizes)
