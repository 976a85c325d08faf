"""Fits that are stopped everywhere and by everything, and resumed: do they end with the same bits?

    python benchmarks/resume.py [--quick] [--points NAME …] [--json FILE] [--page]

The product of where a run is stopped, by what, what has changed at the next start, and the optimizer, as far as it
makes sense; docs/reliability.md says what is left out and why. Runs have two ranks. pausing.py holds the first of them
before a named call; there the job is killed, signalled, or its disk filled to the last byte (a tmpfs, which takes the
rights of root). Then each change gets a copy of the folder and the same command. A cell holds if the start ended as
promised, and the parameters and all tables of the next one are those of a run on one rank that nothing disturbed, bit
for bit. --quick: one cell of each kind, as the tests do. Exit code 1 where a cell does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "resume.json", ROOT / "docs" / "reliability.md"
MPIRUN = Path(sys.executable).parent / "mpirun"
PATIENCE = 240.0  # s: longer than other programs hold up a busy machine
UNFINISHED = 75
DISK = "64m"
TABLES = ("metrics", "test_metrics", "cycle_metrics", "ladder_metrics")
INPUT = """
cutoff: 4.5
data: {filename: DATA, reference_energy: {Al: 3.28, Ni: 4.44}, test_size: 0.2}
potential:
  elements: [Al, Ni]
  embeddings: {ALL: {npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}
  bonds: {ALL: {radbase: SBessel, radparameters: [5.25], rcut: 4.5, dcut: 0.01}}
  functions: {ALL: {nradmax_by_orders: [4, 1], lmax_by_orders: [0, 1]}}
fit:
  loss: {kappa: 0.3, L2_coeffs: 1e-8}
  optimizer: OPTIMIZER
  maxiter: 14
  ladder_step: 6
  STRATEGY
backend: {evaluator: cpu, display_step: 2}
"""
CYCLES = "fit_cycles: 2\n  noise_relative_sigma: 1e-2"
SCHEDULE = "schedule: [{loss: {kappa: 0.8}}, {weights: {'*_surface': {energy: 10}}}]"
OPTIMIZERS = {"BFGS": "BFGS", "L-BFGS-B": "L-BFGS-B", "GN-BFGS": "GN-BFGS\n  options: {start: 4, renew: 5}"}
FIT = ("input.yaml", "--no-predict")
ACTIVE_SET = ("activeset", "output_potential.yaml", "-d", "fitting_data_info.pckl.gzip", "-a")
SIGNALS = ("KILL", "TERM", "USR1", "full disk")
CHANGES = {"same ranks": (2, 1), "other ranks": (3, 1), "other threads": (2, 2)}
"""Ranks, and threads of each, at the next start; the first start has (2, 1)."""


@dataclass(frozen=True)
class Point:
    """Where a run is stopped: before the count-th call of a function."""

    call: str
    count: int = 1
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    resumes: bool = True
    """Whether a stop leaves something to resume; a run that signals no longer stop, or that starts again, does not."""
    command: tuple[str, ...] = FIT
    strategy: str = CYCLES
    """Lines of `fit` in the input."""


POINTS = {
    "preparation": Point("pacehpc.dataset.store_writing:_write_bonds", 2, ("BFGS",)),
    "iteration": Point("pacehpc.checkpoint.journal:Journal.append", 14),
    "renewal": Point("pacehpc.fit.gauss_newton:NormalMatrix.damped", 2, ("GN-BFGS",)),
    "cycle change": Point("pacehpc.fit.cycles:_disturbed_best"),
    "ladder step": Point("pacehpc.fit.ladder_steps:next_potential", 2),
    "schedule stage": Point("pacehpc.fit.ladder_steps:weights_of_stage", 2, strategy=SCHEDULE),
    "final files": Point("pacehpc.fit.final:_add_errors", 1, ("BFGS",), resumes=False),
    "active set": Point("pacehpc.active.choose:exchange", 1, ("BFGS",), resumes=False, command=ACTIVE_SET),
}


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix, and what became of it."""

    point: str
    optimizer: str
    signal: str
    change: str
    stopped: str = ""
    """How the first start ended: killed, 75, finished, or its message."""
    same: bool = False
    """Whether the next start ended with the same bits."""
    holds: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sample, and nothing is written")
    parser.add_argument(
        "--points", nargs="*", choices=list(POINTS), default=list(POINTS), help="others keep their results"
    )
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="write the table of docs/reliability.md")
    arguments = parser.parse_args()
    cells = sample() if arguments.quick else [cell for cell in matrix() if cell.point in arguments.points]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = run(cells, Path(folder))
    seconds = time.perf_counter() - start
    failed = [cell for cell in found if not cell.holds]
    print(f"{len(found) - len(failed)} of {len(found)} cells hold; {seconds / 60:.1f} minutes")
    if not arguments.quick:
        from evaluation import machine

        results = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.exists() else {"cells": []}
        kept = [cell for cell in results["cells"] if cell["point"] not in arguments.points]
        results = {"machine": machine(), "cells": kept + [asdict(cell) for cell in found]}
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.page:
        write_page(json.loads(arguments.json.read_text(encoding="utf-8")))
    return 1 if failed else 0


