"""Files that another node has just written, on file systems that show them late.

An NFS client answers from its cache for up to a minute, also that there is no file of a name. Opening a folder and
listing it asks the server; on other file systems time alone helps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from pacehpc.errors import PacehpcError

PATIENCE = 90.0  # s; a client of NFS keeps what it knows of a folder for 60 s by default
PAUSE = 0.1

T = TypeVar("T")


def wait_for_listed(folder: Path, names: Iterable[str] = ("*",), patience: float = PATIENCE) -> None:
    """Return when all files that the folder lists can be found under their names; those that match one of `names`.

    Raises:
        PacehpcError: a file that is listed cannot be found.
    """
    patterns = list(names)

    def missing() -> list[str]:
        try:
            listed = os.listdir(folder)
        except FileNotFoundError:
            return []
        wanted = [name for name in listed if any(fnmatch(name, pattern) for pattern in patterns)]
        return [name for name in wanted if not os.path.lexists(folder / name)]

    def found() -> None:
        if lost := missing():
            raise PacehpcError(
                f"{folder / lost[0]}: is listed in its folder but cannot be found. Another node may have written it a "
                "moment ago: try again in a minute; otherwise check the file system."
            )

    retry(found, patience)


def retry(function: Callable[[], T], patience: float = PATIENCE) -> T:
    """The value of `function`, which is called again as long as it raises PacehpcError and there is time."""
    end = time.monotonic() + patience
    while True:
        try:
            return function()
        except PacehpcError:
            if time.monotonic() > end:
                raise
            time.sleep(PAUSE)
