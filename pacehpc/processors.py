"""The name of this machine's processor, and the threads that the environment gives to one process."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """Name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def threads_given() -> int | None:
    """What OMP_NUM_THREADS says, of a list its first number; None where that is not a number above 0."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def kernel_threads() -> int:
    """Threads of the kernels of one rank: OMP_NUM_THREADS, else 1."""
    return threads_given() or 1
