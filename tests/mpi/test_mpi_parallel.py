"""How a job of several ranks ends: codes kept, an exception shown once, nobody left hanging."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from launch import ROOT, python

PROGRAM = """
import sys, time
from pacehpc import parallel
from pacehpc.errors import PacehpcError

ranks = parallel.Ranks.world()
rank, size = ranks.rank, ranks.size


def fail():
    raise PacehpcError("the input is wrong")


def program():
    parallel.setup_logging(ranks)
    ranks.barrier()
    case = sys.argv[1]
    if case == "code":
        return 75
    if case == "every":
        parallel.TURN = 60  # even if the first rank is slow, no other one shows its message
    if case == "last" and rank == size - 1 or case == "every":
        raise ValueError("broken")
    if case == "user" and rank == 1:
        fail()
    if case == "agreed":
        ranks.on_root(fail)
    if case == "shared":
        ranks.share(fail)
    if case == "each":
        ranks.on_each(fail if rank else lambda: None)
    if case == "share":
        assert ranks.share(lambda: {"rank": rank}) == {"rank": 0}
        assert ranks.on_root(lambda: 1) == (1 if rank == 0 else None) and ranks.on_each(lambda: rank) == rank
        assert ranks.sum([rank, 1.0]).tolist() == [size * (size - 1) / 2, size]
        assert ranks.any(rank == 1) and not ranks.any(False)
        assert ranks.gather(rank) == ([0, 1, 2] if rank == 0 else None)
        assert ranks.gather_everywhere(rank) == [0, 1, 2]
        assert (ranks.node_rank, ranks.node_size, ranks.root) == (rank, size, rank == 0)
        parallel.log.info("information")
        parallel.log.warning("warning")
        return 0
    ranks.barrier()
    time.sleep(60)
    print("nobody ended this rank", flush=True)


sys.exit(parallel.run(program, ranks))
"""


def run(case, n_ranks=3):
    done = python(n_ranks, PROGRAM, case)
    assert "nobody ended this rank" not in done.stdout
    return done


def test_helpers_on_three_ranks():
    done = run("share")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("information") == 1
    assert " W - warning" in done.stdout and "[rank 2 of 3] WARNING: warning" in done.stderr


def test_the_exit_code_of_an_orderly_end_is_kept():
    assert run("code").returncode == 75


@pytest.mark.parametrize("case", ["last", "every"])
def test_an_exception_ends_all_ranks_and_is_shown_once(case):
    done = run(case)
    assert done.returncode != 0
    assert done.stderr.count("Traceback") == 1 and done.stderr.count("ValueError: broken") == 1


@pytest.mark.parametrize("case", ["user", "agreed", "shared", "each"])
def test_a_users_error_is_one_message_without_traceback(case):
    done = run(case)
    assert done.returncode == 1
    assert done.stderr.count("the input is wrong") == 1 and "Traceback" not in done.stderr
    # mpirun may lose the last words of an aborting rank; without an abort, "user" would wait for ever
    assert case == "user" or "MPI_Abort" not in done.stderr


def test_an_abort_waits_until_the_message_is_read(tmp_path):
    code = (
        "import sys; from pathlib import Path; from pacehpc import parallel\nprint('message', flush=True)\n"
        "Path('written').touch(); parallel._wait_for_reader(60.0); Path('read').touch()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path, stdout=subprocess.PIPE) as job:
        while not (tmp_path / "written").exists():
            assert job.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)
        assert not (tmp_path / "read").exists()
        assert job.stdout.readline() == b"message\n"
    assert job.returncode == 0 and (tmp_path / "read").exists()


def test_ranks_that_do_not_see_each_other_are_refused():
    code = "from pacehpc import Ranks; Ranks.world()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLURM_STEP_NUM_TASKS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=False)
    assert done.returncode != 0 and "separate programs" in done.stderr
