"""The summary of a finished fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import pacehpc
from pacehpc.fit.outputs import imbalance
from pacehpc.machine import processor
from pacehpc.report.summary import FitSummary

if TYPE_CHECKING:
    from pacehpc.config.models import Settings
    from pacehpc.dataset import Dataset
    from pacehpc.objective import Objective


@dataclass
class Course:
    """How a fit went, on the root."""

    hosts: Sequence[str]
    """Of each rank."""
    threads: int
    """Of each rank's kernels."""
    log: str
    """File of the log."""
    started: str = ""
    """ISO date and time."""
    resumed: bool = False
    iterations: int = 0
    """Of the last minimisation."""
    evaluations: int = 0
    """Of all minimisations and all starts."""
    made: int = 0
    """Evaluations of this start, those of the test set with them."""
    rank_seconds: np.ndarray | None = None
    """Time of evaluations on each rank, (n_ranks,)."""


def summarise(
    settings: Settings,
    course: Course,
    objective: Objective,
    data: Mapping[str, Dataset],
    errors: Mapping[str, Mapping[str, float]],
    seconds: Mapping[str, float],
    name: str,
) -> FitSummary:
    """The summary of a fit whose potential was written to the file `name`.

    Args:
        settings: of the run.
        course: of the fit.
        objective: of the final errors.
        data: by set, train and test.
        errors: final metrics by set.
        seconds: time by what it was spent on.
        name: of the potential's file.
    """
    structures, atoms, bonds = np.array(objective.shard_sizes).sum(axis=0).tolist()
    spent = seconds.get("evaluation", 0.0) / course.made if course.made else 0.0
    if not spent:  # all evaluations were made before an interruption
        spent = objective.evaluation_seconds / max(objective.n_evaluations, 1)
    measured = course.rank_seconds is not None and len(course.rank_seconds) > 1 and course.rank_seconds.sum() > 0
    return FitSummary(
        version=pacehpc.__version__,
        potential=name,
        log=course.log,
        settings=settings.resolved_yaml(),
        files={which: [one.sources[k] for k in np.unique(one.source).tolist()] for which, one in data.items()},
        started=course.started,
        backend=objective.backend,
        processor=processor(),
        hosts=dict(Counter(course.hosts)),
        threads=course.threads,
        functions=objective.potential.n_functions,
        parameters=objective.potential.n_parameters,
        trainable=len(objective.x),
        kappa=objective.kappa,
        rcut=objective.potential.cutoff,
        structures=structures,
        atoms=atoms,
        bonds=bonds,
        iterations=course.iterations,
        evaluations=course.evaluations,
        evaluation_seconds=spent,
        resumed=course.resumed,
        imbalance=imbalance(course.rank_seconds) if measured else None,
        seconds={key: float(value) for key, value in seconds.items()},
        errors={which: {key: float(value) for key, value in found.items()} for which, found in errors.items()},
    )
