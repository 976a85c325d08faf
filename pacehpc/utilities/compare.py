"""`pacehpc compare`: several fits side by side."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pacehpc.errors import PacehpcError
from pacehpc.machine import processor, set_kernel_threads
from pacehpc.potential import Potential
from pacehpc.report.page.rows import Table, error, number, seconds_text, text_table
from pacehpc.report.summary import FitSummary, read_summary
from pacehpc.speed import microseconds_per_atom, training_structures
from pacehpc.utilities.command import command

log = logging.getLogger("pacehpc")

ERRORS = (("rmse_epa", "E RMSE"), ("mae_epa", "E MAE"), ("rmse_f_comp", "F RMSE"), ("mae_f_comp", "F MAE"))
PAGE = "compare.html"


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Compare fits."""
    parser = argparse.ArgumentParser(
        prog="pacehpc compare", description="Compare finished fits: sizes, errors, and the speed of their potentials."
    )
    parser.add_argument("folder", nargs="+", help="folder of a finished fit")
    parser.add_argument(
        "--html", nargs="?", const=PAGE, metavar="FILE", help=f"also write a page with errors against speed; {PAGE}"
    )
    parser.add_argument("--no-timing", action="store_true", help="do not measure the speed")
    arguments = parser.parse_args(argv)
    if arguments.html and arguments.no_timing:
        raise PacehpcError("--html shows errors against speed: leave --no-timing out.")
    fits = _read(arguments.folder)
    set_kernel_threads(1)
    speeds = [np.nan if arguments.no_timing else speed_of(Path(name), fit) for name, fit in fits.items()]
    table, notes = comparison(fits, speeds), _notes(fits, not arguments.no_timing)
    print(text_table(table))
    print("\n".join(["", *notes]))
    if arguments.html:
        from pacehpc.report.page.compare_page import Candidate, write_comparison

        which = "test" if all("test" in fit.errors for fit in fits.values()) else "train"
        found = [
            Candidate(name, speed, *(1000 * fit.errors[which][key] for key in ("rmse_epa", "rmse_f_comp")))
            for (name, fit), speed in zip(fits.items(), speeds, strict=True)
        ]
        kind = {"test": "test set", "train": "training set"}[which]
        write_comparison(Path(arguments.html), f"{len(fits)} fits compared", table, found, kind, notes)
        print(f"\n{arguments.html}")
    return 0


def _read(folders: Sequence[str]) -> dict[str, FitSummary]:
    """The fits by folder; others are named and left out."""
    fits = {}
    for name in folders:
        try:
            fits[name.rstrip("/") or name] = read_summary(name)
        except PacehpcError as problem:
            log.warning("%s Left out.", problem)
    if not fits:
        raise PacehpcError("none of the folders holds a finished fit.")
    return fits


def speed_of(folder: Path, fit: FitSummary) -> float:
    """µs per atom of energies and forces on one core of this machine, on training structures of the fit."""
    return microseconds_per_atom(Potential.load(folder / fit.potential), training_structures(folder))


def comparison(fits: dict[str, FitSummary], speeds: Sequence[float]) -> Table:
    """A row for each fit."""
    sets = [which for which in ("train", "test") if any(which in fit.errors for fit in fits.values())]
    columns = ["fit", "functions", "parameters", "rcut", *(f"{label} {which}" for _, label in ERRORS for which in sets)]
    rows = []
    for (name, fit), speed in zip(fits.items(), speeds, strict=True):
        errors = [error(1000 * fit.errors.get(which, {}).get(key, np.nan)) for key, _ in ERRORS for which in sets]
        time = seconds_text(fit.wall_seconds) + (" *" if fit.resumed else "")
        sizes = number(fit.functions, 9), number(fit.parameters, 9), f"{fit.rcut:g}"
        rows.append((name, *sizes, *errors, number(fit.evaluations, 9), time, number(speed, 3)))
    columns += ["evaluations", "wall time", "µs/atom"]
    return Table("Energies in meV/atom, forces in meV/Å, rcut in Å", columns, rows)


def _notes(fits: dict[str, FitSummary], timed: bool) -> list[str]:
    notes = []
    if timed:
        notes.append(
            f"µs/atom: energies and forces on one core ({processor()}), measured now on training structures of each "
            "fit, without neighbour lists."
        )
    if any(fit.resumed for fit in fits.values()):
        notes.append("* The fit was interrupted: the time of its last start.")
    files = {str(sorted(fit.files.items())) for fit in fits.values()}
    sizes = {(fit.structures, fit.atoms) for fit in fits.values()}
    if len(files) > 1 or len(sizes) > 1:
        notes.append("The fits differ in their data: their errors are of different structures.")
    machines = {(fit.processor, fit.ranks, fit.threads) for fit in fits.values()}
    if len(machines) > 1:
        notes.append("The fits ran on different machines or numbers of ranks: their wall times do not compare.")
    return notes
