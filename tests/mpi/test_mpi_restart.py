"""Fits on two ranks that are killed or asked to stop, and go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from launch import MPIRUN, ROOT, pacehpc
from small_fit import SMALL_FIT

from pacehpc.report.summary import read_summary

SEED = 5
WAIT = 240.0  # s: longer than other programs stop a busy machine
INPUT = f"""{SMALL_FIT}\
  maxiter: 60
  fit_cycles: 2
  noise_relative_sigma: 1e-2
  callbacks: slow_down.wait
backend: {{evaluator: cpu, display_step: 2}}
"""
SLOW = "import time\ndef wait(**keywords):\n    time.sleep(0.02)\n"


def prepare(folder: Path) -> Path:
    folder.mkdir()
    (folder / "input.yaml").write_text(INPUT)
    (folder / "slow_down.py").write_text(SLOW)
    return folder


def start(folder: Path, n_ranks: int = 2, *arguments: str, **environment: str) -> subprocess.Popen:
    command = [str(MPIRUN), "-n", str(n_ranks), sys.executable, "-m", "pacehpc", "--no-predict", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    with open(folder / "terminal.txt", "a") as out:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out)


def ranks_of(job: subprocess.Popen) -> list[int]:
    """Process ids of the ranks."""
    found, every = [job.pid], {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        every.setdefault(int(fields[1]), []).append(int(path.parent.name))
    for parent in found:
        found += every.get(parent, [])
    return [pid for pid in found if b"-m\0pacehpc" in _command(pid) and b"mpirun" not in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(condition, seconds: float = WAIT) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end
        time.sleep(0.02)


def iterations(folder: Path) -> int:
    log = folder / "log.txt"
    text = log.read_text() if log.exists() else ""
    return text.count("Iteration   #") + text.count("-FIT STATS-")


def results(folder: Path) -> list[str]:
    texts = [(folder / f"{name}.txt").read_text() for name in ("metrics", "test_metrics", "cycle_metrics")]
    lines = (folder / "output_potential.yaml").read_text().splitlines()
    return [*texts, *(line for line in lines if "starttime" not in line)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = prepare(tmp_path_factory.mktemp("mpi") / "whole")
    done = pacehpc(2, "--no-predict", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_any_rank_stops_all_with_75_and_the_next_start_equals_one_run(tmp_path, uninterrupted, number):
    folder = prepare(tmp_path / "fit")
    job = start(folder)
    wait_for(lambda: iterations(folder) >= 10)
    os.kill(ranks_of(job)[-1], number)
    assert job.wait(timeout=WAIT) == 75
    assert "Stopped cleanly" in (folder / "log.txt").read_text()
    assert not (folder / "pacehpc.lock").exists()
    # under other threads, too
    done = pacehpc(2, "--no-predict", "--restart", cwd=folder, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(uninterrupted)
    resumed, whole = read_summary(folder), read_summary(uninterrupted)
    assert resumed.resumed and not whole.resumed and resumed.evaluations == whole.evaluations
    text = (folder / "log.txt").read_text()
    assert "Replayed" in text and "no longer takes the path" not in text


def test_a_signal_to_mpirun_stops_with_75(tmp_path):
    folder = prepare(tmp_path / "fit")
    job = start(folder)
    wait_for(lambda: iterations(folder) >= 3)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=WAIT) == 75


IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def test_ctrl_c_at_a_terminal_is_one_interrupt(tmp_path):
    """The terminal and mpirun must not both pass it to the ranks: a second one would end them at once."""
    folder = prepare(tmp_path / "fit")
    command = [sys.executable, "-c", IN_A_TERMINAL, str(MPIRUN), "-n", "2", sys.executable, "-m", "pacehpc"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(folder / "terminal.txt", "a") as out:
        job = subprocess.Popen([*command, "--no-predict"], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=out)
    wait_for(lambda: iterations(folder) >= 5)
    job.stdin.write(b"\x03")
    job.stdin.flush()
    assert job.wait(timeout=WAIT) == 75
    assert "Stopped cleanly (SIGINT)" in (folder / "log.txt").read_text()
    job.stdin.close()


def test_killed_ranks_cost_nothing_but_time(tmp_path, uninterrupted):
    """kill -9 of single ranks at random moments, start after start."""
    folder, rng = prepare(tmp_path / "fit"), random.Random(SEED)
    for _ in range(3):
        before, job = iterations(folder), start(folder)
        wanted = before + rng.randint(3, 25)
        wait_for(lambda: iterations(folder) >= wanted or job.poll() is not None)  # noqa: B023
        victims = ranks_of(job)
        if job.poll() is not None or not victims:
            break
        os.kill(rng.choice(victims), signal.SIGKILL)
        assert job.wait(timeout=WAIT) not in (0, 75)
        wait_for(lambda: not any(b"pacehpc" in _command(pid) for pid in victims))  # noqa: B023
    done = pacehpc(2, "--no-predict", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(uninterrupted)


@pytest.mark.parametrize("ranks", [(1, 2, 3), (2, 4, 2), (4, 1)])
def test_another_number_of_ranks_and_threads_replays_to_the_same_bits(tmp_path, uninterrupted, ranks):
    """Each start but the last is stopped in the middle; the threads differ from start to start, too."""
    folder = prepare(tmp_path / "fit")
    for k, n_ranks in enumerate(ranks[:-1]):
        before, job = iterations(folder), start(folder, n_ranks, OMP_NUM_THREADS=str(1 + k % 2))
        wait_for(lambda: iterations(folder) >= before + 30)  # noqa: B023
        os.kill(ranks_of(job)[-1], signal.SIGTERM)
        assert job.wait(timeout=WAIT) == 75
    done = pacehpc(ranks[-1], "--no-predict", "--restart", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(uninterrupted)
    text = (folder / "log.txt").read_text()
    for before, now in pairwise(ranks):
        assert f"without effect on the numbers: ranks: {before} before, {now} now" in text
    assert text.count("Replayed") == len(ranks) - 1 and "no longer takes the path" not in text


def test_the_end_of_the_time_stops_in_order_and_more_ranks_go_on(tmp_path, uninterrupted):
    folder = prepare(tmp_path / "fit")
    (folder / "slow_down.py").write_text(SLOW.replace("0.02", "0.5"))
    job = start(folder, 2, SLURM_JOB_END_TIME=str(int(time.time()) + 25))
    assert job.wait(timeout=WAIT) == 75
    (folder / "slow_down.py").write_text(SLOW)
    assert "Stopped cleanly (the end of the time)" in (folder / "log.txt").read_text()
    done = pacehpc(3, "--no-predict", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(uninterrupted)
