"""What a run leaves in its folder beside the record of its fit: log lines, predictions, figures. Used by the root."""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

import pacehpc
from pacehpc.dataset import frame_of, write_frame
from pacehpc.dataset.files import file_hash
from pacehpc.fit.record import TABLES
from pacehpc.fit.shears import warn_of_shears
from pacehpc.machine import blas_libraries, processor
from pacehpc.metrics import GPA
from pacehpc.report import groups, lines
from pacehpc.report.predictions import Compared
from pacehpc.structures import VOIGT
from pacehpc.uncertainty.model import uq_name

if TYPE_CHECKING:
    from pacehpc.backends.interface import Prediction
    from pacehpc.config.models import Settings
    from pacehpc.dataset import Dataset
    from pacehpc.objective import Objective

log = logging.getLogger("pacehpc")

RESULTS = (
    "target_potential.yaml",
    "interim_potential_*.yaml",
    "ensemble_potential_*.yaml",
    "fitting_data_info.pckl.gzip",
    "test_data_info.pckl.gzip",
    "train_pred.pckl.gzip",
    "test_pred.pckl.gzip",
    *(f"{name}.txt" for name in TABLES),
    "fit_summary.json",
    "report",
)
REGULARISATION_SHARE = 0.05  # of the loss above which regularisation is worth a warning
FINAL_ERRORS = ("loss", "rmse_epa", "rmse_f_comp", "mae_epa", "mae_f_comp")


def results_here(folder: Path, output: str, log_file: str) -> list[Path]:
    """What an earlier fit left in this folder."""
    named = {folder / name for name in (output, uq_name(output), log_file) if (folder / name).exists()}
    return sorted(named.union(*(folder.glob(name) for name in RESULTS)))


