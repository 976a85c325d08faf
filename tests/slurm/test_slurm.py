"""The job scripts of jobscripts/, submitted for real, with the lines that users edit changed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from held_fits import AT_ONCE, HELD, hold, iterations, let_go, wait_for
from small_fit import SMALL_FIT

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slurm, pytest.mark.slow]
INPUT = f"""{SMALL_FIT}\
  maxiter: 30
  fit_cycles: 2
  noise_relative_sigma: 1e-2
  callbacks: stop_after.some
backend: {{evaluator: cpu, display_step: 2}}
"""
# The callback ends each start after some new iterations, as the end of its allocation would: by a signal.
CALLBACK = """
import os, signal
from pathlib import Path
calls = 0
def some(**keywords):
    global calls
    calls += 1
    mark = Path("calls.txt")
    seen = int(mark.read_text()) if mark.exists() else 0
    if calls > seen:
        mark.write_text(str(calls))
        if calls - START == EACH:
            os.kill(os.getpid(), signal.SIGUSR1)
START = int(Path("calls.txt").read_text()) if Path("calls.txt").exists() else 0
EACH = 25
"""
QUICKLY = AT_ONCE.replace("wait", "some")
STOPPED_BY_THE_TEST = HELD.replace("def wait", "def some")


def script(folder: Path, name: str, **edits: str) -> Path:
    """A copy of a template: two ranks on one node, no predictions, and further edits of its lines."""
    text = (ROOT / "jobscripts" / name).read_text()
    text = re.sub(r"(#SBATCH --ntasks-per-node=)\d+", r"\g<1>2", text)
    text = re.sub(r"(#SBATCH --time=)\S+", r"\g<1>30:00", text)
    text = text.replace('pacehpc "$input"', f'{sys.executable} -m pacehpc "$input" --no-predict')
    text = text.replace("pacehpc input.yaml\n", f"{sys.executable} -m pacehpc input.yaml --no-predict\n")
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


def prepare(folder: Path, callback: str = CALLBACK) -> Path:
    folder.mkdir()
    (folder / "input.yaml").write_text(INPUT)
    (folder / "stop_after.py").write_text(callback)
    return folder


def results(folder: Path) -> list[str]:
    texts = [(folder / f"{name}.txt").read_text() for name in ("metrics", "test_metrics", "cycle_metrics")]
    lines = (folder / "output_potential.yaml").read_text().splitlines()
    return [*texts, *(line for line in lines if "starttime" not in line)]


@pytest.fixture(scope="module")
def uninterrupted(slurm, tmp_path_factory):
    folder = prepare(tmp_path_factory.mktemp("whole") / "fit", QUICKLY)
    job = slurm.run("sbatch", "--parsable", str(script(folder, "cpu.sh")), cwd=folder)
    slurm.wait_all()
    assert slurm.state(job) == "COMPLETED", (folder / f"slurm-{job}.out").read_text()
    return folder


def test_three_allocations_of_a_requeueing_job_equal_one(slurm, uninterrupted, tmp_path):
    folder = prepare(tmp_path / "fit")
    job = slurm.run("sbatch", "--parsable", str(script(folder, "requeue.sh")), cwd=folder)
    slurm.wait_all()
    text = (folder / "log.txt").read_text()
    assert slurm.state(job) == "COMPLETED", (folder / f"slurm-{job}.out").read_text()
    assert text.count("Stopped cleanly") == 2 and "Restarts=2" in slurm.run("scontrol", "show", "job", job)
    assert results(folder) == results(uninterrupted)


def test_a_start_that_gains_nothing_is_not_requeued(slurm, tmp_path):
    folder = prepare(tmp_path / "fit")
    # a time that ends before the first evaluation; the prepared data are there from the first start
    path = script(folder, "requeue.sh", **{"--no-predict": "--no-predict --max-time 0:00:01"})
    job = slurm.run("sbatch", "--parsable", str(path), cwd=folder)
    slurm.wait_all()
    assert slurm.state(job) == "FAILED"
    assert "gained no evaluation" in (folder / f"slurm-{job}.out").read_text()


def test_a_chain(slurm, uninterrupted, tmp_path):
    folder = prepare(tmp_path / "fit")
    slurm.run("sbatch", "--parsable", str(script(folder, "chain.sh")), cwd=folder)
    slurm.wait_all()
    assert (folder / "log.txt").read_text().count("Stopped cleanly") == 2
    assert results(folder) == results(uninterrupted)


def test_an_array(slurm, tmp_path):
    folder = prepare(tmp_path / "fit", QUICKLY)
    text = INPUT.replace("  callbacks: stop_after.some\n", "").replace("maxiter: 30", "maxiter: 5")
    (folder / "input.yaml").write_text(text)
    edits = {"--array=1-8": "--array=1-2"}
    slurm.run("sbatch", "--parsable", str(script(folder, "ensemble.sh", **edits)), cwd=folder)
    slurm.wait_all()
    members = [results(folder / f"member_{k}") for k in (1, 2)]
    assert members[0] != members[1]


def test_workers_of_a_scan(slurm, tmp_path):
    folder = prepare(tmp_path / "fit")
    text = INPUT.replace("  callbacks: stop_after.some\n", "").replace("maxiter: 30", "maxiter: 5")
    text = text.replace(", test_size: 0.2", "")
    (folder / "input.yaml").write_text(text + "scan: {kappa: [0.05, 0.5], trials: 3}\n")
    path = script(folder, "scan.sh", **{"--array=1-4": "--array=1-2"})
    path.write_text(path.read_text().replace("pacehpc scan", f"{sys.executable} -m pacehpc scan"))
    slurm.run("sbatch", "--parsable", str(path), cwd=folder)
    slurm.wait_all()
    said = "".join(out.read_text() for out in folder.glob("slurm-*.out"))
    assert said.count(": error ") == 3, said
    assert len(list(folder.glob("scan/trial_*/output_potential.yaml"))) == 3


DEVICES = """
import os
from pathlib import Path
def some(**keywords):
    names = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "OMP_NUM_THREADS")
    Path("seen.txt").write_text(" ".join(os.environ.get(name, "?") for name in names))
