"""Starts runs of the command by forking, after all imports, so that hundreds of killed runs cost seconds.

One JSON line per run on stdin: {"folder", "arguments", "fault", "trace"}; its process id comes back on stdout, and its
exit code when it has ended. fault: {"op", "name", "count", "when", "errno"}: at the count-th call of that function of
`os` on a file whose name contains `name`, before it, after it, or after half of what it writes, the process kills
itself, or the call fails with that errno. trace: a file that gets "op name" of each call.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import traceback
from pathlib import Path

import pacehpc.calculator
import pacehpc.fit.run  # noqa: F401
from pacehpc.cli import main

OPERATIONS = ("write", "pwrite", "fsync", "replace", "open", "unlink", "ftruncate")


def file_name(target: object) -> str:
    """The name of a path or descriptor, without process ids."""
    with contextlib.suppress(OSError):
        target = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
    return re.sub(r"\.\d+", "", Path(os.fspath(target)).name)


def install(fault: dict | None, trace: str | None) -> None:
    """Replace functions of `os` by ones that fail as asked."""
    log = None if trace is None else open(trace, "a", buffering=1)  # noqa: SIM115
    seen = 0

    def wrap(op: str, real):
        def call(*arguments, **keywords):
            nonlocal seen
            name = file_name(arguments[1 if op == "replace" else 0])
            if log is not None:
                log.write(f"{op} {name}\n")
            hit = fault is not None and fault["op"] == op and fault["name"] in name
            if hit:
                seen += 1
                hit = seen == fault["count"]
            if not hit:
                return real(*arguments, **keywords)
            if fault["when"] == "after":
                real(*arguments, **keywords)
            elif fault["when"] == "mid" and op in ("write", "pwrite"):
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], *arguments[2:])
            if fault.get("errno"):
                raise OSError(fault["errno"], os.strerror(fault["errno"]))
            os.kill(os.getpid(), signal.SIGKILL)

        return call

    for op in OPERATIONS:
        setattr(os, op, wrap(op, getattr(os, op)))


def child(job: dict) -> int:
    os.chdir(job["folder"])
    with open("/dev/null" if job.get("silent") else "stdout.txt", "a") as out, open(job["stderr"], "a") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
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
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