def log_start(settings: Settings, hosts: Sequence[str], threads: Mapping[str, int]) -> None:
    """Log versions, machine and settings; hosts: of each rank."""
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    log.info("pacehpc %s (%s)", pacehpc.__version__, libraries)
    counts = ", ".join(f"{host} ({hosts.count(host)})" for host in dict.fromkeys(hosts))
    ranks, cores = lines.counted(len(hosts), "rank"), lines.counted(os.cpu_count() or 1, "CPU")
    log.info("%s on %s; %s of each host, %s", ranks, counts, cores, processor())
    for note in settings.notes:
        log.info("%s", note)
    for warning in settings.warnings:
        log.warning("%s", warning)
    log.info("Settings:\n%s", settings.resolved_yaml().rstrip())
    log.info("Threads per rank: %d (kernels), %d (BLAS)", threads["kernels"], threads["blas"])


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
    if objective.ranks.size > 1:
        log.info("Bonds per rank: %d to %d (imbalance %.2f)", bonds.min(), bonds.max(), imbalance(bonds))
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
        log.info(
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


def save_data_of_fit(data: Mapping[str, Dataset]) -> None:
    """Write the data by name with their weights."""
    for name, part in data.items():
        save_data(part, "fitting_data_info" if name == "train" else "test_data_info")


def log_stopped(reason: str) -> None:
    """Say that the fit is unfinished; reason: "" where another rank was asked to stop."""
    log.warning(
        "Stopped cleanly (%s). The fit is unfinished; run the same command to resume it", reason or "another rank"
    )


def metadata_that_lasts(found: Mapping[str, str]) -> dict[str, str]:
    """Metadata of a potential that is fitted again, without what its fit before said of its data and errors."""
    of_fit = ("reference_energy", "input_sha256", "data_sha256", "loss_weights")
    return {key: text for key, text in found.items() if key not in of_fit and not key.startswith("final_")}


def metadata(given: Mapping[str, str], input_file: Path | None, data: Dataset, started: datetime) -> dict[str, str]:
    """What a fitted potential says about its origin; given: in the input."""
    found = dict(given)
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


def compare(
    data: Dataset,
    which: str,
    labels: np.ndarray,
    energies: np.ndarray,
    forces: np.ndarray,
    stress: np.ndarray | None,
    nn_min: np.ndarray,
) -> Compared:
    """A data set beside what the potential says of it.

    Args:
        data: the set.
        which: train or test.
        labels: groups of the structures, (n_structures,).
        energies: predicted, (n_structures,), eV.
        forces: predicted, (n_atoms, 3), eV/Å.
        stress: predicted, (n_structures, 6), eV/Å³; None where the data have none.
        nn_min: shortest distances, (n_structures,), Å.
    """
    counts = data.atoms_per_structure
    known_forces = np.isfinite(data.flat_forces).all(axis=1) & (data.flat_w_forces != 0)
    return Compared(
        which=which,
        labels=data.index,
        names=data.names,
        files=[data.sources[k] for k in data.source],
        groups=labels,
        atom_offsets=data.atom_offsets,
        numbers=data.numbers,
        volumes=data.volumes,
        nn_min=nn_min,
        energy=np.where(data.w_energy != 0, data.energy_corrected, np.nan) / counts,
        energy_pred=energies / counts,
        forces=np.where(known_forces[:, None], data.flat_forces, np.nan),
        forces_pred=forces,
        stress=None if stress is None else GPA * data.stress,
        stress_pred=None if stress is None else GPA * stress,
    )


def save_tables(
    data: Dataset,
    which: str,
    labels: np.ndarray,
    prediction: Prediction,
    nn_min: np.ndarray,
    spread: tuple[np.ndarray, list[np.ndarray]] | None = None,
) -> tuple[Compared, dict[str, Any]]:
    """Write the tables of report/; returns what figures show, and the columns of {which}_pred.pckl.gzip.

    Args:
        data: the set.
        which: train or test.
        labels: groups of the structures, (n_structures,).
        prediction: of the potential.
        nn_min: shortest distances, (n_structures,), Å.
        spread: standard deviations of energies, (n_structures,), eV, and of the forces of each structure, eV/Å.
    """
    energies = np.add.reduceat(prediction.energies, data.atom_offsets[:-1])
    columns = {"energy_pred": energies, "forces_pred": data.per_structure(prediction.forces), "nn_min": nn_min}
    stress = None
    if data.stress is not None:
        stress = stresses(prediction.virials, data.volumes)
        columns["stress_pred"] = list(stress)
    if spread is not None:
        columns |= {"energy_std": spread[0], "forces_std": spread[1]}
    Path("report").mkdir(exist_ok=True)
    compared = compare(data, which, labels, energies, prediction.forces, stress, nn_min)
    if spread is not None:
        of_energies, of_forces = spread[0] / data.atoms_per_structure, np.concatenate(spread[1])
        compared = replace(compared, energy_std=of_energies, forces_std=of_forces)
    save_groups(compared.errors, which, Path("report"))
    if stress is not None:
        warn_of_shears(data.stress, stress, compared.groups, which)
        if (known := compared.known_stress).any():
            rmse = np.sqrt(np.mean((compared.stress_pred[known] - compared.stress[known]) ** 2))
            log.info("Stress (%s): RMSE %.4f GPa over %d structures", which, rmse, known.sum())
    return compared, columns


def save_groups(errors: groups.StructureErrors, which: str, folder: Path) -> None:
    """Write {which}_groups.csv, where the data have groups, and {which}_worst.csv; both in the log as well."""
    rows = groups.group_rows(errors) if len(errors.group_names) > 1 else []
    if rows:
        groups.write_rows(folder / f"{which}_groups.csv", groups.GROUP_COLUMNS, rows)
        log.info("Errors by group (%s):\n%s", which, groups.groups_text(rows))
    worst = groups.worst_rows(errors)
    groups.write_rows(folder / f"{which}_worst.csv", groups.WORST_COLUMNS, worst)
    log.info("Worst structures (%s):\n%s", which, groups.worst_text(worst, bool(rows)))


def stresses(virials: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Voigt rows xx, yy, zz, yz, xz, xy (n_structures, 6), eV/Å³, of virials (n_structures, 3, 3), eV.

    NaN where a structure is not periodic in three directions (volume 0).
    """
    rows = virials[:, *VOIGT]
    return np.where(volumes[:, None] > 0, rows / np.where(volumes > 0, volumes, 1.0)[:, None], np.nan)


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
