"""Writing files that are never seen half-written."""

from __future__ import annotations

import os
from pathlib import Path

from pacehpc.errors import PacehpcError
from pacehpc.replacing import replace_file


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write text beside the final name, flush it to disk, and rename it: the old file stays until the new is whole."""
    try:
        replace_file(Path(path), text.encode())
    except OSError as error:
        raise PacehpcError(f"{path}: cannot be written: {error.strerror}; check folder, rights and space") from None


def format_number(value: float) -> str:
    """17 significant digits: the text gives back the same float64, also the sign of -0, which is an integer in YAML."""
    text = f"{value:.17g}"
    return text if text != "-0" else "-0.0"


def format_list(values) -> str:
    """A list such as [1, 2.5] with 17 significant digits, nested lists included."""
    return "[" + ", ".join(format_number(v) if isinstance(v, (int, float)) else format_list(v) for v in values) + "]"
