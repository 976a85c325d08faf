"""The command `pacehpc [input.yaml]`, on one rank or many."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pacehpc
from pacehpc import parallel
from pacehpc.checkpoint import state as checkpoint
from pacehpc.checkpoint.files import FULL_OR_FORBIDDEN, cannot_write
from pacehpc.checkpoint.lock import Lock
from pacehpc.errors import PacehpcError, print_anything
from pacehpc.late_files import wait_for_listed
from pacehpc.parallel import Ranks
from pacehpc.walltime import Stop, find_deadline

DESCRIPTION = """Fit an atomic cluster expansion (PACE) potential to energies, forces and stresses.
On several ranks: mpirun -n 16 pacehpc input.yaml
Active learning and uncertainty, on any ranks: pacehpc activeset | predict | select | augment | corerep | uq
Many fits, and finished ones: pacehpc scan | report | compare
Other programs: pacehpc info | timing | validate | yaml2yace | collect | data | template | compile | lammps
Each of them explains its options with -h."""

SUBCOMMANDS = {
    "info": "pacehpc.utilities.info",
    "report": "pacehpc.utilities.report",
    "compare": "pacehpc.utilities.compare",
    "scan": "pacehpc.utilities.scan",
    "timing": "pacehpc.utilities.timing",
    "yaml2yace": "pacehpc.utilities.yaml2yace",
    "corerep": "pacehpc.utilities.corerep",
    "collect": "pacehpc.utilities.collect",
    "data": "pacehpc.utilities.data",
    "template": "pacehpc.utilities.template",
    "compile": "pacehpc.utilities.compile",
    "lammps": "pacehpc.utilities.lammps",
    "validate": "pacehpc.utilities.validate",
    "activeset": "pacehpc.utilities.activeset",
    "select": "pacehpc.utilities.select",
    "predict": "pacehpc.utilities.predict",
    "augment": "pacehpc.utilities.augment",
    "uq": "pacehpc.utilities.uq",
}
"""Modules whose main(argv) does what the name says; a file of such a name is given as ./info."""
SHORT = {"-t", "--template", "-c", "--clean"}
"""Options that start no fit and therefore need no clean shutdown."""


class _Parser(argparse.ArgumentParser):
    """Prints on the first rank alone; a launcher starts this program on many."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if parallel.launcher_rank() == 0:
            super()._print_message(message, file)


