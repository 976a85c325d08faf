"""What an optimizer minimises, and the running fit on disk: checkpoints, and a journal of the evaluations.

A resumed fit starts its unfinished minimisation again and is answered from the journal, so that the optimizer rebuilds
its state without evaluations. Used by the root alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pacehpc.checkpoint import state as checkpoint
from pacehpc.checkpoint.files import cannot_write
from pacehpc.checkpoint.journal import BestPoint, Evaluation, Journal, Point, hash_of, record_bytes
from pacehpc.errors import PacehpcError
from pacehpc.fit.state import FitState, Start, state_body
from pacehpc.objective import GRADIENT, TEST, Objective
from pacehpc.report.lines import size_text

if TYPE_CHECKING:
    from pacehpc.walltime import Stop

log = logging.getLogger("pacehpc")

EVALUATIONS_PER_ITERATION = 1.3  # to estimate a journal's size; a line search rarely needs more


class Interrupted(Exception):
    """The run was asked to stop; what it has is on disk."""


class Diverged(Exception):
    """The optimizer asks for another point than the journal holds."""


class Checkpoints:
    """The folder `checkpoint` of a running fit, rewritten at the start of each minimisation."""

    def __init__(self, folder: Path, header: Mapping[str, Any], limit: float, stop: Stop | None = None) -> None:
        """header: what all checkpoints of this run say (run, origin, threads, starttime). limit: bytes of a journal."""
        self.folder, self.header, self.limit, self.stop = folder, dict(header), limit, stop

    @property
    def started(self) -> datetime:
        """When the fit began."""
        return datetime.fromisoformat(self.header["starttime"])

    def due(self) -> bool:
        """Whether this rank was asked to stop."""
        return self.stop is not None and self.stop.due()

    def save(self, state: FitState, stage: str = "fit") -> None:
        """Write the checkpoint and drop the files of earlier minimisations; raises PacehpcError."""
        body = {**self.header, "stage": stage, **state_body(state)}
        try:
            checkpoint.save(self.folder, body)
            names = ("best", "journal", "journal_of_losses")
            keep = {checkpoint.STATE, *(self._path(state, name).name for name in names)}
            for path in self.folder.iterdir():
                if path.name not in keep and path.suffix != ".damaged":
                    path.unlink()
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def done(self) -> None:
        """Remove the folder: the fit is finished and written, nothing is left to resume."""
        checkpoint.remove(self.folder)

    def _path(self, state: FitState, kind: str) -> Path:
        attempt = state.start.attempt if state.start is not None else 0
        return self.folder / f"{kind}_{state.ladder_step}_{state.cycle}_{attempt}.bin"

    def evaluations(self, objective: Objective, state: FitState, command: int, maxiter: int) -> Evaluations:
        """The objective of this minimisation with its journal; sets `state.start` where that has to change."""
        n = len(objective.x)
        if len(state.start.x) != n:
            raise PacehpcError(
                f"{self.folder}: the unfinished fit has {len(state.start.x)} trainable parameters, this input {n}: it "
                "cannot be resumed. Bring the old input back, or start again with `--fresh`."
            )
        n_gradient = n if command == GRADIENT else 0
        run, name = self.header["run"], f"{state.ladder_step} {state.cycle} {state.start.attempt}"
        best = BestPoint(self._path(state, "best"), run, name, n)
        path = self._path(state, "journal" if n_gradient else "journal_of_losses")  # the other is another optimizer's
        expected = int(record_bytes(40, n_gradient) * (maxiter * EVALUATIONS_PER_ITERATION + 2))
        if expected > self.limit and not path.exists():
            log.warning(
                "Exact restart is off: the journal of this minimisation would take about %s, more than "
                "checkpoint.journal_limit, %s. An interrupted fit resumes from its best point.",
                size_text(expected),
                size_text(self.limit),
            )
            journal = None
        else:
            journal = Journal(path, run, name, n_gradient, self.header["origin"].get("versions"))
            if journal.damage:
                log.warning("%s: %s", path, journal.damage)
            elif journal.count == 0:
                log.info("Journal: about %s by the end of this minimisation", size_text(expected))
        return Evaluations(objective, journal, best, state.start, command, self.stop)


class Evaluations:
    """f(x) for an optimizer: from the journal while it lasts, then by the objective, into the journal."""

    def __init__(
        self,
        objective: Objective,
        journal: Journal | None,
        best: BestPoint,
        start: Start,
        command: int,
        stop: Stop | None,
    ) -> None:
        self.objective, self.journal, self.best, self.command, self.stop = objective, journal, best, command, stop
        self.iteration = start.iteration
        self.count = 0
        self._before = start.evaluations
        index = [] if journal is None else journal.index
        self._train = [k for k, (recorded, _) in enumerate(index) if recorded != TEST]
        self._test = {key: k for k, (recorded, key) in enumerate(index) if recorded == TEST}
        self._began = self._last_end = time.perf_counter()

    @property
    def replaying(self) -> bool:
        """Whether the last evaluation came from the journal and the next one will."""
        return self.count < len(self._train)

    @property
    def last_iteration(self) -> int:
        """The last iteration that the journal knows of."""
        last = self.journal.read(self._train[-1]).iteration if self._train else self.iteration
        return max(last, 0 if self.best.point is None else self.best.point.iteration)

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray | None, dict[str, float]]:
        """Loss, gradient, metrics at x. Raises Interrupted, Diverged, and PacehpcError where nothing can be kept."""
        key = hash_of(x)
        if self.count < len(self._train):
            found = self.journal.read(self._train[self.count])
            if found.key != key or found.command != self.command:
                raise Diverged
            self.count += 1
            if self.count == len(self._train):
                self._last_end = time.perf_counter()
                log.info(
                    "Replayed %d evaluations of the journal in %.2f s, up to iteration %d",
                    self.count,
                    time.perf_counter() - self._began,
                    found.iteration,
                )
            elif self.stop is not None and self.stop.due():
                raise Interrupted
            self._keep_best(x, found.loss, found.iteration)  # where its file was lost
            return found.loss, found.gradient, found.metrics
        return self._evaluate(x, key, self.command)

    def check(self) -> None:
        """Raise Interrupted if a stop was asked for; for work between evaluations, while they are replayed as well."""
        if self.stop is not None and self.stop.due():
            raise Interrupted

    def test(self, x: np.ndarray) -> dict[str, float]:
        """Metrics of the test set at x."""
        key = hash_of(x)
        if key in self._test:
            return self.journal.read(self._test[key]).metrics
        return self._evaluate(x, key, TEST)[2]

    def _evaluate(self, x: np.ndarray, key: bytes, command: int) -> tuple[float, np.ndarray | None, dict[str, float]]:
        loss, gradient, metrics = self.objective.evaluate(x, command)
        try:
            if self.journal is not None:
                self.journal.append(Evaluation(command, self.iteration, key, loss, metrics, gradient))
            if command != TEST:
                self.count += 1
                self._train.append(-1)
                self._keep_best(x, loss, self.iteration)
        except OSError as error:
            raise cannot_write(self.best.path.parent, error) from error
        now = time.perf_counter()
        if self.stop is not None:
            self.stop.learn(now - self._last_end)  # with all that lies between two evaluations
        self._last_end = now
        if self.objective.stop_requested:
            raise Interrupted
        return loss, gradient, metrics

    def _keep_best(self, x: np.ndarray, loss: float, iteration: int) -> None:
        try:
            self.best.update(x, loss, iteration, self._before + self.count)
        except OSError as error:
            raise cannot_write(self.best.path.parent, error) from error

    def best_start(self, start: Start) -> Start:
        """A new start at the best point so far."""
        point = self.best.point or Point(start.x, np.inf, start.iteration, start.evaluations)
        return Start(point.x, max(self.last_iteration, start.iteration), point.evaluations, start.attempt + 1)

    def close(self) -> None:
        """Bring all to the disk."""
        if self.journal is not None:
            try:
                self.journal.sync()
            except OSError as error:
                raise cannot_write(self.journal.path, error) from error
            self.journal.close()
        self.best.close()
