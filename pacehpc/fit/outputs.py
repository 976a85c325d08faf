"""What a fit leaves in its folder: log lines, tables, potentials, predictions, figures. The root alone uses this."""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

import pacehpc
from pacehpc.dataset import frame_of, write_frame
from pacehpc.dataset.files import file_hash
from pacehpc.machine import blas_libraries, processor
from pacehpc.metrics import GPA
from pacehpc.replacing import sync_folder
from pacehpc.report import lines, tables
from pacehpc.structures import VOIGT

if TYPE_CHECKING:
    from pacehpc.backends.interface import Prediction
    from pacehpc.config.models import Settings
    from pacehpc.dataset import Dataset
    from pacehpc.fit.cycles import FitState
    from pacehpc.fit.optimizers import Minimum
    from pacehpc.objective import Objective

log = logging.getLogger("pacehpc")

TABLES = ("metrics", "cycle_metrics", "ladder_metrics", "test_metrics", "test_cycle_metrics", "test_ladder_metrics")
RESULTS = (
    "target_potential.yaml",
    "interim_potential_*.yaml",
    "ensemble_potential_*.yaml",
    "fitting_data_info.pckl.gzip",
    "test_data_info.pckl.gzip",
    "train_pred.pckl.gzip",
    "test_pred.pckl.gzip",
    *(f"{name}.txt" for name in TABLES),
    "report",
)
INTERIM_SHARE = 0.01  # of the time that interim potentials may take
REGULARISATION_SHARE = 0.05  # of the loss above which regularisation is worth a warning
FINAL_ERRORS = ("loss", "rmse_epa", "rmse_f_comp", "mae_epa", "mae_f_comp")


def results_here(folder: Path, output: str, log_file: str) -> list[Path]:
    """What an earlier fit left in this folder."""
    named = {folder / name for name in (output, log_file) if (folder / name).exists()}
    return sorted(named.union(*(folder.glob(name) for name in RESULTS)))


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