class _Version(argparse.Action):
    """Looks the version up only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser._print_message(f"pacehpc {pacehpc.__version__}\n", sys.stdout)
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """All options of the command."""
    p = _Parser(prog="pacehpc", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument
    add("input", nargs="?", help="input file; default: input.yaml")
    add("-c", "--clean", action="store_true", help="list and remove the outputs of earlier runs in this folder")
    add("-o", "--output", default="output_potential.yaml", help="fitted potential; default: %(default)s")
    add("-p", "--potential", metavar="FILE", help="continue fitting this potential, with its own basis")
    add("-ip", "--initial-potential", nargs="+", metavar="FILE", help="start from these potentials")
    add("-b", "--backend", help="auto, cpu, cuda or reference")
    add("-d", "--data", nargs="+", metavar="FILE", help="data to fit")
    add("-l", "--log", default="log.txt", help="log, appended; default: %(default)s")
    add("--query-data", action="store_true", help="fetch the data from a database, prepare it, and stop")
    add("--prepare-data", action="store_true", help="prepare the data (neighbour lists), and stop")
    add("--rebuild", "-rebuild", action="store_true", help="prepare the data again")
    add("-dr", "--dry-run", action="store_true", help="show what would be fitted, and stop")
    add("-t", "--template", action="store_true", help="write an input file to start from; -t -h shows its options")
    add("-v", "--version", action=_Version, nargs=0, help="show the version")
    add("--no-fit", action="store_true", help="evaluate the potential without fitting")
    add("--no-predict", action="store_true", help="no predictions and figures after the fit")
    add("--restart", action="store_true", help="resume an unfinished fit; an error if there is none")
    add("--fresh", action="store_true", help="move the results of an earlier fit aside and start again")
    add("--force-restart", action="store_true", help="resume an unfinished fit although data or settings changed")
    add("--max-time", metavar="H:MM:SS", help="stop cleanly (exit code 75) before this time limit")
    add("--profile", action="store_true", help="log the time of each stage; NVTX ranges on a GPU")
    add("--verbose-tf", action="store_true", help="accepted, no meaning here")
    return p


def main(argv: Sequence[str] | None = None, stop: Stop | None = None) -> int:
    """The exit code of the command; stop: catches signals already; None: they are caught from here on."""
    started = time.time()
    print_anything()
    argv = sys.argv[1:] if argv is None else list(argv)
    if stop is not None and ((argv and argv[0] in SUBCOMMANDS) or not SHORT.isdisjoint(argv)):
        stop.uninstall()
    if argv and argv[0] in SUBCOMMANDS:
        return _subcommand(SUBCOMMANDS[argv[0]], argv[1:])
    if {"-t", "--template"} & set(argv):
        rest = [argument for argument in argv if argument not in ("-t", "--template")]
        return _subcommand("pacehpc.utilities.template", rest) if parallel.launcher_rank() == 0 else 0
    arguments = parser().parse_args(argv)
    if arguments.clean:
        rest = [arguments.input] if arguments.input else []
        return _subcommand("pacehpc.utilities.clean", rest) if parallel.launcher_rank() == 0 else 0
    if stop is None:
        stop = Stop()
        stop.install()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        ranks = Ranks.world()
    except PacehpcError as error:
        if parallel.launcher_rank() == 0:
            print(f"ERROR: {error}", file=sys.stderr)
        return 1
    try:
        return parallel.run(lambda: program(arguments, ranks, stop, started), ranks)
    finally:
        parallel.close_logging()
        stop.ignore()


def _take_back_input(arguments: argparse.Namespace) -> None:
    """The input in `-ip old.yaml input.yaml` and `-d data.pckl.gzip input.yaml`, whose options take several names."""
    for option in ("initial_potential", "data"):
        names = getattr(arguments, option) or []
        if arguments.input is not None or len(names) < 2 or not names[-1].endswith((".yaml", ".yml")):
            continue
        try:
            is_potential = "species" in Path(names[-1]).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if not is_potential:
            arguments.input = names.pop()


def _subcommand(module: str, argv: Sequence[str]) -> int:
    try:
        return import_module(module).main(argv)
    except PacehpcError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def program(arguments: argparse.Namespace, ranks: Ranks, stop: Stop, started: float) -> int:
    """Settings, the folder's state, and the fit; started: seconds since the epoch."""
    settings = ranks.share(lambda: _settings(arguments))
    lock = Lock(Path.cwd()) if ranks.root else None  # a dry run writes prepared data, too
    ranks.on_root(lambda: lock and lock.acquire())
    try:
        return _locked(settings, arguments, ranks, stop, started, lock)
    except OSError as error:
        if error.errno not in FULL_OR_FORBIDDEN:
            raise
        raise cannot_write(Path(error.filename or Path.cwd()), error) from error
    finally:
        if lock is not None:
            lock.release()


def _locked(
    settings: Any, arguments: argparse.Namespace, ranks: Ranks, stop: Stop, started: float, lock: Lock | None
) -> int:
    from pacehpc.fit.plan import Tasks
    from pacehpc.fit.run import run
    from pacehpc.uncertainty.model import uq_name
    from pacehpc.utilities.clean import record, remove_leftovers

    prepares = arguments.prepare_data or arguments.query_data
    fits = _fits(arguments)
    if not fits:
        stop.end_at_once()  # nothing that a later start could resume
    outputs = [arguments.output, uq_name(arguments.output), arguments.log]
    ranks.on_root(lambda: _wait_for_files(outputs))
    moved, resume = ranks.on_root(lambda: _resume_or_fresh(arguments, fits)) or (None, None)
    ranks.on_root(lambda: (remove_leftovers(Path.cwd(), outputs), record(Path.cwd(), outputs)))
    parallel.setup_logging(ranks, None if arguments.dry_run else arguments.log)
    if moved:
        parallel.log.info("Results of an earlier fit moved to %s", moved)
    if lock is not None and lock.taken_over:
        parallel.log.warning("Took over the lock of this folder, which was left by %s", lock.taken_over)
    if arguments.verbose_tf:
        parallel.log.info("--verbose-tf: accepted, no meaning here")
    stop.deadline = ranks.on_root(lambda: find_deadline(arguments.max_time, started=started))
    if stop.deadline is not None:
        parallel.log.info("Time until %s", datetime.fromtimestamp(stop.deadline).isoformat(" ", "seconds"))
    tasks = Tasks(
        fit=not arguments.no_fit,
        predict=not arguments.no_predict,
        dry_run=arguments.dry_run,
        prepare=prepares,
        query=arguments.query_data,
        rebuild=arguments.rebuild,
        output=arguments.output,
        log=arguments.log,
        force=arguments.force_restart,
        profile=arguments.profile,
    )
    return run(settings, ranks, tasks, _input_file(arguments), resume, stop)


