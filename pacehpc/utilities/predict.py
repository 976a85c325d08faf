"""`pacehpc predict`: energies, forces, stresses, extrapolation grades and uncertainties of any structures."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping, Sequence

import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from pacehpc.active.active_set import ActiveSet, warn_of_extrapolation
from pacehpc.active.data_rows import DataRows, Predicted
from pacehpc.active.distance import load_distances
from pacehpc.active.structure_files import Candidates, read_structures
from pacehpc.dataset.frames import write_frame
from pacehpc.dataset.groups import possible_labels
from pacehpc.errors import PacehpcError
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential
from pacehpc.report.grades import grade_table
from pacehpc.uncertainty.build import compile_for_deviations
from pacehpc.uncertainty.calibration import LEVELS
from pacehpc.uncertainty.model import Uncertainty
from pacehpc.utilities.command import ready_backend, run_on_ranks

COLUMNS = {"grades": "gamma", "distances": "distance_grade"}
log = logging.getLogger("pacehpc")


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc predict",
        description="Evaluate a potential on structures of any files. With mpirun they are distributed over the ranks.",
    )
    add = p.add_argument
    add("potential", help="potential file (.yaml or .yace)")
    add("dataset", nargs="+", help="data files, LAMMPS dumps, POSCAR files or folders")
    add("-a", "--active-set", dest="active_set", metavar="ASI", help="active set (.asi): extrapolation grades of atoms")
    add("--distance", metavar="FILE", help="NAME.distance.npz of `pacehpc activeset --distance`: distance grades")
    add("--uq", metavar="FILE", help="NAME.uq.npz of `pacehpc uq build`: standard deviations and intervals")
    add("-e", "--elements", help='elements of the types 1, 2, … of LAMMPS dumps, such as "Ni Nb"')
    add("-o", "--output", default="pred.pckl.gzip", help="frame (.pckl.gzip) or .extxyz; default: %(default)s")
    add("--backend", default="auto", help="auto, cpu, cuda or reference; default: %(default)s")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return run(parser().parse_args(argv))


def run(arguments: argparse.Namespace) -> int:
    """Predict with these options, on all ranks; the exit code."""
    return run_on_ranks(_predict, arguments)


def _check_output(name: str) -> None:
    if not name.endswith((".pckl.gzip", ".pkl.gz", ".pckl.gz", ".pkl.gzip", ".extxyz", ".xyz")):
        raise PacehpcError(f"-o {name}: the name must end in .pckl.gzip, .pkl.gz or .extxyz.")


def _predict(arguments: argparse.Namespace, ranks: Ranks) -> int:
    start = time.perf_counter()
    ranks.on_root(lambda: _check_output(arguments.output))
    potential = ranks.share(lambda: Potential.load(arguments.potential))
    active_set = None
    if arguments.active_set:
        active_set = ranks.share(lambda: ActiveSet.load(arguments.active_set, potential))
    distances = ranks.share(lambda: load_distances(arguments.distance)) if arguments.distance else None
    uncertainty = ranks.share(lambda: _uncertainty(arguments, potential))
    types = (arguments.elements or "").replace(",", " ").split()
    data = ranks.share(lambda: read_structures(arguments.dataset, types))
    graded = active_set is not None or distances is not None
    backend = ready_backend(arguments.backend, potential, ranks, rows=graded)
    if uncertainty is not None:
        compile_for_deviations(backend, potential, ranks)
    rows = DataRows(data.atoms, potential, backend, ranks.rank, ranks.size)
    parts = ranks.gather(list(rows.predictions(active_set, distances, uncertainty)))

    def write() -> None:
        found = [one for part in parts for one in part]
        names = ["grades"] * (active_set is not None) + ["distances"] * (distances is not None)
        spreads = None if uncertainty is None else [_spread(uncertainty, data, one) for one in found]
        _write(data, found, arguments.output, {COLUMNS[name]: name for name in names}, spreads)
        if active_set is not None:
            grades = np.concatenate([one.grades for one in found])
            errors = None
            if data.forces is not None:
                forces = np.concatenate([one.forces for one in found])
                errors = np.linalg.norm(forces - np.concatenate(data.forces), axis=1)
            for line in grade_table(grades, data.atom_groups, errors):
                log.info("%s", line)
            if uncertainty is not None:
                warn_of_extrapolation(grades, f"{arguments.output}: ")
        log.info("%s: %d structures; %.1f s", arguments.output, len(found), time.perf_counter() - start)

    ranks.on_root(write)
    return 0


def _uncertainty(arguments: argparse.Namespace, potential: Potential) -> Uncertainty | None:
    return Uncertainty.load(arguments.uq, potential, arguments.potential) if arguments.uq else None


def _spread(uncertainty: Uncertainty, data: Candidates, one: Predicted) -> dict[str, float | np.ndarray]:
    """Standard deviations and half widths of the intervals of a structure, by column."""
    name = data.columns["name"][one.number] if "name" in data.columns else ""
    labels = possible_labels(name or "", data.infos[one.number])
    group = next((label for label in labels if label in uncertainty.groups), None)
    columns: dict[str, float | np.ndarray] = {"energy_std": one.energy_std, "forces_std": one.forces_std}
    for kind, column, std in (("energies", "energy", one.energy_std), ("forces", "forces", one.forces_std)):
        if getattr(uncertainty, kind) is not None:
            for level, factor in zip(LEVELS, uncertainty.quantiles(kind, group), strict=True):
                columns[f"{column}_interval_{100 * level:.0f}"] = factor * std
    return columns


def _write(
    data: Candidates,
    found: list[Predicted],
    output: str,
    graded: Mapping[str, str],
    spreads: list[dict[str, float | np.ndarray]] | None,
) -> None:
    if output.endswith("xyz"):
        frames = []
        for one in found:
            atoms = data.atoms[one.number].copy()
            stress = None if np.isnan(one.stress).any() else one.stress
            atoms.calc = SinglePointCalculator(atoms, energy=one.energy, forces=one.forces, stress=stress)
            for column, name in graded.items():
                atoms.arrays[column] = getattr(one, name)
            for column, values in ({} if spreads is None else spreads[one.number]).items():
                (atoms.info if column.startswith("energy") else atoms.arrays)[column] = values
            frames.append(atoms)
        ase.io.write(output, frames, format="extxyz", parallel=False)  # by the root alone
        return
    frame = data.frame(range(len(found)))
    frame["energy_pred"] = [one.energy for one in found]
    frame["forces_pred"] = [one.forces for one in found]
    frame["stress_pred"] = [one.stress for one in found]
    for column, name in graded.items():
        frame[column] = [getattr(one, name) for one in found]
        frame[f"{column}_max"] = [float(getattr(one, name).max()) for one in found]
    for column in () if spreads is None else spreads[0]:
        frame[column] = [spread[column] for spread in spreads]
    write_frame(frame, output)