@dataclass
class Record:
    """The files and lines of a running fit."""

    settings: Settings
    folder: Path
    seconds: Seconds
    _start: float = field(default_factory=time.perf_counter)
    _minimisation: tuple[int, int, int, float] = (-1, -1, 0, 0.0)  # the running one: its first iteration here, and when
    _interim: float = 0.0  # seconds spent on interim potentials
    _interim_cost: float = 0.0  # of the last one
    _tables: dict[str, tables.MetricsTable] = field(default_factory=dict)
    _seen: tuple[float, int] = (0.0, 0)  # seconds and number of evaluations at the last iteration
    resumed: bool = False
    """Tables go on; else they begin anew."""

    def __post_init__(self) -> None:
        if not self.resumed:
            for name in TABLES:
                (self.folder / f"{name}.txt").unlink(missing_ok=True)

    def say(self, text: str) -> None:
        """A line in the log."""
        log.info("%s", text)

    def iteration(
        self,
        objective: Objective,
        state: FitState,
        x: np.ndarray,
        iteration: int,
        evaluations: int,
        metrics: Mapping[str, float],
        test: Mapping[str, float] | None,
        shown: bool,
        quiet: bool = False,
    ) -> None:
        """Lines, table rows and interim potential of an iteration; `shown`: one of every display_step.

        quiet: replayed, so that only rows that a kill has prevented are written.
        """
        with self.seconds.spent_on("output"):
            if quiet:
                if shown:
                    self._row("metrics", state, iteration, metrics)
                if test is not None:
                    self._row("test_metrics", state, iteration, test)
                return
            per_atom = self._seconds_per_atom(objective)
            first = iteration == 0
            if first:
                log.info("%s", lines.initial_line(metrics, per_atom))
                if test is not None:
                    log.info("%s", lines.initial_line(test, per_atom, test=True))
            elif not shown:
                log.info("%s", lines.iteration_line(iteration, evaluations, metrics, per_atom))
            if self._minimisation[:2] != (state.ladder_step, state.cycle):
                self._minimisation = (state.ladder_step, state.cycle, iteration, time.perf_counter())
            if shown:
                log.info("%s", lines.statistics("INIT STATS" if first else "FIT STATS", iteration, metrics, per_atom))
                if self._minimisation[2] < iteration < self.settings.fit.maxiter:
                    each = (time.perf_counter() - self._minimisation[3]) / (iteration - self._minimisation[2])
                    left = timedelta(seconds=round(each * (self.settings.fit.maxiter - iteration)))
                    log.info("At most %s left of this minimisation (%.3g s per iteration)", left, each)
                self._row("metrics", state, iteration, metrics)
            if test is not None:
                title = "INIT TEST STATS" if first else "TEST STATS"
                log.info("%s", lines.statistics(title, iteration, test, per_atom))
                self._row("test_metrics", state, iteration, test)
            spent = time.perf_counter() - self._start
            if iteration <= 1 or self._interim + self._interim_cost < INTERIM_SHARE * spent:
                self._save_interim(objective, state, x)

    def cycle(self, objective: Objective, state: FitState, minimum: Minimum, optimizer_share: float) -> None:
        """Result of a finished cycle; `state.best` is the best so far; share of the optimizer in the cycle's time."""
        fit = self.settings.fit
        test = objective.evaluate_test(minimum.x) if "test" in objective.shards else None
        compared = ""
        if fit.fit_cycles > 1:
            compared = ", the best so far" if minimum is state.best else f", the best so far is {state.best.loss:.6e}"
        with self.seconds.spent_on("output"):
            log.info(
                "Cycle %d ended after %d iterations (%d evals): %s. Final loss %.6e%s. "
                "Time of the optimizer itself: %.1f %%",
                state.cycle,
                minimum.n_iterations,
                minimum.n_evaluations,
                minimum.message,
                minimum.loss,
                compared,
                100 * optimizer_share,
            )
            self._last_iteration(objective, minimum, test)
            self._save_interim(objective, state, minimum.x)
            if fit.randomize_func_coeffs:
                objective.potential_at(minimum.x).save(self.folder / f"ensemble_potential_{state.cycle}.yaml")
            if fit.fit_cycles > 1 and minimum is state.best:
                objective.potential_at(minimum.x).save(self.folder / "interim_potential_best_cycle.yaml")
            self._row("cycle_metrics", state, minimum.n_iterations, minimum.metrics)
            if test is not None:
                self._row("test_cycle_metrics", state, minimum.n_iterations, test)

    def ladder(self, objective: Objective, state: FitState) -> None:
        """Result of a finished ladder step, which is the whole fit where there is no ladder."""
        test = objective.evaluate_test(state.best.x) if "test" in objective.shards else None
        with self.seconds.spent_on("output"):
            if self.settings.fit.ladder_step is not None:
                self._last_iteration(objective, state.best, test)
                name = f"interim_potential_ladder_step_{state.ladder_step}.yaml"
                state.potential.save(self.folder / name)
                log.info("Intermediate potential saved in %s", name)
            self._row("ladder_metrics", state, state.best.n_iterations, state.best.metrics)
            if test is not None:
                self._row("test_ladder_metrics", state, state.best.n_iterations, test)

    def _last_iteration(self, objective: Objective, minimum: Minimum, test: Mapping[str, float] | None) -> None:
        """The errors at the end of a cycle."""
        per_atom = self._seconds_per_atom(objective)
        title, iteration = "Cycle last iteration:", minimum.n_iterations
        log.info("%s", lines.statistics(title, iteration, minimum.metrics, per_atom))
        if test is not None:
            log.info("%s", lines.statistics(f"TEST {title}", iteration, test, per_atom))

    def interim(self, objective: Objective, state: FitState, x: np.ndarray) -> None:
        """The potential at x as the current one of this cycle."""
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


def log_start(settings: Settings, hosts: Sequence[str]) -> None:
    """Versions, machine and settings; `hosts`: of each rank."""
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    log.info("pacehpc %s (%s)", pacehpc.__version__, libraries)
    counts = ", ".join(f"{host} ({hosts.count(host)})" for host in dict.fromkeys(hosts))
    ranks, cores = lines.counted(len(hosts), "rank"), lines.counted(os.cpu_count() or 1, "CPU")
    log.info("%s on %s; %s of each host, %s", ranks, counts, cores, processor())
    for note in settings.notes:
        log.info("%s", note)
    log.info("Settings:\n%s", settings.resolved_yaml().rstrip())


