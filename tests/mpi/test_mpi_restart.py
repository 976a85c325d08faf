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
from held_fits import AT_ONCE, HELD, WAIT, command_of, hold, iterations, let_go, ranks_among, state_of, wait_for
from launch import MPIRUN, ROOT, pacehpc
from small_fit import SMALL_FIT

from pacehpc.report.summary import read_summary

SEED = 5
INPUT = f"""{SMALL_FIT}\
  maxiter: 60
  fit_cycles: 2
  noise_relative_sigma: 1e-2
  callbacks: slow_down.wait
backend: {{evaluator: cpu, display_step: 2}}
"""
SLOW = "import time\ndef wait(**keywords):\n    time.sleep(0.5)\n"


def prepare(folder: Path) -> Path:
    folder.mkdir()
    (folder / "input.yaml").write_text(INPUT)
    (folder / "slow_down.py").write_text(HELD)
    return folder


def start(folder: Path, n_ranks: int = 2, *arguments: str, **environment: str) -> subprocess.Popen:
    command = [str(MPIRUN), "-n", str(n_ranks), sys.executable, "-m", "pacehpc", "--no-predict", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    with open(folder / "terminal.txt", "a") as out:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out)


def start_and_hold(folder: Path, iteration: int, n_ranks: int = 2, **environment: str) -> subprocess.Popen:
    """A fit that waits at an iteration until `let_go` or a signal to its root."""
    hold(folder, iteration)
    job = start(folder, n_ranks, **environment)
    reached(folder, iteration, job)
    return job


def reached(folder: Path, iteration: int, job: subprocess.Popen) -> None:
    """Wait until the running fit has come that far."""
    wait_for(lambda: iterations(folder) >= iteration or job.poll() is not None)
    assert job.poll() is None, (folder / "terminal.txt").read_text()


def ranks_of(job: subprocess.Popen) -> list[int]:
    """Process ids of the ranks."""
    found, every = [job.pid], {}
    for path in Path("/proc").glob("[0-9]*"):
        if state := state_of(int(path.name)):
            every.setdefault(int(state[1]), []).append(int(path.name))
    for parent in found:
        found += every.get(parent, [])
    return ranks_among(found)


def start_time(pid: int) -> str:
    """With the process id it is one process's own: ids are used again."""
    return (state_of(pid) or [""] * 20)[19]


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
    job = start_and_hold(folder, 10)
    os.kill(ranks_of(job)[-1], number)
    let_go(folder)
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
    job = start_and_hold(folder, 3)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=WAIT) == 75


IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def test_ctrl_c_at_a_terminal_is_one_interrupt(tmp_path):
    """The terminal and mpirun must not both pass it to the ranks: a second one would end them at once."""
    folder = prepare(tmp_path / "fit")
    command = [sys.executable, "-c", IN_A_TERMINAL, str(MPIRUN), "-n", "2", sys.executable, "-m", "pacehpc"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    hold(folder, 5)
    with open(folder / "terminal.txt", "a") as out:
        job = subprocess.Popen([*command, "--no-predict"], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=out)
    reached(folder, 5, job)
    job.stdin.write(b"\x03")
    job.stdin.flush()
    assert job.wait(timeout=WAIT) == 75
    assert "Stopped cleanly (SIGINT)" in (folder / "log.txt").read_text()
    job.stdin.close()


def test_killed_ranks_cost_nothing_but_time(tmp_path, uninterrupted):
    """kill -9 of single ranks at random moments, start after start."""
    folder, rng = prepare(tmp_path / "fit"), random.Random(SEED)
    for _ in range(3):
        before = iterations(folder)
        hold(folder, before + 30)  # later than it is killed, most often while it computes
        job = start(folder)
        reached(folder, before + rng.randint(3, 25), job)
        victims = {pid: start_time(pid) for pid in ranks_of(job)}
        assert len(victims) == 2
        os.kill(rng.choice(list(victims)), signal.SIGKILL)
        assert job.wait(timeout=WAIT) not in (0, 75)
        wait_for(lambda: not any(start_time(p) == t and command_of(p) for p, t in victims.items()))  # noqa: B023
    let_go(folder)
    done = pacehpc(2, "--no-predict", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(uninterrupted)


@pytest.mark.parametrize("ranks", [(1, 2, 3), (2, 4, 2), (4, 1)])
def test_another_number_of_ranks_and_threads_replays_to_the_same_bits(tmp_path, uninterrupted, ranks):
    """Each start but the last is stopped in the middle; the threads differ from start to start, too."""
    folder = prepare(tmp_path / "fit")
    for k, n_ranks in enumerate(ranks[:-1]):
        job = start_and_hold(folder, iterations(folder) + 40, n_ranks, OMP_NUM_THREADS=str(1 + k % 2))
        os.kill(ranks_of(job)[-1], signal.SIGTERM)
        let_go(folder)
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
    (folder / "slow_down.py").write_text(SLOW)
    job = start(folder, 2, SLURM_JOB_END_TIME=str(int(time.time()) + 25))
    assert job.wait(timeout=WAIT) == 75
    (folder / "slow_down.py").write_text(AT_ONCE)
    assert "Stopped cleanly (the end of the time)" in (folder / "log.txt").read_text()
    done = pacehpc(3, "--no-predict", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(uninterrupted)
