"""One trial: its fit as a program of its own, its errors, and the speed of its potential."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pacehpc.config.models import Settings
from pacehpc.errors import PacehpcError
from pacehpc.machine import set_kernel_threads
from pacehpc.potential import Potential
from pacehpc.replacing import replace_file
from pacehpc.report.summary import NAME as SUMMARY
from pacehpc.report.summary import FitSummary, read_summary
from pacehpc.scan.inputs import trial_input
from pacehpc.scan.study import Trial
from pacehpc.speed import microseconds_per_atom, training_structures
from pacehpc.walltime import UNFINISHED, Stop
from pacehpc.yamlio import dumps_yaml

log = logging.getLogger("pacehpc")
SAID = "output.txt"
STOPPED = "Stopped cleanly"  # in the log of a fit
POLL = 0.2  # s, between looks at the running fit


def run_trial(folder: Path, trial: Trial, settings: Settings, launcher: Sequence[str], stop: Stop) -> int:
    """Fit a trial, or resume its fit; the exit code of the fit, 75 if it stopped before its end.

    Args:
        folder: of the trial.
        trial: which.
        settings: of the scan.
        launcher: what starts the fit on its ranks, such as mpirun -n 4; [] for one rank.
        stop: asks this worker to stop; the fit is asked in turn.
    """
    folder.mkdir(exist_ok=True)
    if (folder / SUMMARY).exists() and not (folder / "checkpoint").exists():
        return 0  # the worker was killed after its fit
    replace_file(folder / "input.yaml", dumps_yaml(trial_input(settings, trial.values)).encode())
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), environment.get("PYTHONPATH")]))
    command = [*launcher, sys.executable, "-m", "pacehpc", "input.yaml", "--no-predict"]
    with open(folder / SAID, "wb") as said:  # the log keeps earlier starts
        try:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        except OSError as problem:
            raise PacehpcError(
                f"{command[0]}: cannot be started ({problem.strerror}); see -n and --launcher."
            ) from None
        asked = False
        while process.poll() is None:
            if stop.due() and not asked:
                asked = True
                process.send_signal(signal.SIGUSR1)  # mpirun passes it on, and ends at once on others
            time.sleep(POLL)
    stopped = stop.due() or STOPPED in _end_of(folder / SAID)  # launchers turn 75 into codes of their own
    return UNFINISHED if process.returncode and stopped else process.returncode


def was_killed(code: int) -> bool:
    """Whether an exit code is that of a fit, or of its launcher, that a signal has ended."""
    return code < 0 or code > 128 or code in (signal.SIGKILL, signal.SIGTERM)


def results_of(folder: Path, settings: Settings) -> tuple[float, float]:
    """(error in meV, µs per atom) of a finished trial."""
    summary = read_summary(folder)
    set_kernel_threads(1)
    speed = microseconds_per_atom(Potential.load(folder / summary.potential), training_structures(folder))
    return error_of(summary, settings.scan.error), speed


def error_of(summary: FitSummary, kind: str) -> float:
    """RMSE of the set that trials are chosen by: energy (meV/atom), forces (meV/Å), or the root of their product."""
    errors = summary.errors["test"]
    energy, forces = 1000 * errors["rmse_epa"], 1000 * errors["rmse_f_comp"]
    return {"energy": energy, "forces": forces, "both": float(np.sqrt(energy * forces))}[kind]


def _end_of(path: Path) -> str:
    """The last characters of a file."""
    return path.read_text(encoding="utf-8", errors="replace")[-4000:] if path.exists() else ""


def last_words(folder: Path) -> str:
    """The last error that a fit printed, without a full stop."""
    lines = [line.strip() for line in _end_of(folder / SAID).splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines or ["nothing was printed"]
    return errors[-1].removeprefix("ERROR: ").rstrip(".")
