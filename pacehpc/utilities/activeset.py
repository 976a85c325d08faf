"""`pacehpc activeset`, `pace_activeset`: the active set of a potential, for extrapolation grades."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pacehpc.active.active_set import FULL_SUFFIX, TOLERANCE, ActiveSet
from pacehpc.active.choose import Chosen, Limits, choose
from pacehpc.active.data_rows import DataRows, outliers
from pacehpc.active.distance import learn, save_distances
from pacehpc.active.order import column_functions, column_order
from pacehpc.active.structure_files import Candidates, read_structures
from pacehpc.errors import PacehpcError
from pacehpc.machine import available_memory
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential
from pacehpc.replacing import replacing
from pacehpc.report.folder import GRADES
from pacehpc.report.grades import grade_table, save_grades
from pacehpc.report.summary import NAME as SUMMARY
from pacehpc.utilities.command import ready_backend, run_on_ranks
from pacehpc.utilities.report import remake_page

log = logging.getLogger("pacehpc")
SWEEPS = 100
TEST = "test_pred.pckl.gzip"


def add_search_options(add, sweeps: int) -> None:
    """Options that all commands with a MaxVol search share; `add` is the parser's add_argument."""
    add("-b", "--batch_size", metavar="N", help="accepted, no meaning here (memory decides)")
    add(
        "-g", "--gamma_tolerance", type=float, default=TOLERANCE, help="largest grade of the data; default: %(default)s"
    )
    add("-i", "--maxvol_iters", type=int, default=300, help="exchanges per sweep at most; default: %(default)s")
    add(
        "-r", "--maxvol_refinement", type=int, default=sweeps, help="sweeps over the data at most; default: %(default)s"
    )
    add("-m", "--memory-limit", dest="memory", type=float, metavar="GB", help="for rows kept between sweeps, per rank")
    add("-V", "--verbose", action="store_true", help="accepted, no meaning here")
    add("--backend", default="auto", help="auto, cpu, cuda or reference; default: %(default)s")


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc activeset",
        description="Choose the active set of a potential among the atoms of its training data and write it beside the "
        "potential as .asi. With mpirun the atoms are distributed over the ranks; the set is the same on any number.",
    )
    add = p.add_argument
    add("potential", help="potential file (.yaml or .yace)")
    add("-d", "--dataset", nargs="+", action="extend", required=True, metavar="FILE", help="training data")
    add("-q", "--query", help="use the rows for which this pandas query holds, such as \"name.str.startswith('A')\"")
    add("-f", "--full", action="store_true", help=f"rows of ∂E/∂c instead of B functions; written as {FULL_SUFFIX}")
    add("-e", "--error-limit", type=float, metavar="LIMIT", help="leave out atoms with a larger force error, eV/Å")
    add("-a", "--all", action="store_true", help="use all atoms, whatever their force errors")
    add("--distance", action="store_true", help="also write the distance grade, NAME.distance.npz: it sees lost bonds")
    add("-o", "--output", help="file to write; default: the potential's name with .asi")
    add_search_options(add, SWEEPS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return run_on_ranks(_activeset, parser().parse_args(argv))


def _activeset(arguments: argparse.Namespace, ranks: Ranks) -> int:
    start = time.perf_counter()
    limits = ranks.share(lambda: _checked_limits(arguments))
    potential = ranks.share(lambda: Potential.load(arguments.potential))
    data = ranks.share(lambda: _queried(read_structures(arguments.dataset), arguments.query))
    backend = ready_backend(arguments.backend, potential, ranks, rows=True)
    rows = DataRows(
        data.atoms, potential, backend, ranks.rank, ranks.size, arguments.full, row_memory(arguments, ranks)
    )
    if not arguments.all:
        rows.left_out = _left_out(rows, data, ranks, arguments.error_limit)
    chosen = choose(rows.blocks, rows.sizes(), ranks, limits)
    distances = {}
    if arguments.distance:
        distances = learn(rows.blocks, {element: choice.n_atoms for element, choice in chosen.items()}, ranks)

    def write() -> None:
        log_choice(chosen, potential, limits)
        inverses = {element: choice.inverse for element, choice in chosen.items()}
        for element in potential.elements:  # LAMMPS wants every element
            n = len(column_functions(potential, element)) * (
                potential.embeddings[element].ndensity if arguments.full else 1
            )
            if element not in inverses and n:
                log.warning("%s: no atom of it in the data; every grade of its atoms will be 0", element)
                inverses[element] = np.zeros((n, n))
        path = Path(arguments.output or asi_name(arguments.potential, arguments.full))
        ActiveSet(inverses, arguments.full).save(path)
        if distances:
            name = distance_name(arguments.potential)
            save_distances(distances, name)
            log.info("%s written", name)
        log.info("%s written; %.1f s", path, time.perf_counter() - start)

    ranks.on_root(write)
    if not arguments.full:
        _report_grades(Path(arguments.potential).parent, potential, chosen, backend, ranks)
    return 0


def _report_grades(folder: Path, potential: Potential, chosen: dict[str, Chosen], backend: str, ranks: Ranks) -> None:
    """Add the grades of a fit's test data to its report, if the potential stands in the folder of its fit."""
    data = ranks.share(lambda: read_structures([str(folder / TEST)]) if (folder / TEST).exists() else None)
    if data is None or data.forces is None or not set(data.symbols.tolist()) <= set(chosen):
        return
    active_set = ActiveSet({element: choice.inverse for element, choice in chosen.items()})
    rows = DataRows(data.atoms, potential, backend, ranks.rank, ranks.size)
    parts = ranks.gather(list(rows.predictions(active_set)))

    def write() -> None:
        found = [one for part in parts for one in part]
        grades = np.concatenate([one.grades for one in found])
        errors = np.linalg.norm(np.concatenate([one.forces for one in found]) - np.concatenate(data.forces), axis=1)
        for line in grade_table(grades, data.atom_groups, errors):
            log.info("%s", line)
        log.info("%s written", save_grades(folder / "report", "test", grades, errors, data.atom_groups))
        if (folder / SUMMARY).exists():
            with replacing(folder / "report" / GRADES.format("test")) as beside, open(beside, "wb") as file:
                np.savez(file, gamma=grades)
            try:
                log.info("%s shows them", remake_page(folder))
            except Exception as error:  # the active set is there, whatever the page lacks
                log.warning("report/index.html could not be written: %s", error)

    ranks.on_root(write)


def asi_name(potential: str, full: bool = False) -> str:
    """Return the name of the active set that belongs to a potential file."""
    return str(Path(potential).with_suffix(FULL_SUFFIX if full else ".asi"))


def distance_name(potential: str) -> str:
    """Return the name of the file of the distance grade that belongs to a potential file."""
    return str(Path(potential).with_suffix(".distance.npz"))


def _checked_limits(arguments: argparse.Namespace) -> Limits:
    if arguments.distance and arguments.full:
        raise PacehpcError("--distance is made of B functions; leave -f out.")
    return search_limits(arguments)


def search_limits(arguments: argparse.Namespace) -> Limits:
    """Check the options of a search and return its limits."""
    if arguments.gamma_tolerance <= 1.0:
        raise PacehpcError(f"-g {arguments.gamma_tolerance}: the tolerance must be above 1, such as 1.01.")
    if arguments.maxvol_iters < 1 or arguments.maxvol_refinement < 1:
        raise PacehpcError("-i and -r: at least 1 is needed.")
    return Limits(arguments.gamma_tolerance, arguments.maxvol_iters, arguments.maxvol_refinement)


def row_memory(arguments: argparse.Namespace, ranks: Ranks) -> float:
    """Bytes of rows that this rank may keep: what is asked for, else half of what its share of the node has free."""
    if arguments.memory is not None:
        return arguments.memory * 1e9
    return 0.5 * (available_memory() or 0) / ranks.node_size


def _queried(data: Candidates, query: str | None) -> Candidates:
    if query is None:
        return data
    plain = {name: values for name, values in data.columns.items() if name not in ("forces", "w_forces", "stress")}
    table = pd.DataFrame(plain | {"NUMBER_OF_ATOMS": [len(atoms) for atoms in data.atoms]})
    try:
        kept = table.query(query, engine="python").index.tolist()
    except Exception as error:  # pandas evaluates what the user wrote
        raise PacehpcError(f"-q {query!r}: {error}; the columns are {', '.join(table.columns)}.") from error
    if not kept:
        raise PacehpcError(f"-q {query!r}: no row is left.")
    found = Candidates()
    columns = {name: [values[k] for k in kept] for name, values in data.columns.items()}
    infos = [data.infos[k] for k in kept]
    found.add([data.atoms[k] for k in kept], [data.origins[k] for k in kept], columns, infos)
    return found


def _left_out(rows: DataRows, data: Candidates, ranks: Ranks, limit: float | None) -> np.ndarray:
    """Atoms whose forces the potential misses by too much, the same on all ranks."""
    forces = data.forces
    if forces is None:
        ranks.on_root(lambda: log.info("The data have no forces to compare: all atoms are used"))
        return rows.left_out
    errors = ranks.sum(rows.force_errors(forces))
    found = outliers(errors, data.symbols, limit)
    why = "outliers of their element" if limit is None else f"above {limit:g} eV/Å"
    ranks.on_root(
        lambda: log.info(
            "Left out: %d of %d atoms whose force errors are %s (-a uses all)", found.sum(), len(found), why
        )
    )
    return found


def log_choice(chosen: dict[str, Chosen], potential: Potential, limits: Limits) -> None:
    """Log what was chosen, and which functions the data do not determine."""
    for element, choice in chosen.items():
        log.info(
            "%s: %d atoms, %d functions, rank %d, condition %.1e, log|det| %.3f, %d exchanges in %d sweeps, "
            "largest grade of the data %.4f",
            element, choice.n_atoms, len(choice.inverse), len(choice.atoms), choice.condition,
            choice.log_determinant, choice.n_exchanges, choice.n_sweeps, choice.largest,
        )  # fmt: skip
        if not choice.converged:
            log.warning(
                "%s: grades up to %.3f are left in the data after %d sweeps; -r allows more",
                element, choice.largest, limits.max_sweeps,
            )  # fmt: skip
        if len(choice.undetermined):
            log.warning(
                "%s: the data do not determine %d of its %d functions, whose values do not enter the grades: %s",
                element, len(choice.undetermined), len(choice.inverse),
                _names(potential, element, choice.undetermined),
            )  # fmt: skip


def _names(potential: Potential, element: str, columns: np.ndarray, most: int = 5) -> str:
    order, functions = column_order(potential, element), column_functions(potential, element)
    names = []
    for column in columns[:most].tolist():
        f = functions[order[column % len(order)]]
        names.append(f"{' '.join(f.elements)} n={list(f.ns)} l={list(f.ls)}")
    return "; ".join(names) + (f"; and {len(columns) - most} more" if len(columns) > most else "")
