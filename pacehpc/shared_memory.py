"""Shared memory that MPICH left behind when a job was killed.

MPICH names the segment of a node's ranks after the launcher's job and step, so that a job that was killed and put back
into the queue finds the old one on the same node and fails in MPI_Init, at every start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

FOLDER = Path("/dev/shm")
PATTERN = "mpich_shm_*"
YOUNG = 2.0  # s in which a segment may exist and not yet be mapped
PATIENCE = 10.0  # s for other ranks of the node that do the same


def remove_left_segments(folder: Path = FOLDER) -> list[str]:
    """Remove the user's segments that no process maps; returns their names. Called before MPI starts.

    Every rank calls it, one at a time on a node, so that none can find an old segment or remove a new one.
    """
    removed: list[str] = []
    with contextlib.suppress(OSError):
        if not any(folder.glob(PATTERN)):
            return removed
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if not _locked(descriptor):
                return removed
            left = {path.name for path in folder.glob(PATTERN) if _old_and_mine(path)}
            for name in left - _mapped() if left else ():
                with contextlib.suppress(OSError):
                    (folder / name).unlink()
                    removed.append(name)
        finally:
            os.close(descriptor)
    return removed


def _locked(descriptor: int) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.01)
    return False


def _old_and_mine(path: Path) -> bool:
    try:
        info = path.stat()
    except OSError:
        return False
    return info.st_uid == os.getuid() and abs(time.time() - info.st_mtime) > YOUNG


def _mapped() -> set[str]:
    """Names of the segments that processes of this machine map."""
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")  # any bytes may be a name
            found |= {Path(line).name for line in lines if "/mpich_shm_" in line}
    return found
