"""The one exception for mistakes that a user can fix."""

from __future__ import annotations

import re


class PacehpcError(Exception):
    """What is wrong, where (file, key, structure), and what to do; shown without a traceback."""


def without_password(name: str) -> str:
    """A database's name as messages, logs and checkpoints show it."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", name)
