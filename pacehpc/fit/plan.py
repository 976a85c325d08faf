"""What a run is to do, and what the root reads for it: the data and the potentials at both ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.backends import prepare_kernels_ahead, prepare_row_kernels_ahead
from pacehpc.config.models import Fit, Settings
from pacehpc.dataset import Dataset
from pacehpc.errors import PacehpcError
from pacehpc.fit import outputs
from pacehpc.fit.data import prepare, warn_of_elements
from pacehpc.fit.gauss_newton import renews
from pacehpc.fit.optimizers import check_memory
from pacehpc.fit.query import queried
from pacehpc.fit.repulsion import check_dcut, without_core
from pacehpc.fit.schedule import Factors, stage_factors, stage_of, summary, title
from pacehpc.fit.state import FitState
from pacehpc.fit.stopping import load_callbacks
from pacehpc.potential import Potential, build_potential, ladder_start, next_ladder_potential, trainable_mask
from pacehpc.potential.section import PER_ELEMENT
from pacehpc.report import lines

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
    """Prepare the data again."""
    output: str = "output_potential.yaml"
    log: str = "log.txt"
    force: bool = False
    """Resume an unfinished fit although data or settings have changed."""
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
    callbacks: list[Callable[..., Any]]
    metadata: dict[str, str]
    only_tested: bool = False
    """Nothing is fitted, and `train` is not what the potential was fitted with: it is called test in all outputs."""
    factors: list[dict[str, Factors]] = field(default_factory=list)
    """Of each stage, on the weights of the data sets."""

    @property
    def data(self) -> dict[str, Dataset]:
        """The data by the name that outputs give them."""
        found = {self.name("train"): self.train}
        return found if self.test is None else found | {"test": self.test}

    def name(self, which: str) -> str:
        """What outputs call the `which` ("train", "test") of an objective."""
        return "test" if self.only_tested else which


def prepare_data(settings: Settings, tasks: Tasks) -> None:
    """Prepare the data for fits to come, from a database where that is asked for."""
    potential = None if settings.potential is None else build_potential(settings.potential)
    if potential is None and settings.cutoff is None:
        raise PacehpcError("--prepare-data needs `cutoff` or `potential` in the input.")
    if tasks.query:
        if settings.data.filename is not None:
            raise PacehpcError("--query-data: data.filename names the data; remove it, and give data.config.element.")
        with queried(settings.data, again=True) as found:
            asked = settings.model_copy(update={"data": found})
            _, _, stores = prepare(asked, potential, tasks.rebuild, ahead=True)
    else:
        _, _, stores = prepare(settings, potential, tasks.rebuild, ahead=True)
    log.info("Prepared: %s", ", ".join(map(str, stores.values())))


def make_plan(settings: Settings, tasks: Tasks, input_file: Path | None, started: datetime | None = None) -> Plan:
    """Read and check everything that the user gives; started: when the fit began, None: now."""
    rng = np.random.default_rng(settings.seed)
    section = settings.potential
    target = build_potential(section, rng=rng)
    _compare_with_asked(section, target)
    start = ladder_start(section) if settings.fit.ladder_step is not None else None
    if settings.fit.repulsion == "auto" and tasks.fit:
        target = without_core(target)
        check_dcut(target)
    if tasks.fit:
        n_trainable = int(trainable_mask(target, settings.fit.trainable_parameters).sum())
        if n_trainable == 0:
            raise PacehpcError("fit.trainable_parameters: nothing is left to fit.")
        for stage in settings.fit.stages:
            check_memory(stage.optimizer, n_trainable, stage.maxiter)
    if tasks.predict and Path("report").is_file():
        raise PacehpcError("report: figures go into a folder of this name, and here it is a file: rename it.")
    callbacks = load_callbacks(settings.fit.callbacks) if tasks.fit else []
    _compile_ahead(settings.fit, settings.backend.evaluator, target, start, tasks.fit and not tasks.dry_run)
    train, test, stores = prepare(settings, target, tasks.rebuild)
    if tasks.fit:
        warn_of_elements(target, train)
        target.metadata = outputs.metadata_that_lasts(target.metadata)
    fitted_with = target.metadata.get("data_sha256")
    only_tested = not tasks.fit and test is None and fitted_with not in (None, " ".join(train.sha256))
    if only_tested:
        log.info("The potential was fitted with other data: these are called test")
    metadata = outputs.metadata(settings.metadata, input_file, train, started or datetime.now())
    factors = stage_factors(settings.fit, train, test)
    return Plan(train, test, stores, target, start, callbacks, metadata, only_tested, factors)


def _compare_with_asked(section: Any, target: Potential) -> None:
    """Say where there are fewer functions than number_of_functions_per_element asks for."""
    given = section.get("functions") if isinstance(section, Mapping) else None
    each = given.get(PER_ELEMENT) if isinstance(given, Mapping) else None
    asked = 0 if each is None else each * len(target.elements)
    if asked - target.n_functions >= max(len(target.blocks), 1):  # not what blocks of equal size leave over
        log.info(
            "potential.functions.%s: %d functions asked for, %d are there with these nradmax_by_orders and "
            "lmax_by_orders: all of them are used",
            PER_ELEMENT, asked, target.n_functions,
        )  # fmt: skip


def _compile_ahead(fit: Fit, backend: str, target: Potential, start: Potential | None, fits: bool) -> None:
    """Compile the kernels of the first potential while the data are prepared."""
    if fit.ladder_step is not None:
        target = next_ladder_potential(start, target, fit.ladder_step, fit.ladder_type) or target
    stress = fit.stages[0].loss.stress > 0
    prepare_kernels_ahead(backend, target, stress)
    if fits and renews(fit.stages[0]):  # a core may be idle now; while evaluations run, none is
        prepare_row_kernels_ahead(backend, target, stress)


def next_potential(plan: Plan, fit: Fit, state: FitState) -> Potential | None:
    """What the next ladder step, or the next stage of this one, fits; None at the end."""
    if state.ended:
        log.warning("The fit ends here: %s", state.ended)
        return None
    potential = state.potential if stage_of(fit, state) > 0 else _next_of_ladder(plan, fit, state)
    if potential is not None and fit.schedule is not None:
        log.info("%s", lines.framed(f"{title(fit, state.cycle)}: {summary(fit.stages[state.cycle])}"))
    return potential


def _next_of_ladder(plan: Plan, fit: Fit, state: FitState) -> Potential | None:
    if fit.ladder_step is None:
        return plan.target if state.ladder_step == 0 else None
    potential = next_ladder_potential(state.potential, plan.target, fit.ladder_step, fit.ladder_type)
    if potential is None and state.ladder_step == 0:
        return plan.target  # the initial potential has it all
    if potential is not None:
        log.info(
            "Ladder step %d: %d of %d functions", state.ladder_step, potential.n_functions, plan.target.n_functions
        )
    return potential