def versions() -> dict[str, str]:
    """Of Python and the libraries that numbers may depend on."""
    found = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    for library in blas_libraries():
        found[library["internal_api"]] = f"{library['version']}, {lines.counted(library['num_threads'], 'thread')}"
    if "mpi4py.MPI" in sys.modules:
        found["MPI"] = " ".join(sys.modules["mpi4py.MPI"].Get_library_version().splitlines()[0].split(",")[0].split())
    return found


def log_objective(objective: Objective) -> None:
    """Sizes of the basis, balance, time of compilation."""
    potential = objective.potential
    n_trainable = len(objective.x)
    log.info(
        "Potential: %d functions, %d parameters, %d of them trainable; kappa %.6g",
        potential.n_functions,
        potential.n_parameters,
        n_trainable,
        objective.kappa,
    )
    structures, atoms, bonds = np.array(objective.shard_sizes).T
    log.info("Data: %d structures, %d atoms, %d bonds", structures.sum(), atoms.sum(), bonds.sum())
    if objective.size > 1:
        log.info("Bonds of a rank: %d to %d (imbalance %.2f)", bonds.min(), bonds.max(), imbalance(bonds))
    log.info("Backend %s ready after %.2f s", objective.backend, objective.compile_seconds)
    for name, report in objective.reports.items():
        log.info("GPU of the first rank (%s): %s", name, report)


def log_stages(objective: Objective) -> None:
    """Time of each stage of one evaluation on this rank, and its share."""
    found = objective.stage_seconds(objective.x)
    total = max(sum(found.values()), 1e-300)
    n_atoms = max(objective.shards["train"].structures.n_atoms, 1)
    log.info("Stages of one loss and gradient on the first rank: ms, µs per atom, share")
    for name, value in (*found.items(), ("sum", total)):
        log.info("    %-22s %9.3f %8.4f %5.1f %%", name, 1e3 * value, 1e6 * value / n_atoms, 100 * value / total)


def imbalance(load: np.ndarray) -> float:
    """Largest load over mean load of the ranks."""
    return float(np.max(load) / max(np.mean(load), 1e-300))


def log_stress(*parts: Dataset | None) -> None:
    """How many structures take part in the stress term."""
    for name, data in zip(("train", "test"), parts, strict=True):
        if data is None:
            continue
        periodic = data.volumes > 0
        known = np.zeros(len(data), bool) if data.stress is None else np.isfinite(data.stress).all(axis=1)
        part = np.count_nonzero(known & periodic)
        log.log(
            logging.WARNING if part == 0 and name == "train" else logging.INFO,
            "Stress (%s): %d of %d structures take part; left out: %d without stress, %d not fully periodic",
            name,
            part,
            len(data),
            np.count_nonzero(~known),
            np.count_nonzero(known & ~periodic),
        )


def save_data(data: Dataset, name: str, **columns: Any) -> None:
    """The data as a frame in `name`.pckl.gzip, with further columns."""
    write_frame(frame_of(data, columns or None), f"{name}.pckl.gzip")


def metadata_that_lasts(found: Mapping[str, str]) -> dict[str, str]:
    """Metadata of a potential that is fitted again, without what its fit before said of its data and errors."""
    of_fit = ("reference_energy", "input_sha256", "data_sha256")
    return {key: text for key, text in found.items() if key not in of_fit and not key.startswith("final_")}


def metadata(settings: Settings, input_file: Path | None, data: Dataset, started: datetime) -> dict[str, str]:
    """What a fitted potential says about its origin."""
    found = dict(settings.metadata)
    found["starttime"] = started.isoformat(sep=" ", timespec="seconds")
    try:
        found["user"] = getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in containers
        found["user"] = "unknown"
    found["pacehpc_version"] = pacehpc.__version__
    if input_file is not None:
        found["input_sha256"] = file_hash(input_file)
    found["data_sha256"] = " ".join(data.sha256)
    if data.reference_energy is not None:
        found["reference_energy"] = json.dumps(data.reference_energy)
    return found


