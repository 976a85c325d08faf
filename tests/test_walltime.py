"""Signals and the end of the time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from pacehpc import walltime
from pacehpc.errors import PacehpcError
from pacehpc.walltime import MARGIN, Stop, find_deadline, seconds_of

ROOT = Path(__file__).parents[1]
NEVER = {"SLURM_JOB_ID": "7"}


@pytest.mark.parametrize(("text", "seconds"), [("23:50:00", 85800), ("0:00:01", 1), ("2-12:00:00", 216000)])
def test_times_as_users_write_them(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["90", "1:60:00", "12:00", "", "1h", "9999999:00:00", "999999-00:00:00"])
def test_other_times_are_refused_with_an_example(text):
    with pytest.raises(PacehpcError, match="23:50:00"):
        seconds_of(text)


def test_without_a_job_or_a_limit_there_is_no_end():
    assert find_deadline(None, {}) is None


def test_the_variable_of_newer_slurm_is_enough():
    """squeue is not asked."""
    environ = {**NEVER, "SLURM_JOB_END_TIME": "1800000000"}
    assert find_deadline(None, environ, end_of_job=lambda job: pytest.fail("asked")) == 1.8e9


def test_older_slurm_is_asked():
    asked = []

    def end(job: str) -> str:
        asked.append(job)
        return "2026-03-01T10:00:00"

    assert find_deadline(None, NEVER, end_of_job=end) == datetime(2026, 3, 1, 10).timestamp()
    assert asked == ["7"]


@pytest.mark.parametrize("answer", ["N/A", "NONE", "", "Unknown"])
def test_no_answer_is_no_end(answer):
    assert find_deadline(None, NEVER, end_of_job=lambda job: answer) is None
    assert find_deadline("1:00:00", NEVER, started=1000.0, end_of_job=lambda job: answer) == 4600.0


@pytest.mark.parametrize(("given", "expected"), [("0:10:00", 1600.0), ("2:00:00", 5000.0)])
def test_the_earlier_end_counts(given, expected):
    assert find_deadline(given, {**NEVER, "SLURM_JOB_END_TIME": "5000"}, started=1000.0) == expected


def test_what_squeue_is_asked_and_says(tmp_path, monkeypatch):
    """A program of that name takes its place: it answers these arguments alone."""
    program = tmp_path / "squeue"
    program.write_text('#!/bin/sh\n[ "$*" = "-h -j 42 -o %e" ] && echo 2026-11-21T18:00:00\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    known = datetime(2026, 11, 21, 18).timestamp()
    assert find_deadline(None, {"SLURM_JOB_ID": "42"}) == known
    assert find_deadline(None, {"SLURM_JOB_ID": "43"}) is None
    program.unlink()
    assert find_deadline(None, {"SLURM_JOB_ID": "42"}) is None


def test_the_user_may_have_chosen_another_form_of_times(tmp_path, monkeypatch):
    program = tmp_path / "squeue"
    program.write_text('#!/bin/sh\n[ "$SLURM_TIME_FORMAT" = standard ] && echo 2026-11-21T18:00:00 || echo 18:00:00\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    assert find_deadline(None, {"SLURM_JOB_ID": "42"}) == datetime(2026, 11, 21, 18).timestamp()


def test_the_margin_grows_with_the_longest_evaluation():
    now = [0.0]
    stop = Stop(100.0, clock=lambda: now[0])
    now[0] = 100.0 - MARGIN - 0.5
    assert not stop.due()
    stop.learn(0.1)
    stop.learn(3.0)
    stop.learn(0.1)
    assert stop.margin == MARGIN + 6.0
    assert stop.due() and stop.reason == "the end of the time"


def test_every_signal_asks_once_and_the_first_is_the_reason():
    before = {number: signal.getsignal(number) for number in walltime.SIGNALS}
    stop = Stop()
    try:
        stop.install()
        assert not stop.due()
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.due() and stop.reason == "SIGUSR1"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


TWICE = """
import os, signal, sys, time
from pacehpc.walltime import Stop
stop = Stop()
stop.install()
os.kill(os.getpid(), signal.SIGINT)
assert stop.due() and stop.reason == "SIGINT"
print("asked", flush=True)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
print("alive")
"""


def test_a_second_interrupt_ends_the_process_at_once():
    done = subprocess.run(
        [sys.executable, "-c", TWICE], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert done.stdout == b"asked\n" and done.returncode == -signal.SIGINT


EARLY = """
import os, signal, sys

class SignalAtImport:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT"]:
            os.kill(os.getpid(), int(os.environ["NUMBER"]))

sys.meta_path.insert(0, SignalAtImport())
from pacehpc.__main__ import main
sys.exit(main())
"""


def early(folder: Path, at: str, number: signal.Signals, *arguments: str) -> subprocess.CompletedProcess:
    """The command, which gets a signal as it begins to import the module `at`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PMI", "OMPI"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "AT": at, "NUMBER": str(int(number))}
    command = [sys.executable, "-c", EARLY, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


INPUT = f"""
data: {{filename: {ROOT}/examples/al_ni/al_ni.pckl.gzip, reference_energy: {{Al: 3.28, Ni: 4.44}}}}
potential:
  elements: [Al, Ni]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}}}
  bonds: {{ALL: {{radbase: SBessel, radparameters: [5.25], rcut: 4.0, dcut: 0.01}}}}
  functions: {{ALL: {{nradmax_by_orders: [2], lmax_by_orders: [0]}}}}
backend: {{evaluator: reference}}
"""


@pytest.mark.parametrize("number", walltime.SIGNALS)
@pytest.mark.parametrize("at", ["pacehpc.cli", "numpy", "mpi4py", "scipy.linalg"])
def test_a_signal_while_python_still_imports_stops_in_order(tmp_path, at, number):
    (tmp_path / "input.yaml").write_text(INPUT)
    done = early(tmp_path, at, number)
    assert done.returncode == walltime.UNFINISHED, done.stderr
    assert f"Stopped cleanly ({number.name})" in (tmp_path / "log.txt").read_text()
    assert not (tmp_path / "pacehpc.lock").exists() and not (tmp_path / "output_potential.yaml").exists()


@pytest.mark.parametrize("arguments", [("info", "nothing.yaml"), ("--clean",), ("-t",)])
def test_what_does_not_fit_ends_at_a_signal(tmp_path, arguments):
    assert early(tmp_path, "pacehpc.cli", signal.SIGTERM, *arguments).returncode == -signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("argument", "at", "number"), [
    ("--prepare-data", "numpy", signal.SIGTERM),
    ("--no-fit", "pacehpc.backends.oracle", signal.SIGTERM),
    ("--dry-run", "pacehpc.backends.oracle", signal.SIGINT),
])  # fmt: skip
def test_a_run_that_does_not_fit_ends_at_a_signal(tmp_path, argument, at, number):
    """Before it is known that it does not fit, and when evaluations begin."""
    (tmp_path / "input.yaml").write_text(INPUT)
    done = early(tmp_path, at, number, argument)
    assert done.returncode == 128 + number, done.stderr
    assert not (tmp_path / "pacehpc.lock").exists() and "Traceback" not in done.stderr


def test_the_command_that_is_installed_catches_signals_first():
    """Handlers come before every import but those that they need."""
    code = "import sys; import pacehpc.__main__; print('numpy' in sys.modules, 'pacehpc.cli' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]
    assert 'pacehpc = "pacehpc.__main__:main"' in (ROOT / "pyproject.toml").read_text()


def test_a_clock_is_used_by_default():
    assert Stop(time.time() - 1.0).due() and not Stop(time.time() + 1e6).due()
