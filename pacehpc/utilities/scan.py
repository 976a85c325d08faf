"""`pacehpc scan`: many fits with other sizes, for the best errors at each speed."""

from __future__ import annotations

import argparse
import logging
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pacehpc.config import load_settings
from pacehpc.config.models import Settings
from pacehpc.errors import PacehpcError
from pacehpc.report.page.rows import set_name, text_table
from pacehpc.scan.inputs import problem_of, space, trial_folder
from pacehpc.scan.table import scan_table
from pacehpc.scan.trial import last_words, results_of, run_trial, was_killed
from pacehpc.utilities.command import command
from pacehpc.walltime import UNFINISHED, Stop, find_deadline

if TYPE_CHECKING:
    from pacehpc.scan.study import Study

log = logging.getLogger("pacehpc")
PAGE = "scan.html"
STARTS = 3  # of a fit that is killed
FAILURES = 3  # one after the other, with no success before, that end a scan


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc scan",
        description="Fit potentials of other sizes, cutoffs, radial bases and kappas (section `scan` of the input), "
        "and show which of them no other beats in error and speed. Start it again, or several times at once, to go on.",
    )
    add = p.add_argument
    add("input", nargs="?", default="input.yaml", help="input file with a section `scan`; default: %(default)s")
    add("-n", "--ranks", type=int, default=1, help="MPI ranks of each fit; default: %(default)s")
    add("--launcher", metavar="COMMAND", help="starts each fit on its ranks; default: `mpirun -n RANKS`")
    add("-o", "--output", default="scan", metavar="FOLDER", help="of the scan; default: %(default)s")
    add("--show", action="store_true", help="show what was found so far, and stop")
    add("--max-time", metavar="H:MM:SS", help="stop cleanly (exit code 75) before this time limit")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    arguments = parser().parse_args(argv)
    from pacehpc.scan.study import Study  # needs Optuna

    settings = load_settings(arguments.input, needs=("data", "potential"))
    varied, folder = space(settings), Path(arguments.output)
    log.setLevel(logging.INFO)
    if arguments.show:
        show(Study(folder), settings, folder)
        return 0
    stop = Stop(find_deadline(arguments.max_time))
    stop.install()
    study = Study(folder, problem_of(settings))
    code = _work(study, settings, varied, folder, _launcher(arguments), stop)
    show(study, settings, folder)
    if code == UNFINISHED:
        log.warning("Stopped (%s): start the same command again to go on", stop.reason or "the fit stopped")
    return code


def _work(study: Study, settings: Settings, varied: dict, folder: Path, launcher: Sequence[str], stop: Stop) -> int:
    """Run trials until none is left, or until this worker is asked to stop."""
    failures, succeeded = 0, any(one.state == "complete" for one in study.trials())
    while not stop.due():
        trial = study.next(varied, settings.scan.trials, settings.seed)
        if trial is None:
            return 0
        values = ", ".join(f"{name} {value}" for name, value in trial.values.items())
        log.info("Trial %d: %s", trial.number, values)
        into = trial_folder(folder, trial.number)
        code = run_trial(into, trial, settings, launcher, stop)
        for _ in range(STARTS - 1):
            if was_killed(code):
                log.warning("Trial %d: its fit was killed (exit code %d); it is resumed", trial.number, code)
                code = run_trial(into, trial, settings, launcher, stop)
        if code == UNFINISHED:
            study.release(trial)
            return UNFINISHED
        if code == 0:
            results, succeeded, failures = results_of(into, settings), True, 0
            log.info("Trial %d: error %.3g meV, %.3g µs/atom", trial.number, *results)
            study.tell(trial, results)
            continue
        study.tell(trial, None)
        failures += 1
        log.warning("Trial %d failed (exit code %d): %s", trial.number, code, last_words(into))
        if failures == FAILURES and not succeeded:
            raise PacehpcError(
                f"scan: the first {failures} trials failed, the last one with: {last_words(into)}. Mend the input, and "
                f"remove {folder} or name another folder with -o."
            )
    return UNFINISHED


def _launcher(arguments: argparse.Namespace) -> list[str]:
    if arguments.ranks < 1:
        raise PacehpcError(f"-n {arguments.ranks}: at least one rank is needed.")
    if arguments.launcher:
        return shlex.split(arguments.launcher)
    if arguments.ranks == 1:
        return []
    if shutil.which("mpirun") is None:
        raise PacehpcError("-n: there is no mpirun on the path; name what starts ranks with --launcher.")
    return ["mpirun", "-n", str(arguments.ranks)]


def show(study: Study, settings: Settings, folder: Path) -> None:
    """Print the table of all trials, and write the page."""
    trials, scan = study.trials(), settings.scan
    table = scan_table(folder, trials, scan.error)
    by = "held-out training structures" if scan.choose_by == "held_out" else "the test set"
    notes = [f"Errors of {by}. µs/atom: energies and forces on one core, measured when a trial ended."]
    print("\n".join([text_table(table), "", *notes]))
    complete = [one for one in trials if one.results is not None]
    if complete:
        from pacehpc.report.page.compare_page import Candidate, write_comparison

        errors = {one.number: _rmse(trial_folder(folder, one.number)) for one in complete}
        found = [Candidate(f"{one.number}", one.results[1], *errors[one.number]) for one in complete]
        kind = set_name("test") if scan.choose_by == "test" else "held-out structures"
        write_comparison(folder / PAGE, f"A scan of {len(trials)} fits", table, found, kind, notes)
        print(folder / PAGE)


def _rmse(folder: Path) -> tuple[float, float]:
    from pacehpc.report.summary import read_summary

    try:
        errors = read_summary(folder).errors["test"]
    except PacehpcError:
        return np.nan, np.nan
    return 1000 * errors["rmse_epa"], 1000 * errors["rmse_f_comp"]
