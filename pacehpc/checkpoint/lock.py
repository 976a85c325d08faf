"""One fit per folder: a lock file that names its owner."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from pacehpc.checkpoint.files import cannot_write, write_all
from pacehpc.errors import PacehpcError
from pacehpc.late_files import PATIENCE, PAUSE
from pacehpc.slurm import squeue

NAME = "pacehpc.lock"

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")


class Lock:
    """The lock of a folder; `acquire` before anything is written there, `release` at the end.

    A file that names an owner appears whole, or not at all. Where that owner is dead, its successor creates
    `pacehpc.lock.after-…`, named after the content of the dead lock, so that only one process can, and then renames it
    to `pacehpc.lock`. A successor that is killed in between is the owner that the next one has to judge: there is no
    moment at which a killed process leaves something that only the user can remove.

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
        start = time.monotonic()
        while True:
            owners = self._owners()
            # an empty one is being written where files cannot be linked, or was left so by a killed process
            judged = owners and (owners[-1] or time.monotonic() > start + 10)
            died = self._judge(owners[-1]) if judged else ""
            place = self._after(owners[-1]) if owners else self.path
            if (died or not owners) and create(place, mine):
                if self._owners()[-1:] == [mine]:
                    break
                place.unlink(missing_ok=True)  # what had been judged was no longer the lock
            if time.monotonic() > start + PATIENCE:
                raise PacehpcError(f"{self.path}: other processes keep taking it; start one fit per folder.")
            time.sleep(PAUSE)  # released, or made by another node and not seen here yet
        self._mine, self.taken_over = mine, died
        self._tidy(place)

    def _tidy(self, place: Path) -> None:
        """One file for the owner, and none of what killed processes have left."""
        try:
            os.replace(place, self.path)
            for other in self.path.parent.glob(f"{NAME}.after-*"):
                if other != self._after(self._mine):
                    other.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def _owners(self) -> list[bytes]:
        """What stands in the lock and in those of its successors; the last one is, or was, the owner."""
        owners: list[bytes] = []
        path = self.path
        with contextlib.suppress(FileNotFoundError):
            while True:
                owners.append(path.read_bytes())
                path = self._after(owners[-1])
        return owners

    def _after(self, owner: bytes) -> Path:
        return self.path.with_name(f"{NAME}.after-{hashlib.sha256(owner).hexdigest()[:16]}")

    def _judge(self, content: bytes) -> str:
        """What is known of an owner that is certainly dead; raises PacehpcError where it may live."""
        try:
            owner = json.loads(content)
            int(owner["pid"]), owner["host"]
        except (ValueError, TypeError, KeyError):
            owner = {}
        why = dead(owner, self._job_ended) if owner else ""
        if why:
            return f"process {owner['pid']} on {owner['host']}: {why}"
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

    def release(self) -> None:
        """Remove the lock if it is still this process's."""
        with contextlib.suppress(OSError):
            if self._mine is not None and self.path.read_bytes() == self._mine:
                self.path.unlink()
        self._mine = None


def create(path: Path, data: bytes) -> bool:
    """Create a file with its content in one step; False if it exists. Raises PacehpcError if it cannot be written."""
    beside = path.with_name(f".{NAME}-{secrets.token_hex(4)}.{os.getpid()}.tmp")
    try:
        write_new(beside, data)
        try:
            os.link(beside, path)
        except FileExistsError:
            return beside.stat().st_nlink == 2  # NFS may have made the link, and lost the answer
        except FileNotFoundError:  # taken for a leftover by a process on another node
            return False
        except OSError:  # a file system without links: a process that is killed here may leave half a lock
            try:
                write_new(path, data)
            except FileExistsError:
                return False
        return True
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):  # where nothing can be written, nothing can be removed
            beside.unlink(missing_ok=True)


def write_new(path: Path, data: bytes) -> None:
    """Write a file and bring it to the disk; raises OSError and leaves none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)  # without it a crash could leave an empty lock, which names no owner and never expires
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


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
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()  # names of processes may be any bytes
    except OSError:
        return ""
