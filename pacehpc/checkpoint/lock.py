"""One fit per folder: a lock file, created with O_EXCL, that names its owner."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from pacehpc.checkpoint.files import cannot_write
from pacehpc.errors import PacehpcError
from pacehpc.late_files import PATIENCE, PAUSE
from pacehpc.slurm import squeue

NAME = "pacehpc.lock"

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")


class Lock:
    """The lock of a folder; `acquire` before anything is written there, `release` at the end.

    Attributes:
        taken_over: what is known of a former owner that had died, or "".
    """

    def __init__(self, folder: Path, job_ended: Callable[[str], bool] | None = None) -> None:
        self.path = folder.absolute() / NAME
        self._job_ended = job_ended or slurm_job_ended
        self._mine: bytes | None = None
        self.taken_over = ""

    def acquire(self) -> None:
        """Take the lock. Raises PacehpcError if another process works here, or may do so."""
        mine = json.dumps(identity()).encode()
        end = time.monotonic() + PATIENCE
        while not self._create(self.path, mine):
            if time.monotonic() > end:
                raise PacehpcError(f"{self.path}: other processes keep taking it; start one fit per folder.")
            try:
                other = self.path.read_bytes()
                age = time.time() - self.path.stat().st_mtime
            except FileNotFoundError:  # released, or made by another node and not seen here yet
                time.sleep(PAUSE)
                continue
            if not other and age < 10:  # being written
                time.sleep(PAUSE)
                continue
            self._take_over(other)
        self._mine = mine

    def _create(self, path: Path, data: bytes) -> bool:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            raise cannot_write(path, error) from None
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)  # without it a crash could leave an empty lock, which names no owner and never expires
        except OSError as error:
            path.unlink(missing_ok=True)
            raise cannot_write(path, error) from None
        finally:
            os.close(descriptor)
        return True

    def _take_over(self, other: bytes) -> None:
        """Remove the lock of a dead owner; raises PacehpcError where it may live."""
        try:
            owner = json.loads(other)
            int(owner["pid"]), owner["host"]
        except (ValueError, TypeError, KeyError):
            owner = {}
        why = dead(owner, self._job_ended) if owner else ""
        if not why:
            who = (
                f"process {owner.get('pid')} on {owner.get('host')}"
                + (f", job {owner['job']}" if owner.get("job") else "")
                + f", since {owner.get('since')}"
                if owner
                else "an unknown process"
            )
            raise PacehpcError(
                f"{self.path}: {who} works in this folder. Let it end (or end it), or use another folder. If you know "
                f"that it no longer runs, delete {NAME} and start again."
            )
        # one process at a time may take over, and only the lock that it has judged
        guard = self.path.with_name(NAME + ".takeover")
        if not self._create(guard, b""):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - guard.stat().st_mtime > 60:
                    raise PacehpcError(f"{guard} was left behind by a killed process: delete it and start again.")
            time.sleep(PAUSE)
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                if self.path.read_bytes() == other:
                    self.path.unlink()
                    self.taken_over = f"process {owner['pid']} on {owner['host']}: {why}"
        finally:
            guard.unlink(missing_ok=True)

    def release(self) -> None:
        """Remove the lock if it is still this process's."""
        with contextlib.suppress(OSError):
            if self._mine is not None and self.path.read_bytes() == self._mine:
                self.path.unlink()
        self._mine = None


def identity() -> dict[str, Any]:
    """This process: host, boot, process and its start, job."""
    return {
        "host": socket.gethostname(),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "namespace": _namespace(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "restart": os.environ.get("SLURM_RESTART_COUNT", "0"),
        "since": datetime.now().isoformat(sep=" ", timespec="seconds"),
    }


def dead(owner: dict[str, Any], job_ended: Callable[[str], bool]) -> str:
    """Why the owner of a lock is certainly dead; "" if it may live."""
    me = identity()
    if owner.get("host") == me["host"]:
        if owner.get("boot") and me["boot"] and owner["boot"] != me["boot"]:
            return "this machine was started again since"
        if owner.get("namespace") == me["namespace"]:
            started = _start_time(int(owner["pid"]))
            if not started or started != owner.get("started"):
                return "it no longer runs on this machine"
            return ""
    job = owner.get("job")
    if job and job == me["job"]:
        return "this is a later start of its job" if owner.get("restart") != me["restart"] else ""
    return f"Slurm says that job {job} has ended" if job and job_ended(job) else ""


def slurm_job_ended(job: str) -> bool:
    """Whether Slurm says so; without an answer, no."""
    done = squeue(job, "%T")
    if done is None:
        return False
    if done.returncode != 0:
        return "Invalid job id" in done.stderr
    return all(state in ENDED for state in done.stdout.split())


def _start_time(pid: int) -> str:
    """Start of a process in clock ticks, which tells it from a later one of the same number; "" if there is none."""
    text = _read(f"/proc/{pid}/stat")
    fields = text.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
