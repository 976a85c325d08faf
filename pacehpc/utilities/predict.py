"""`pacehpc predict`: energies, forces, stresses and extrapolation grades of any structures."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping, Sequence

import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from pacehpc.active.active_set import ActiveSet
from pacehpc.active.data_rows import DataRows, Predicted
from pacehpc.active.distance import load_distances
from pacehpc.active.structure_files import Candidates, read_structures
from pacehpc.dataset.frames import write_frame
from pacehpc.errors import PacehpcError
from pacehpc.objective import agreed_backend
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential
from pacehpc.report.grades import grade_table
from pacehpc.utilities.command import run_on_ranks

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
    add("-e", "--elements", help='elements of the types 1, 2, … of LAMMPS dumps, such as "Ni Nb"')
    add("-o", "--output", default="pred.pckl.gzip", help="frame (.pckl.gzip) or .extxyz; default: %(default)s")
    add("--backend", default="auto", help="auto, cpu, cuda or reference; default: %(default)s")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return run_on_ranks(_predict, parser().parse_args(argv))


def _predict(arguments: argparse.Namespace, ranks: Ranks) -> int:
    start = time.perf_counter()
    if not arguments.output.endswith((".pckl.gzip", ".pkl.gz", ".pckl.gz", ".pkl.gzip", ".extxyz", ".xyz")):
        raise PacehpcError(f"-o {arguments.output}: the name must end in .pckl.gzip, .pkl.gz or .extxyz.")
    potential = ranks.share(lambda: Potential.load(arguments.potential))
    active_set = None
    if arguments.active_set:
        active_set = ranks.share(lambda: ActiveSet.load(arguments.active_set, potential))
    distances = ranks.share(lambda: load_distances(arguments.distance)) if arguments.distance else None
    types = (arguments.elements or "").replace(",", " ").split()
    data = ranks.share(lambda: read_structures(arguments.dataset, types))
    rows = DataRows(data.atoms, potential, agreed_backend(arguments.backend, ranks), ranks.rank, ranks.size)
    parts = ranks.gather(list(rows.predictions(active_set, distances)))

    def write() -> None:
        found = [one for part in parts for one in part]
        names = ["grades"] * (active_set is not None) + ["distances"] * (distances is not None)
        _write(data, found, arguments.output, {COLUMNS[name]: name for name in names})
        if active_set is not None:
            grades = np.concatenate([one.grades for one in found])
            errors = None
            if data.forces is not None:
                forces = np.concatenate([one.forces for one in found])
                errors = np.linalg.norm(forces - np.concatenate(data.forces), axis=1)
            for line in grade_table(grades, data.atom_groups, errors):
                log.info("%s", line)
        log.info("%s: %d structures; %.1f s", arguments.output, len(found), time.perf_counter() - start)

    ranks.on_root(write)
    return 0


def _write(data: Candidates, found: list[Predicted], output: str, graded: Mapping[str, str]) -> None:
    if output.endswith("xyz"):
        frames = []
        for one in found:
            atoms = data.atoms[one.number].copy()
            stress = None if np.isnan(one.stress).any() else one.stress
            atoms.calc = SinglePointCalculator(atoms, energy=one.energy, forces=one.forces, stress=stress)
            for column, name in graded.items():
                atoms.arrays[column] = getattr(one, name)
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
    write_frame(frame, output)
