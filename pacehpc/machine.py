"""This machine's processor, cores, threads and memory; the one place that sets or reads threads of BLAS and OpenMP.

The kernels heed OMP_NUM_THREADS, and so do programs that this one starts: the number of kernel threads is kept there.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

UNSTOPPED = ("/bin/sh", "-c", 'trap "" TERM USR1 INT; exec "$@"', "sh")
"""Before the command of a child: it ignores the signals that ask a fit to stop, which batch systems send it, too."""
PROCESS_GROUPS, GROUPS = "/proc/self/cgroup", "/sys/fs/cgroup"


def processor() -> str:
    """Name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def physical_cores(processors: Iterable[int]) -> int:
    """Count the cores behind these logical processors: threads of one core count once, where the system tells."""
    cores = set()
    for number in processors:
        try:
            cores.add(
                Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text(encoding="utf-8")
            )
        except OSError:
            cores.add(str(number))
    return len(cores)


def share_of_cores(processes: int) -> int:
    """Physical cores for each of `processes` on this machine, and no more than this one may run on."""
    every = set(range(os.cpu_count() or 1))
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else every
    return max(1, min(physical_cores(own), physical_cores(every) // processes))


def threads_given() -> int | None:
    """The first number of OMP_NUM_THREADS; None where that is not a number above 0."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def kernel_threads() -> int:
    """Threads of this process's kernels: OMP_NUM_THREADS, else 1."""
    return threads_given() or 1


def set_kernel_threads(threads: int) -> None:
    """Fix the threads of the evaluators created from now on, whatever the environment said."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def set_blas_threads(threads: int) -> None:
    """Fix the threads of BLAS in this process. BLAS sums, and so an optimizer's steps, depend on them."""
    import scipy.linalg.blas  # noqa: F401  a library that is loaded later would not be limited
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads, user_api="blas")


@contextmanager
def blas_threads_at_most(threads: int | None) -> Iterator[None]:
    """Limit the threads of BLAS in the block; None: leave them."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads, user_api="blas"):
        yield


@contextmanager
def one_thread_of_numpy() -> Iterator[None]:
    """Limit numpy's BLAS to one thread in the block, in microseconds: for products in loops."""
    with _blas_of_numpy().limit(limits=1, user_api="blas"):
        yield


@cache
def _blas_of_numpy() -> ThreadpoolController:
    """Of the libraries that are loaded at its first use, of which numpy's is one."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def blas_libraries() -> list[dict]:
    """What threadpoolctl tells of each BLAS library in use."""
    from threadpoolctl import threadpool_info

    return [library for library in threadpool_info() if library["user_api"] == "blas"]


def blas_versions() -> dict[str, str]:
    """Version and kernels of each BLAS library in use, by name."""
    found = {}
    for library in blas_libraries():
        name = f"{library['internal_api']} of {'scipy' if 'scipy.libs' in library['filepath'] else 'numpy'}"
        found[name] = f"{library['version']} {library.get('architecture', '')}".strip()
    return found


def resident_memory() -> int:
    """Bytes of this process in memory now; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return 0
    return os.sysconf("SC_PAGE_SIZE") * pages


def return_freed_memory() -> None:
    """Return what this process has freed to the system, where its C library can: it would count as in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def available_memory() -> int | None:
    """Bytes that the machine, and each control group of this process, can still give; None where nothing tells."""
    found = [limit - used for limit, used in _group_limits()]
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    except OSError:
        pass
    return max(min(found), 0) if found else None


def total_memory() -> int:
    """Bytes of physical memory, or the limit of a control group of this process if that is smaller."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(limit for limit, _ in _group_limits())])


def _group_limits() -> list[tuple[int, int]]:
    """(limit, bytes in use that cannot be dropped) of this process's control group and of those that hold it.

    Slurm's --mem and the limits of containers are such. A group lies below the place where its kind is mounted; inside
    a container that place may be the group itself.
    """
    found = []
    try:
        lines = Path(PROCESS_GROUPS).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    for line in lines:
        number, controllers, name = line.split(":", 2)
        if number == "0":
            mount, limit, use, droppable = Path(GROUPS), "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, droppable = Path(GROUPS, "memory"), "total_inactive_file"
            limit, use = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in name.split("/") if part and part != ".."]
        for folder in (mount.joinpath(*parts[:n]) for n in range(len(parts) + 1)):
            try:
                text = (folder / limit).read_text(encoding="utf-8").strip()
                if text.isdecimal():
                    counts = dict(
                        row.split() for row in (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
                    )
                    found.append((int(text), int((folder / use).read_text(encoding="utf-8")) - int(counts[droppable])))
            except (OSError, KeyError):
                continue
    return found
