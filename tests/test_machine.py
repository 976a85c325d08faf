from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pacehpc import machine
from pacehpc.machine import kernel_threads, set_blas_threads, set_kernel_threads, threads_given

VALUES = {"4": 4, " 3 ": 3, "2,1": 2, "07": 7, "": None, "0": None, "-2": None, "all": None, "1.5": None, "²": None}


@pytest.mark.parametrize("text", VALUES)
def test_threads_of_the_environment(monkeypatch, text):
    """Whoever asks gets the same number."""
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads_given() == VALUES[text]
    assert kernel_threads() == (VALUES[text] or 1)
    set_kernel_threads(5)
    assert threads_given() == kernel_threads() == 5


def test_unset(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_given() is None
    assert kernel_threads() == 1


def test_cores_are_shared_by_the_processes_of_a_machine():
    cores = machine.physical_cores(range(os.cpu_count()))
    own = machine.physical_cores(os.sched_getaffinity(0))
    assert 1 <= cores <= os.cpu_count()
    assert [machine.share_of_cores(n) for n in (1, 2, 10**6)] == [min(own, cores), max(1, min(own, cores // 2)), 1]


def test_blas_threads_are_what_is_asked_for_whatever_the_environment_says(monkeypatch):
    import numpy  # noqa: F401  its BLAS is what is limited

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")

    def threads() -> set[int]:
        return {library["num_threads"] for library in machine.blas_libraries()}

    with machine.blas_threads_at_most(None):  # puts back what is changed in it
        for number in (1, 2):
            set_blas_threads(number)
            assert threads() == {number}
        with machine.blas_threads_at_most(1):
            assert threads() == {1}
        assert threads() == {2}


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_count(version, tmp_path, monkeypatch):
    """A limit stands above the process's own group, as Slurm sets it for a job; what can be dropped is free."""
    mount = tmp_path / ("memory" if version == 1 else "")
    names = ("limit_in_bytes", "usage_in_bytes", "total_") if version == 1 else ("max", "current", "")
    for folder, limit, used in (
        ("slurm/job_7", 3 << 30, 2 << 30),
        ("slurm/job_7/step_0/task_0", 2**63 - 4096, 1 << 30),
    ):
        group = mount / folder
        group.mkdir(parents=True)
        (group / f"memory.{names[0]}").write_text(f"{limit}\n" if version == 1 or limit < 1 << 40 else "max\n")
        (group / f"memory.{names[1]}").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon 5\n{names[2]}inactive_file {1 << 28}\n")
    (tmp_path / "groups").write_text(
        "9:cpu:/\n4:hugetlb,memory:/slurm/job_7/step_0/task_0\n0::/\n"
        if version == 1
        else "0::/slurm/job_7/step_0/task_0\n"
    )
    monkeypatch.setattr(machine, "PROCESS_GROUPS", str(tmp_path / "groups"))
    monkeypatch.setattr(machine, "GROUPS", str(tmp_path))
    assert machine.total_memory() == min(3 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    assert machine.available_memory() <= (1 << 30) + (1 << 28)
    (mount / "slurm/job_7" / f"memory.{names[1]}").write_text(f"{4 << 30}\n")
    assert machine.available_memory() == 0


def test_pages_of_this_machine():
    """The same process by another count of the kernel's, in kB."""
    with open("/proc/self/status") as status:
        held = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    assert machine.resident_memory() == pytest.approx(1024 * held, rel=0.2)


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads in /proc")
def test_the_command_starts_no_threads_of_blas_before_they_are_asked_for():
    code = (
        "import os, pacehpc.__main__, numpy, scipy.linalg\nprint(len(os.listdir('/proc/self/task')))\n"
        "from threadpoolctl import threadpool_info\nfrom pacehpc.machine import set_blas_threads\nset_blas_threads(2)\n"
        "print({pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas'})"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.split("\n")[:2] == ["1", "{2}"]
