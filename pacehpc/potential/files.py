"""Writing files that are never seen half-written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pacehpc.errors import PacehpcError


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write text beside the final name, flush it to disk, and rename it: the old file stays until the new is whole."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):  # where nothing can be written, nothing can be removed
            beside.unlink(missing_ok=True)
        raise PacehpcError(f"{path}: cannot be written: {error.strerror}; check folder, rights and space") from None


def format_number(value: float) -> str:
    """17 significant digits: the text gives back the same float64, also the sign of -0, which is an integer in YAML."""
    text = f"{value:.17g}"
    return text if text != "-0" else "-0.0"


def format_list(values) -> str:
    """A list such as [1, 2.5] with 17 significant digits, nested lists alike."""
    return "[" + ", ".join(format_number(v) if isinstance(v, (int, float)) else format_list(v) for v in values) + "]"