def _wait_for_files(outputs: Sequence[str]) -> None:
    """Until this node sees all that an earlier run, on any node, left here."""
    from pacehpc.utilities.clean import CHECKPOINT, MANIFEST, patterns

    wait_for_listed(Path.cwd(), [CHECKPOINT, MANIFEST, *patterns(outputs)])
    wait_for_listed(checkpoint.FOLDER)


def _input_file(arguments: argparse.Namespace) -> Path | None:
    if arguments.input is not None:
        return Path(arguments.input)
    return Path("input.yaml") if Path("input.yaml").exists() else None


def _fits(arguments: argparse.Namespace) -> bool:
    """Whether the run fits, and so writes a potential."""
    return not (arguments.no_fit or arguments.dry_run or arguments.prepare_data or arguments.query_data)


def _settings(arguments: argparse.Namespace) -> Any:
    from pacehpc.config import load_settings

    if arguments.output.endswith(".yace"):
        raise PacehpcError(
            f"-o {arguments.output}: a fit writes a B-basis file (.yaml); `pacehpc yaml2yace` makes the .yace of it."
        )
    _take_back_input(arguments)
    path = _input_file(arguments)
    given = [path, arguments.potential, *(arguments.initial_potential or []), *(arguments.data or [])]
    read = {Path(name).resolve() for name in given if name is not None}
    for option, name in (("-o", arguments.output), ("-l", arguments.log)):
        if Path(name).is_dir():
            raise PacehpcError(f"{option} {name}: is a folder; name a file in it.")
        folder = Path(name).parent
        if not folder.is_dir():
            raise PacehpcError(f"{option} {name}: there is no folder {folder}; make it, or correct the name.")
        if Path(name).resolve() in read and (option == "-l" or _fits(arguments)):
            raise PacehpcError(f"{option} {name}: this run reads the file; give another name with {option}.")
    if path is None and not (arguments.data and arguments.potential):
        raise PacehpcError("there is no input.yaml here: name the input file, or give -p POTENTIAL and -d DATA.")
    overrides = {
        "potential": arguments.potential,
        "potential.initial_potential": arguments.initial_potential,
        "backend.evaluator": arguments.backend,
        "data.filename": arguments.data,
    }
    prepares = arguments.prepare_data or arguments.query_data
    return load_settings(path, overrides, needs=("data",) if prepares else ("data", "potential"))


def _resume_or_fresh(arguments: argparse.Namespace, fits: bool) -> tuple[str | None, dict[str, Any] | None]:
    """(folder to which --fresh has moved earlier results, checkpoint of the unfinished fit to resume).

    Raises PacehpcError where a finished fit would be overwritten.
    """
    from pacehpc.fit.outputs import results_here

    if not fits:
        return None, None
    if arguments.fresh and (arguments.restart or arguments.force_restart):
        raise PacehpcError("--fresh starts again and --restart resumes: give one of them.")
    found = results_here(Path.cwd(), arguments.output, arguments.log)
    if arguments.fresh:
        if checkpoint.FOLDER.exists():
            found.append(Path.cwd() / checkpoint.FOLDER)
        return (_move_aside(found) if found else None), None
    resume = checkpoint.load(checkpoint.FOLDER)
    if resume is not None:
        return None, resume
    if arguments.restart or arguments.force_restart:
        raise PacehpcError(
            f"--restart: there is no unfinished fit here ({checkpoint.FOLDER / checkpoint.STATE} is missing). "
            "Leave the option out to start one."
        )
    if Path(arguments.output).exists():
        checkpoint.remove(checkpoint.FOLDER)  # what is left of it where the end of a fit was killed
        raise PacehpcError(
            f"{arguments.output} is already here: this folder holds a finished fit. Use `--fresh`, which moves its "
            "results aside and fits again, or work in another folder, or name another result with `-o` "
            "(`-p` continues from a fitted potential)."
        )
    return None, None


def _move_aside(paths: list[Path]) -> str:
    """The new folder that now holds `paths`; the checkpoint goes last, so that a kill between leaves it whole."""
    number = 1
    while Path(f"previous_{number}").exists():
        number += 1
    folder = Path(f"previous_{number}")
    folder.mkdir()
    for path in paths:
        shutil.move(path, folder / path.name)  # -o may name another file system
    return str(folder)