def save_predictions(settings: Settings, data: Dataset, which: str, prediction: Prediction, nn_min: np.ndarray) -> None:
    """{which}_pred.pckl.gzip and the figures of a data set (`which`: train, test)."""
    firsts = data.atom_offsets[:-1]
    energies = np.add.reduceat(prediction.energies, firsts)
    columns = {"energy_pred": energies, "forces_pred": data.per_structure(prediction.forces), "nn_min": nn_min}
    stress = None
    if data.stress is not None:
        stress = stresses(prediction.virials, data.volumes)
        columns["stress_pred"] = list(stress)
    save_data(data, f"{which}_pred", **columns)
    from pacehpc.report import figures  # matplotlib takes its time, and other ranks do not need it

    counts = data.atoms_per_structure
    folder, kind = Path("report"), settings.backend.imagetype
    folder.mkdir(exist_ok=True)
    reference = data.energy_corrected / counts
    figures.save_distributions(folder, reference, data.flat_forces, which, kind)
    shown = figures.Predictions(reference, energies / counts, data.flat_forces, prediction.forces, nn_min)
    figures.save_predictions(folder, shown, which, kind)
    if stress is not None:
        known = np.isfinite(data.stress).all(axis=1) & np.isfinite(stress).all(axis=1)
        if known.any():
            reference, stress = GPA * data.stress[known], GPA * stress[known]
            figures.save_stress(folder, reference, stress, which, kind)
            rmse = np.sqrt(np.mean((stress - reference) ** 2))
            log.info("Stress (%s): RMSE %.4f GPa over %d structures", which, rmse, known.sum())


def stresses(virials: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Voigt rows xx, yy, zz, yz, xz, xy (n_structures, 6), eV/Å³, of virials (n_structures, 3, 3), eV.

    NaN where a structure is not periodic in three directions (volume 0).
    """
    rows = virials[:, *VOIGT]
    return np.where(volumes[:, None] > 0, rows / np.where(volumes > 0, volumes, 1.0)[:, None], np.nan)


def save_learning_curve(settings: Settings) -> None:
    """Losses and errors over all iterations."""
    from pacehpc.report import figures

    train, test = tables.read_table("metrics.txt"), tables.read_table("test_metrics.txt")
    figures.save_learning_curve("report", train, test or None, settings.backend.imagetype)


def log_final(
    objective: Objective, iteration: int, metrics: Mapping[str, float], test: Mapping[str, float] | None, name: str
) -> None:
    """The errors of the potential as it was written to the file `name`."""
    per_atom = objective.evaluation_seconds / objective.n_evaluations / sum(n for _, n, _ in objective.shard_sizes)
    log.info("Final errors, computed with %s:\n%s", name, lines.errors_block(iteration, metrics, per_atom))
    if test is not None:
        log.info("Final errors of the test set:\n%s", lines.errors_block(iteration, test, per_atom))
    if metrics["loss"] > 0 and metrics["reg_loss"] > REGULARISATION_SHARE * metrics["loss"]:
        log.warning(
            "regularisation is %.0f %% of the loss: the fit trades accuracy for small or smooth coefficients; "
            "lower the factors of fit.loss (L1_coeffs, L2_coeffs, w0_rad, w1_rad, w2_rad, w_orth) if that is not meant",
            100 * metrics["reg_loss"] / metrics["loss"],
        )


def log_times(seconds: Mapping[str, float], rank_seconds: np.ndarray, predicted: float) -> None:
    """Time by what it was spent on, and the balance of the ranks: predicted by the cost model, and measured."""
    log.info("Time: %s", ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))
    if len(rank_seconds) > 1 and rank_seconds.sum() > 0:
        measured = imbalance(rank_seconds)
        log.info("Imbalance of the ranks (largest over mean): %.3f predicted, %.3f measured", predicted, measured)
