"""One process: the helpers, the launcher's check, logging and exit codes. Several ranks: tests/mpi."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest

from pacehpc import parallel
from pacehpc.errors import PacehpcError
from pacehpc.parallel import AgreedError, Ranks


@pytest.fixture(autouse=True)
def no_handlers():
    yield
    parallel.close_logging()


ALONE = Ranks()


def test_alone_every_method_is_the_identity():
    assert (ALONE.rank, ALONE.size, ALONE.root, ALONE.node_rank, ALONE.node_size) == (0, 1, True, 0, 1)
    assert ALONE.broadcast("x") == "x" and ALONE.gather(3) == [3] == ALONE.gather_everywhere(3)
    assert ALONE.on_root(lambda: 4) == ALONE.share(lambda: 4) == 4
    assert ALONE.any(True) and not ALONE.any(False)
    np.testing.assert_array_equal(ALONE.sum([1.0, 2.0]), [1.0, 2.0])
    message = np.arange(3.0)
    ALONE.receive(message)
    assert message.tolist() == [0, 1, 2]


def test_a_users_error_on_the_root_is_agreed():
    def fail():
        raise PacehpcError("the input is wrong")

    for method in (ALONE.on_root, ALONE.share):
        with pytest.raises(AgreedError, match="the input is wrong"):
            method(fail)


def test_importing_the_package_never_imports_mpi():
    modules = "pacehpc.parallel, pacehpc.metrics, pacehpc.objective, pacehpc.cli, pacehpc.fit.run"
    code = f"import sys, {modules}; sys.exit('mpi4py.MPI' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", parallel.SIZE_VARIABLES)
def test_separately_launched_worlds_are_refused(name):
    with pytest.raises(PacehpcError, match=f"{name}=4.*4 separate programs"):
        parallel.check_launcher(1, {name: "4"})
    parallel.check_launcher(4, {name: "4"})
    parallel.check_launcher(1, {name: "1"})


def test_a_serial_command_inside_sbatch_is_no_separate_world():
    parallel.check_launcher(1, {"SLURM_NTASKS": "16", "SLURM_JOB_ID": "7"})


def test_rank_by_environment():
    assert parallel.launcher_rank({}) == 0
    assert parallel.launcher_rank({"SLURM_PROCID": "3"}) == 3
    assert parallel.launcher_rank({"PMI_RANK": "2", "SLURM_PROCID": "0"}) == 2


def test_log_file_is_appended_and_errors_go_to_stderr(tmp_path, capsys):
    file = tmp_path / "log.txt"
    file.write_text("before\n")
    parallel.setup_logging(ALONE, file)
    parallel.log.info("hello")
    parallel.log.warning("careful")
    parallel.log.error("wrong")
    parallel.close_logging()
    lines = file.read_text().splitlines()
    assert lines[0] == "before" and [line[23:] for line in lines[1:]] == [" I - hello", " W - careful", " E - wrong"]
    assert all(datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f") for line in lines[1:])
    out, err = capsys.readouterr()
    assert out.splitlines() == lines[1:3] and err == "ERROR: wrong\n"


def test_a_log_that_cannot_be_written_is_the_users_error(tmp_path):
    with pytest.raises(PacehpcError, match="cannot write the log"):
        parallel.setup_logging(ALONE, tmp_path / "missing" / "log.txt")


def test_run_keeps_codes_and_shows_users_errors_without_traceback(capsys):
    assert parallel.run(lambda: 75, ALONE) == 75

    def mistake():
        raise PacehpcError("input.yaml: fit.loss.kappa is 7")

    assert parallel.run(mistake, ALONE) == 1
    assert capsys.readouterr().err == "ERROR: input.yaml: fit.loss.kappa is 7\n"


def test_run_shows_the_traceback_of_other_exceptions(capsys):
    assert parallel.run(lambda: 1 // 0, ALONE) == 1
    err = capsys.readouterr().err
    assert err.count("Traceback") == 1 and "ZeroDivisionError" in err


def test_run_knows_interrupts_and_exits():
    def interrupted():
        raise KeyboardInterrupt

    assert parallel.run(interrupted, ALONE) == 130
    assert parallel.run(lambda: sys.exit(3), ALONE) == 3
