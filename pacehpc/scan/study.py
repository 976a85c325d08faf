"""The trials of a scan in a file that several workers share, kept by Optuna."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.checkpoint.lock import Lock
from pacehpc.errors import PacehpcError
from pacehpc.potential.section import PER_ELEMENT
from pacehpc.scan.inputs import trial_folder

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ImportError:
    raise PacehpcError("pacehpc scan needs Optuna: `pip install 'pacehpc[scan]'`.") from None

NAME = "scan"
JOURNAL = "journal.log"
WAIT = 120.0  # s, for other workers to take their trials


@dataclass(frozen=True)
class Trial:
    """A trial.

    Attributes:
        number: from 0.
        state: running, complete or failed.
        values: of what is varied.
        results: (error, µs per atom); None before its end.
    """

    number: int
    state: str
    values: dict[str, Any]
    results: tuple[float, float] | None


class Study:
    """All trials of a scan."""

    def __init__(self, folder: Path, problem: Mapping[str, Any] | None = None) -> None:
        """Open the scan in a folder.

        Args:
            folder: of the scan.
            problem: what all trials share; None: only look at a scan that is there.

        Raises:
            PacehpcError: the folder holds no scan, or one of another input.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder = folder
        path = folder / JOURNAL
        if problem is None and not path.exists():
            raise PacehpcError(f"{folder}: holds no scan ({JOURNAL} is missing); `pacehpc scan` starts one.")
        folder.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        self._study = optuna.create_study(
            storage=storage, study_name=NAME, directions=["minimize", "minimize"], load_if_exists=True
        )
        if problem is not None:
            self._compare(json.loads(json.dumps(problem)))
        self._locks: dict[int, Lock] = {}

    def _compare(self, problem: Any) -> None:
        before = self._study.user_attrs.get("problem")
        if before is None:
            self._study.set_user_attr("problem", problem)
        elif before != problem:
            changed = sorted(_different(before, problem))
            raise PacehpcError(
                f"{self.folder}: holds a scan of another input; different: {', '.join(changed)}. Bring the old values "
                "back, or name another folder with -o."
            )

    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [_trial(one) for one in self._study.get_trials(deepcopy=False) if one.params]

    def next(self, space: Mapping[str, Sequence[Any]], most: int, seed: int) -> Trial | None:
        """A trial for this worker, which `release` or `tell` gives back: one that its worker left, else a new one.

        Args:
            space: what is varied.
            most: number of trials.
            seed: of the random choices.

        Returns:
            None where all trials are finished or in the hands of other workers.

        Raises:
            PacehpcError: another worker holds the list of trials for minutes.
        """
        with self._alone():
            for one in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if not self._claim(one.number):
                    continue
                if set(space) <= set(one.params):
                    return _trial(one)
                self._study.tell(one.number, state=TrialState.FAIL)  # its worker died before it knew any values
                self._locks.pop(one.number).release()
            if len(self.trials()) >= most:
                return None
            self._study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=max(4, most // 3), seed=_seed(seed, len(self.trials()))
            )
            number = self._study.ask(_distributions(space)).number
            if not self._claim(number):
                raise PacehpcError(f"{self.folder}: trial {number} is in other hands; another scan works here.")
            return _trial(self._study.get_trials(deepcopy=False)[number])

    def tell(self, trial: Trial, results: tuple[float, float] | None) -> None:
        """The end of a trial of this worker; results: None where its fit failed."""
        if results is None:
            self._study.tell(trial.number, state=TrialState.FAIL)
        else:
            self._study.tell(trial.number, list(results))
        self.release(trial)

    def release(self, trial: Trial) -> None:
        """Leave a trial to any worker."""
        self._locks.pop(trial.number).release()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other worker takes or asks for a trial meanwhile."""
        folder, end = self.folder / "workers", time.monotonic() + WAIT
        folder.mkdir(exist_ok=True)
        lock = Lock(folder)
        while True:
            try:
                lock.acquire()
                break
            except PacehpcError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        try:
            yield
        finally:
            lock.release()

    def _claim(self, number: int) -> bool:
        """Whether this worker now holds the trial: no other does, nor runs a fit that outlived its worker."""
        folder = self.folder / "workers" / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        mine, fits = Lock(folder), Lock(trial_folder(self.folder, number))
        try:
            mine.acquire()
        except PacehpcError:
            return False
        if fits.path.exists():
            try:
                fits.acquire()
            except PacehpcError:
                mine.release()
                return False
            fits.release()
        self._locks[number] = mine
        return True


def _trial(one: optuna.trial.FrozenTrial) -> Trial:
    state = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}.get(one.state, "running")
    results = tuple(one.values) if one.state == TrialState.COMPLETE else None
    return Trial(one.number, state, {name: _rounded(value) for name, value in one.params.items()}, results)


def _rounded(value: Any) -> Any:
    """Numbers as a user would write them."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _distributions(space: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, values in space.items():
        if name == "radbase":
            made[name] = optuna.distributions.CategoricalDistribution(values)
        elif name == PER_ELEMENT:
            made[name] = optuna.distributions.IntDistribution(*values, log=True)
        else:
            made[name] = optuna.distributions.FloatDistribution(*values, log=name == "kappa")
    return made


def _seed(seed: int, number: int) -> int:
    """Of the next trial: other tasks of a job array, which ask at the same time, draw other values."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    return int(np.random.SeedSequence([seed, number, int(task) if task.isdigit() else 0]).generate_state(1)[0])


def _different(before: Any, now: Any, where: str = "") -> set[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        found: set[str] = set()
        for key in set(before) | set(now):
            inner = f"{where}.{key}" if where else key
            found |= _different(before.get(key), now.get(key), inner)
        return found
    return set() if before == now else {where.removeprefix("input.")}
