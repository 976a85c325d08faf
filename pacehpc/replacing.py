"""Atomic file replacement: after a crash a reader finds either the complete old file or the complete new one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.tmp")
"""Names of files that were being written: `.NAME.PID.tmp`. Where that process is gone they are nobody's."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a file beside `path`, for the block to write; after it, brought to the disk and renamed to `path`.

    Whatever the block raises, or the OSError of bringing and renaming, leaves `path` as it was and nothing beside it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        descriptor = os.open(beside, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):  # where nothing can be written, nothing can be removed
            beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    """`data` as the new content of `path`; raises OSError and leaves `path` as it was."""
    with replacing(path) as beside:
        beside.write_bytes(data)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` last; some network file systems cannot, and need not."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