def matrix() -> list[Cell]:
    """All cells that make sense."""
    found = []
    for name, point in POINTS.items():
        for optimizer in point.optimizers:
            for kind in SIGNALS:
                # the end of a fit is not put off by a signal: it finishes, and there is no next start to change
                changes = list(CHANGES)[:1] if ends_itself(name, kind) else CHANGES
                found += [Cell(name, optimizer, kind, change) for change in changes]
    return found


def ends_itself(point: str, kind: str) -> bool:
    """Whether a run that gets this signal there finishes all the same."""
    if point == "active set":
        return kind == "USR1"  # MPICH takes it for itself
    return point == "final files" and kind in ("TERM", "USR1")


def sample() -> list[Cell]:
    """Every point, signal, change and optimizer once at least."""
    return [
        Cell("preparation", "BFGS", "USR1", "other ranks"),
        Cell("iteration", "L-BFGS-B", "full disk", "other threads"),
        Cell("renewal", "GN-BFGS", "TERM", "other ranks"),
        Cell("ladder step", "GN-BFGS", "KILL", "same ranks"),
        Cell("cycle change", "BFGS", "TERM", "other threads"),
        Cell("schedule stage", "GN-BFGS", "TERM", "other ranks"),
        Cell("final files", "BFGS", "full disk", "same ranks"),
        Cell("active set", "BFGS", "KILL", "other ranks"),
    ]


# --------------------------------------------------------------------------------------------------------------- runs


def run(cells: list[Cell], scratch: Path) -> list[Cell]:
    """Run cells in an empty folder; those that differ in the change alone share their first start."""
    whole, found, groups = {}, [], {}
    for cell in cells:
        groups.setdefault((cell.point, cell.optimizer, cell.signal), []).append(cell)
    for number, ((point, optimizer, kind), group) in enumerate(groups.items()):
        fit, strategy = POINTS[point].command == FIT, POINTS[point].strategy
        if (optimizer, strategy) not in whole:
            whole[optimizer, strategy] = undisturbed(scratch / f"whole_{len(whole)}", optimizer, strategy)
        expected = whole[optimizer, strategy]
        if not fit and not (expected / "output_potential.asi").exists():
            alone(expected, ACTIVE_SET)
        with disk(scratch / str(number), kind == "full disk") as folder:
            if folder is None:
                print(f"{point}, {kind}: not run, there is no right to mount a file system here", flush=True)
                continue
            if fit:
                write_input(folder, optimizer, strategy)
            else:
                shutil.copytree(expected, folder, dirs_exist_ok=True)
                (folder / "output_potential.asi").unlink()
            stopped = interrupted(POINTS[point], kind, folder)
            for cell in group:
                copy = scratch / f"{number}_{cell.change}"
                shutil.copytree(folder, copy)
                same = next_start(POINTS[point], copy, *CHANGES[cell.change], finished=stopped == "finished")
                same = same and results(copy, fit) == results(expected, fit)
                right = stopped == promised(point, kind)
                found.append(replace(cell, stopped=stopped, same=same, holds=same and right))
                print(("holds " if found[-1].holds else "FAILS ") + str(found[-1]), flush=True)
                if found[-1].holds:
                    shutil.rmtree(copy)
                else:
                    print(f"stopped: {stopped}; promised: {promised(point, kind)}\n{said(copy)}", flush=True)
    return found


def promised(point: str, kind: str) -> str:
    """How a start ends that is stopped there in this way."""
    if kind == "full disk":
        return "No space left on device"
    if ends_itself(point, kind):
        return "finished"
    return "killed" if kind == "KILL" or point == "active set" else str(UNFINISHED)


def write_input(folder: Path, optimizer: str, strategy: str = CYCLES) -> None:
    text = INPUT.replace("DATA", str(ROOT / "examples" / "al_ni" / "al_ni.pckl.gzip")).replace("STRATEGY", strategy)
    (folder / "input.yaml").write_text(text.replace("OPTIMIZER", OPTIMIZERS[optimizer]), encoding="utf-8")


def undisturbed(folder: Path, optimizer: str, strategy: str) -> Path:
    """The folder of a fit on one rank that nothing stops."""
    folder.mkdir()
    write_input(folder, optimizer, strategy)
    alone(folder, FIT)
    return folder


def alone(folder: Path, command: tuple[str, ...]) -> None:
    if start(folder, ["-m", "pacehpc", *command], ranks=1).wait(PATIENCE):
        raise SystemExit(f"{' '.join(command)} failed on one rank:\n{said(folder)}")


