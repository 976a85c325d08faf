"""The checkpoint: one small file that names everything a running minimisation does not know.

    first line: SHA-256 of the rest; the rest: JSON

It is written beside, fsynced and renamed, at the start of each minimisation. Numbers are exact: JSON keeps every digit
that a float64 needs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pacehpc.errors import PacehpcError
from pacehpc.replacing import replace_file, sync_folder

FOLDER = Path("checkpoint")
STATE = "state.json"
FORMAT = 1


def save(folder: Path, body: dict[str, Any]) -> None:
    """Replace the checkpoint of `folder`; where that raises OSError, the old one stays."""
    if not folder.exists():
        folder.mkdir()
        sync_folder(folder.parent)
    text = json.dumps({"format": FORMAT, **body}).encode()
    replace_file(folder / STATE, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def load(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of `folder`, None if there is none. Raises PacehpcError if it is damaged or of another format."""
    path = folder / STATE
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PacehpcError(f"{path}: cannot be read: {error.strerror}.") from error
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise PacehpcError(
            f"{path}: damaged, it is not what was written. Restore it from a backup, or start again with `--fresh`, "
            "which moves everything aside (interim_potential_*.yaml there can be given as potential.initial_potential)."
        )
    body = json.loads(text)
    if body.get("format") != FORMAT:
        raise PacehpcError(
            f"{path}: written by another version of this program (format {body.get('format')}, not {FORMAT}). Use that "
            "version to resume, or start again with `--fresh`."
        )
    return body


def remove(folder: Path) -> None:
    """Forget the fit of `folder`: the checkpoint first, then what belonged to it."""
    (folder / STATE).unlink(missing_ok=True)
    if not folder.exists():
        return
    sync_folder(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
