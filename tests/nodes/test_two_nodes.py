"""A fit on two nodes that share nothing but its folder, and nodes that see each other's files late."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from held_fits import AT_ONCE, HELD, WAIT, hold, iterations, let_go, ranks_among, wait_for
from small_fit import SMALL_FIT

from pacehpc import Potential
from pacehpc.checkpoint.lock import NAME

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LATE = 3.0  # s
INPUT = f"""{SMALL_FIT}\
  optimizer: GN-BFGS
  options: {{start: 8, renew: 10}}
  maxiter: 30
  fit_cycles: 2
  noise_relative_sigma: 1e-2
  callbacks: slow_down.wait
backend: {{evaluator: cpu, display_step: 2}}
"""


def prepare(folder: Path, callback: str) -> Path:
    folder.mkdir()
    (folder / "input.yaml").write_text(INPUT)
    (folder / "slow_down.py").write_text(callback)
    return folder


def results(folder: Path) -> list:
    texts = [(folder / f"{name}.txt").read_text() for name in ("metrics", "test_metrics", "cycle_metrics")]
    return [*texts, Potential.load(folder / "output_potential.yaml").parameters.tobytes()]


@pytest.fixture(scope="module")
def uninterrupted(nodes):
    """One rank on one node."""
    folder = prepare(nodes.shared / "whole", AT_ONCE)
    done = nodes.run("n1", [sys.executable, "-m", "pacehpc", "--no-predict"], folder)
    assert done.returncode == 0, done.stdout
    return folder


def test_a_fit_on_two_nodes_with_disks_of_their_own(nodes, uninterrupted):
    """Four ranks, two of each node; both compile their kernels, and both see the prepared data late."""
    folder = prepare(nodes.shared / "both", AT_ONCE)
    done = nodes.run("n1", nodes.mpirun(2, "--no-predict", late=LATE), folder, late=LATE)
    assert done.returncode == 0, done.stdout
    assert "4 ranks on n1 (2), n2 (2)" in (folder / "log.txt").read_text()
    assert results(folder) == results(uninterrupted)
    for name in ("n1", "n2"):
        found = nodes.run(name, ["sh", "-c", "ls /tmp/home/.cache/pacehpc/kernels; ls /dev/shm"], folder).stdout
        assert "evaluate-" in found and ".so" in found


def test_an_active_set_over_two_nodes(nodes, uninterrupted):
    command = ("activeset", "output_potential.yaml", "-d", "fitting_data_info.pckl.gzip", "-a", "-o")
    for name, start in (("one", [sys.executable, "-m", "pacehpc"]), ("two", nodes.mpirun(1))):
        done = nodes.run("n1", [*start, *command, f"{name}.asi"], uninterrupted)
        assert done.returncode == 0, done.stdout
    assert (uninterrupted / "one.asi").read_bytes() == (uninterrupted / "two.asi").read_bytes()


def test_the_other_node_goes_on_at_once_after_a_kill(nodes, uninterrupted):
    """The checkpoint that it cannot see yet is neither lost nor started over."""
    folder = prepare(nodes.shared / "killed", HELD)
    hold(folder, 24)
    command = [sys.executable, "-m", "pacehpc", "--no-predict"]
    job = nodes.start("n1", command, folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: iterations(folder) >= 24)
    owner = json.loads((folder / NAME).read_text())
    assert owner["host"] == "n1"
    os.kill(owner["pid"], signal.SIGKILL)
    job.wait(timeout=WAIT)
    let_go(folder)
    refused = nodes.run("n2", command, folder, late=LATE)
    assert refused.returncode == 1 and "process" in refused.stdout and "on n1" in refused.stdout
    (folder / NAME).unlink()  # the user's word, as the message says
    # all of it is as if it had been written just now
    copies = 'for f in checkpoint/* metrics.txt; do cp "$f" "$f.copy" && mv "$f.copy" "$f"; done'
    assert nodes.run("n1", ["sh", "-c", copies], folder, late=LATE).returncode == 0
    done = nodes.run("n2", command, folder, late=LATE)
    assert done.returncode == 0, done.stdout
    assert "Found an unfinished fit" in done.stdout and "Replayed" in done.stdout
    assert results(folder) == results(uninterrupted)


TAKE = """
import sys, time
from pathlib import Path
from pacehpc.checkpoint import lock
lock.slurm_job_ended = lambda job: True
time.sleep(max(0.0, float(sys.argv[1]) - time.time()))
try:
    lock.Lock(Path.cwd(), lambda job: job == "41").acquire()
    print("mine", flush=True)
    sys.stdin.read()
except Exception as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("left", ["of a dead job", "of nobody"])
def test_of_many_on_two_nodes_one_gets_the_lock(nodes, left):
    """Each node sees the other's lock late; the job that left the old one has ended."""
    folder = nodes.shared / f"lock {left}"
    folder.mkdir()
    if left == "of a dead job":
        body = {"host": "n3", "boot": "", "namespace": "", "pid": 1, "started": "1", "job": "41", "restart": "0"}
        (folder / NAME).write_text(json.dumps({**body, "since": "2026-01-01"}))
    command = [sys.executable, "-c", TAKE, str(time.time() + 2.5)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    everyone = [nodes.start(name, command, folder, late=LATE, **pipes) for name in ("n1", "n2") * 3]
    said = [process.stdout.readline() for process in everyone]
    for process in everyone:
        process.communicate()
    assert said.count("mine\n") == 1, said
    assert all("works in this folder" in line for line in said if line != "mine\n"), said
    assert not list(folder.glob(f"*{NAME}?*"))


def test_a_rank_that_is_killed_on_the_other_node_ends_both(nodes, uninterrupted):
    folder = prepare(nodes.shared / "rank", HELD)
    hold(folder, 16)
    job = nodes.start("n1", nodes.mpirun(1, "--no-predict"), folder, stdout=subprocess.DEVNULL)
    wait_for(lambda: iterations(folder) >= 16)
    ranks = ranks_among(nodes.processes("n2"))
    assert len(ranks) == 1
    os.kill(ranks[0], signal.SIGKILL)
    assert job.wait(timeout=WAIT) not in (0, 75)
    let_go(folder)
    done = nodes.run("n1", nodes.mpirun(1, "--no-predict"), folder)
    assert done.returncode == 0, done.stdout
    assert "Replayed" in done.stdout and results(folder) == results(uninterrupted)
