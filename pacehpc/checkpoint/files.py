"""Writing files that grow, and the message where that fails."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

from pacehpc.errors import PacehpcError

FULL_OR_FORBIDDEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)
"""Errors of writing that the user can remove."""

SYNC_INTERVAL = 1.0
"""Seconds between two syncs of a file that grows."""
_sync_data = getattr(os, "fdatasync", os.fsync)


def write_all(descriptor: int, data: bytes, offset: int | None = None) -> None:
    """Write all of `data` to a file descriptor, at `offset` or at its position; raises OSError, such as a full disk."""
    view = memoryview(data)
    while view:
        n = os.write(descriptor, view) if offset is None else os.pwrite(descriptor, view, offset)
        view = view[n:]
        offset = None if offset is None else offset + n


class BackgroundSync:
    """Brings a file to the disk while its writer continues, at most once in `SYNC_INTERVAL`.

    What a process wrote outlives the process without this; it limits what the loss of the machine costs.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None
        self._last = time.monotonic()

    def wrote(self, descriptor: int) -> None:
        """Call after each write; raises the OSError of an earlier sync."""
        self._raise()
        now = time.monotonic()
        if now - self._last < SYNC_INTERVAL or (self._thread is not None and self._thread.is_alive()):
            return
        self._last = now
        self._thread = threading.Thread(target=self._sync, args=(descriptor,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until no sync is under way: the file may be closed. Raises its OSError."""
        if self._thread is not None:
            self._thread.join()
        self._raise()

    def _sync(self, descriptor: int) -> None:
        try:
            _sync_data(descriptor)
        except OSError as error:
            self._error = error

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def cannot_write(path: Path, error: OSError) -> PacehpcError:
    """The error for a full disk and the like."""
    return PacehpcError(
        f"{path}: cannot be written: {error.strerror or error}. What was written before is complete: make space (or "
        "remove the cause) and run the same command again; it resumes a fit that has started."
    )