"""


@pytest.mark.parametrize(
    ("name", "edits", "seen"),
    [
        ("gpu_node.sh", {"--gpus-per-node=1": "--gpus-per-node=2"}, "0,1 1 2 1"),
        ("gpu_nodes.sh", {"--nodes=4": "--nodes=2", "--gpus-per-node=4": "--gpus-per-node=2"}, "0,1 2 4 1"),
    ],
)
def test_nodes_with_gpus(slurm, tmp_path, name, edits, seen):
    """The kernels run on the host (tests/fake_cupy); the devices are those that this Slurm believes in."""
    folder = prepare(tmp_path / "fit", DEVICES)
    (folder / "input.yaml").write_text(
        INPUT.replace("maxiter: 30", "maxiter: 2").replace("fit_cycles: 2", "fit_cycles: 1")
    )
    threads = {"--cpus-per-task=8": "--cpus-per-task=1"}
    path = script(folder, name, **edits, **threads)
    stand_in = f"export PYTHONPATH={ROOT}:{ROOT}/tests/fake_cupy FAKE_CUPY_DEVICES=2\nlaunch="
    path.write_text(path.read_text().replace("launch=", stand_in, 1))
    job = slurm.run("sbatch", "--parsable", str(path), cwd=folder)
    slurm.wait_all()
    assert slurm.state(job) == "COMPLETED", (folder / f"slurm-{job}.out").read_text()
    assert (folder / "seen.txt").read_text() == seen
    log = (folder / "log.txt").read_text()
    used = re.findall(r"Rank (\d+): \S+, .*?(\d)", log)
    assert [int(rank) for rank, _ in used] == list(range(int(seen.split()[2]))), log
    assert "Fitted potential" in log


def test_preparation_and_then_the_fit(slurm, uninterrupted, tmp_path):
    folder = prepare(tmp_path / "fit", QUICKLY)
    script(folder, "cpu.sh")
    path = folder / "prepare_and_fit.sh"
    text = (ROOT / "jobscripts" / path.name).read_text()
    edits = {
        "prepare_time=2:00:00": "prepare_time=30:00",  # the test's partition allows an hour
        "pacehpc compile": f"{sys.executable} -m pacehpc compile",
        '"pacehpc $(': f'"{sys.executable} -m pacehpc $(',
    }
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    said = slurm.run("bash", str(path), cwd=folder)
    fit = re.search(r"Submitted batch job (\d+)", said)[1]
    slurm.wait_all()
    assert slurm.state(fit) == "COMPLETED", (folder / f"slurm-{fit}.out").read_text()
    log = (folder / "log.txt").read_text()
    assert "Prepared: prepared_data.h5" in log and "data: prepared before" in log
    assert results(folder) == results(uninterrupted)


SLOWLY = "import time\ndef some(**keywords):\n    time.sleep(1.0)\n"
MPIRUN = f'({Path(sys.executable).parent}/mpirun -n "$SLURM_NTASKS")'
# The shortest limit of Slurm is a minute: the allocation's end is moved instead, which Slurm allows its administrator.
# The test replaces SECONDS.
SOON = "$(date -d '+SECONDS seconds' +%Y-%m-%dT%H:%M:%S)"
END = f'scontrol update "JobId=$SLURM_JOB_ID" "EndTime={SOON}"\n'
ASKED = f"{END}unset SLURM_JOB_END_TIME\n"
GIVEN = f'{END}export SLURM_JOB_END_TIME="$(date -d "$(squeue -h -j "$SLURM_JOB_ID" -o %e)" +%s)"\nexport PATH="$MPI"\n'
SAID = " --max-time $(date -u -d @SECONDS +%H:%M:%S)"


def field(slurm, job: str, name: str) -> str:
    """Of `scontrol show job`."""
    return re.search(rf"\b{name}=(\S+)", slurm.run("scontrol", "show", "job", job))[1]


def test_the_end_of_the_allocation_stops_in_order_with_75(slurm, uninterrupted, tmp_path):
    """As Slurm is asked for it, as newer Slurm says it in a variable, and as the user says it; srun and mpirun."""
    without_squeue = tmp_path / "bin"
    without_squeue.mkdir()
    for name in ("bash", "date", "srun"):  # mpirun starts its proxies with srun
        (without_squeue / name).symlink_to(shutil.which(name))
    given = GIVEN.replace("$MPI", f"{Path(sys.executable).parent}:{without_squeue}")
    cases = {
        "asked_srun": (ASKED, "(srun --mpi=pmi2 -K)", ""),
        "asked_mpirun": (ASKED, MPIRUN, ""),
        "given_mpirun": (given, MPIRUN, ""),
        "said_srun": ("unset SLURM_JOB_END_TIME\n", "(srun --mpi=pmi2 -K)", SAID),
    }
    for name in cases:
        prepare(tmp_path / name, SLOWLY)
    jobs, given_seconds = {}, {}
    for seconds in (25, 50, 100, 150):  # longer where a machine needs longer to begin
        early = [name for name in cases if not iterations(tmp_path / name)]
        for name in early:
            before, launch, option = (text.replace("SECONDS", str(seconds)) for text in cases[name])
            folder, given_seconds[name] = tmp_path / name, seconds
            edits = {"(srun --mpi=pmi2 -K)": launch, "launch=": f"{before}launch="}
            edits["--no-predict"] = f"--no-predict{option}"
            jobs[name] = slurm.run("sbatch", "--parsable", str(script(folder, "cpu.sh", **edits)), cwd=folder)
        slurm.wait_all()
    for name, job in jobs.items():
        folder = tmp_path / name
        log = (folder / "log.txt").read_text()
        assert field(slurm, job, "ExitCode") == "75:0", (name, (folder / f"slurm-{job}.out").read_text())
        assert "Stopped cleanly (the end of the time)" in log and "Iteration   #" in log
        until = datetime.fromisoformat(re.findall(r"Time until (\S+ \S+)", log)[-1])
        began, ended = (datetime.fromisoformat(field(slurm, job, name)) for name in ("StartTime", "EndTime"))
        assert began < ended < until and (until - began).total_seconds() < given_seconds[name] + 30
        (folder / "stop_after.py").write_text(QUICKLY)
        script(folder, "cpu.sh")
        jobs[name] = slurm.run("sbatch", "--parsable", "cpu.sh", cwd=folder)
    slurm.wait_all()
    for name, job in jobs.items():
        assert slurm.state(job) == "COMPLETED", (tmp_path / name / f"slurm-{job}.out").read_text()
        assert results(tmp_path / name) == results(uninterrupted)


def processes_of(slurm, job: str, daemons: bool) -> list[int]:
    """What runs for a job: its script, srun and ranks, and with `daemons` those of Slurm that watch them."""
    found, conf = [], f"SLURM_CONF={slurm.environment['SLURM_CONF']}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (path / "environ").read_bytes().split(b"\0")
            step = (path / "cmdline").read_bytes().startswith(f"slurmstepd: [{job}.".encode())
            if (step and daemons) or {f"SLURM_JOB_ID={job}".encode(), conf} <= set(variables):
                found.append(int(path.name))
    return found


def kill(processes: list[int]) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_job_goes_on_when_it_is_submitted_again(slurm, uninterrupted, tmp_path):
    """kill -9 of everything that the job has, its script as well."""
    folder = prepare(tmp_path / "fit", STOPPED_BY_THE_TEST)
    path = script(folder, "cpu.sh")
    for wanted in (7, 20):
        hold(folder, wanted)
        job = slurm.run("sbatch", "--parsable", str(path), cwd=folder)
        wait_for(lambda: iterations(folder) >= wanted)  # noqa: B023
        victims = processes_of(slurm, job, daemons=False)
        assert len(victims) >= 4
        kill(victims)
        slurm.wait_all()
        assert slurm.state(job) != "COMPLETED" and "Stopped cleanly" not in (folder / "log.txt").read_text()
        assert (folder / "pacehpc.lock").exists()
    let_go(folder)
    job = slurm.run("sbatch", "--parsable", str(path), cwd=folder)
    slurm.wait_all()
    assert slurm.state(job) == "COMPLETED", (folder / f"slurm-{job}.out").read_text()
    assert (folder / "log.txt").read_text().count("Replayed") == 2
    assert results(folder) == results(uninterrupted)


def test_the_loss_of_a_node_puts_the_job_on_another_one(slurm, uninterrupted, tmp_path):
    """Its daemon and all processes die at once; the same job goes on elsewhere with the same bits.

    Both nodes are this machine: what the killed ranks left in shared memory lies in the way of the next start.
    """
    folder = prepare(tmp_path / "fit", STOPPED_BY_THE_TEST)
    hold(folder, 12)
    job = slurm.run("sbatch", "--parsable", str(script(folder, "requeue.sh")), cwd=folder)
    wait_for(lambda: iterations(folder) >= 12)
    node = field(slurm, job, "NodeList")
    try:
        daemon = Path(slurm.environment["SLURM_CONF"]).with_name(f"slurmd-{node}.pid")
        kill([int(daemon.read_text()), *processes_of(slurm, job, daemons=True)])
        let_go(folder)
        slurm.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")
        slurm.wait_all()
        assert slurm.state(job) == "COMPLETED", (folder / f"slurm-{job}.out").read_text()
        assert field(slurm, job, "Restarts") == "1" and field(slurm, job, "NodeList") != node
    finally:
        slurm.run("slurmd", "-N", node, "-f", slurm.environment["SLURM_CONF"])
        wait_for(lambda: slurm.run("sinfo", "-h", "-n", node, "-o", "%T") == "idle")
    log = (folder / "log.txt").read_text()
    assert "Took over the lock of this folder, which was left by" in log and "Replayed" in log
    assert results(folder) == results(uninterrupted)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "jobscripts").glob("*.sh")))
def test_every_template_parses_and_is_strict(name):
    text = (ROOT / "jobscripts" / name).read_text()
    assert subprocess.run(["bash", "-n", str(ROOT / "jobscripts" / name)], check=False).returncode == 0
    assert "set -euo pipefail" in text and "EDIT" in text


def test_what_is_asked_of_slurm_whatever_the_user_has_set(slurm, tmp_path):
    """Of a real job: that it runs, and when it ends, for somebody who has chosen other states and times."""
    job = slurm.run("sbatch", "--parsable", "--time=10", "--wrap", "sleep 600", cwd=tmp_path)
    code = f"""
from pacehpc.checkpoint.lock import slurm_job_ended
from pacehpc.walltime import find_deadline
print(slurm_job_ended("{job}"), find_deadline(None, {{"SLURM_JOB_ID": "{job}"}}))
"""
    wait_for(lambda: slurm.state(job) == "RUNNING")
    chosen = {"SQUEUE_STATES": "PENDING", "SLURM_TIME_FORMAT": "relative"}
    said = subprocess.check_output([sys.executable, "-c", code], env={**slurm.environment, **chosen}, text=True)
    ended, deadline = said.split()
    assert ended == "False"
    assert datetime.fromtimestamp(float(deadline)) == datetime.fromisoformat(field(slurm, job, "EndTime"))
    slurm.run("scancel", job)
    slurm.wait_all()
    said = subprocess.check_output([sys.executable, "-c", code], env={**slurm.environment, **chosen}, text=True)
    assert said.startswith("True")
