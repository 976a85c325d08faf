"""The one exception for mistakes that a user can fix."""

from __future__ import annotations

import io
import re
import sys


class PacehpcError(Exception):
    """What is wrong, where (file, key, structure), and what to do; shown without a traceback."""


def print_anything() -> None:
    """Let stdout and stderr show `?` for what the locale's encoding lacks (Å, names of files) instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def without_password(name: str) -> str:
    """A database's name as messages, logs and checkpoints show it."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", name)