def start(folder: Path, arguments: list[str], ranks: int = 2, threads: int = 1) -> subprocess.Popen:
    """Start Python with these arguments on the ranks; what they say goes beside the folder, which may be full."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PMI", "OMPI"))}
    environment |= {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    with output_of(folder).open("w", encoding="utf-8") as output:
        return subprocess.Popen(
            [str(MPIRUN), "-n", str(ranks), sys.executable, *arguments],
            cwd=folder, env=environment, stdout=output, stderr=output,
        )  # fmt: skip


def output_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".said")


def said(folder: Path) -> str:
    """The end of what the last start in a folder said."""
    return output_of(folder).read_text(encoding="utf-8")[-3000:]


def interrupted(point: Point, kind: str, folder: Path) -> str:
    """Stop a run in the folder; returns how it ended."""
    with tempfile.TemporaryDirectory() as name:
        marks = Path(name)
        program = [str(Path(__file__).with_name("pausing.py")), point.call, str(point.count), name]
        job = start(folder, [*program, *point.command])
        wait_for(lambda: (marks / "waiting").exists(), job, f"{point.call} is not called {point.count} times")
        ranks = [int(path.read_text()) for path in sorted(marks.glob("rank_*"))]
        filler = folder / "filler"
        if kind == "KILL":
            os.kill(ranks[0], signal.SIGKILL)
        elif kind == "TERM":
            os.kill(ranks[-1] if point.resumes else ranks[0], signal.SIGTERM)  # any rank's signal stops all
        elif kind == "USR1":
            job.send_signal(signal.SIGUSR1)
            if point.command == FIT:
                wait_for(lambda: (marks / "heard").exists())
        else:
            fill(filler)
        (marks / "waiting").unlink()
        code = job.wait(PATIENCE)
        wait_for(lambda: not any(alive(pid) for pid in ranks))
        filler.unlink(missing_ok=True)
    message = re.search(r"No space left on device|Traceback.*", said(folder), re.DOTALL)
    if code == 0:
        return "finished"
    if code == 1 and kind == "full disk":
        return message[0] if message else said(folder)
    return str(code) if code == UNFINISHED else "killed"


def next_start(point: Point, folder: Path, ranks: int, threads: int, finished: bool) -> bool:
    """Give the same command again; whether it does what is promised."""
    if finished:
        return True
    program = ["-m", "pacehpc", *point.command]
    found = (folder / "checkpoint" / "state.json").exists()
    code = start(folder, program, ranks, threads).wait(PATIENCE)
    resumed = "Found a" in (folder / "log.txt").read_text(encoding="utf-8")
    return code == 0 and "Traceback" not in said(folder) and (not found or resumed)


def fill(path: Path) -> None:
    """Write zeros until there is no room for another byte."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, job: subprocess.Popen | None = None, otherwise: str = "waited in vain") -> None:
    """Poll until the condition holds; SystemExit where the job ends before, or time is up."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end or (job is not None and job.poll() is not None and not condition()):
            raise SystemExit(otherwise)
        time.sleep(0.005)


@contextlib.contextmanager
def disk(folder: Path, own: bool) -> Iterator[Path | None]:
    """A folder, with `own` on a small file system; None where that cannot be mounted."""
    folder.mkdir()
    if not own:
        yield folder
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def results(folder: Path, fit: bool) -> list[object]:
    """What two equal runs have in common: bits of the parameters and tables of a fit, or the bytes of an active set."""
    from pacehpc import Potential

    if not fit:
        return [(folder / "output_potential.asi").read_bytes()] if (folder / "output_potential.asi").exists() else []
    if not (folder / "output_potential.yaml").exists():
        return []
    tables = [(folder / f"{name}.txt").read_text(encoding="utf-8") for name in TABLES]
    left = sorted(path.name for path in folder.glob("*.lock")) + sorted(path.name for path in folder.glob("check*"))
    return [Potential.load(folder / "output_potential.yaml").parameters.tobytes(), *tables, *left]


# --------------------------------------------------------------------------------------------------------------- page


def write_page(results: dict) -> None:
    """The table between its marks in docs/reliability.md."""
    cells = [Cell(**cell) for cell in results["cells"]]
    lines = ["| stopped at | optimizer | " + " | ".join(SIGNALS) + " |", "| --- |" + " --- |" * (1 + len(SIGNALS))]
    pairs = [(point, optimizer) for point in POINTS for optimizer in POINTS[point].optimizers]
    for point, optimizer in pairs:
        row = []
        for kind in SIGNALS:
            found = [c for c in cells if (c.point, c.optimizer, c.signal) == (point, optimizer, kind)]
            row.append(f"{sum(c.holds for c in found)} of {len(found)}" if found else "not run")
        shown = "" if len(POINTS[point].optimizers) == 1 and optimizer == "BFGS" else optimizer
        lines.append(f"| {point} | {shown} | " + " | ".join(row) + " |")
    held = sum(cell.holds for cell in cells)
    lines += ["", f"{held} of {len(cells)} cells hold ({results['machine']['processor']})."]
    begin, end = "<!-- resume -->", "<!-- end of resume -->"
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    PAGE.write_text(before + "\n".join([begin, *lines, end]) + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
