"""Starts runs of the command by forking, after all imports, so that hundreds of killed runs cost seconds.

One JSON line per run on stdin: {"folder", "arguments", "fault", "trace"}; its process id comes back on stdout, and its
exit code when it has ended. fault: {"op", "name", "count", "when", "errno"}: at the count-th call of that function of
the C library (see faults.cpp) on a file of the folder whose name contains `name`, before it, after it, or after half of
what it writes, the process kills itself, or the call fails with that errno. trace: a file that gets "op name" of each
call. sync_always: growing files are brought to the disk after each write, not once in a second.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import sys
import traceback

import mpi4py  # noqa: F401
import pandas  # noqa: F401
import threadpoolctl  # noqa: F401
import vesin  # noqa: F401

import pacehpc.backends.cpu_rows  # noqa: F401
import pacehpc.calculator  # noqa: F401
import pacehpc.fit.run  # noqa: F401
import pacehpc.utilities.clean  # noqa: F401
from pacehpc.backends.compile import made_with
from pacehpc.checkpoint import files
from pacehpc.cli import main
from pacehpc.fit import record


def install(fault: dict | None, trace: str | None) -> None:
    """Arm the library faults.cpp, which stands between this process and the C library."""
    given = {"op": "", "name": "", "count": 0, "when": "before", "errno": 0, **(fault or {})}
    descriptor = -1 if trace is None else os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    texts = [os.fsencode(text) for text in (os.getcwd(), given["op"], given["name"])]
    when = ("before", "mid", "after").index(given["when"])
    count, number = ctypes.c_long(given["count"]), given["errno"] or 0
    ctypes.CDLL(None).arm(*texts, count, when, number, descriptor)


def child(job: dict) -> int:
    os.chdir(job["folder"])
    with open("/dev/null" if job.get("silent") else "stdout.txt", "a") as out, open(job["stderr"], "a") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    if job.get("sync_always"):
        files.SYNC_INTERVAL = 0.0
    install(job.get("fault"), job.get("trace"))
    try:
        return main(job["arguments"])
    except BaseException:
        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    made_with()  # asks the compiler for its version and macros, once for all runs
    gc.freeze()  # else the first collection of each run copies the memory of all that is imported
    record.INTERIM_SHARE = math.inf  # at every iteration, whatever the time spent
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
