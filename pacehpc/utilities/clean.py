"""`pacehpc --clean`: remove what runs wrote in a folder, by their own record of it.

A run records, before it writes anything, which files with names of outputs are there already: those are not its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from glob import escape
from pathlib import Path

from pacehpc.checkpoint.lock import NAME as LOCK
from pacehpc.errors import PacehpcError
from pacehpc.replacing import LEFTOVER, replace_file
from pacehpc.utilities.command import command

MANIFEST = ".pacehpc_outputs.json"
CHECKPOINT = "checkpoint"  # there only while a fit is unfinished
PREPARED = ("prepared_data.h5", "prepared_test_data.h5")


def patterns(outputs: Iterable[str]) -> list[str]:
    """Names, with wildcards, of all that a run may write; `outputs`: the names that its command line gave."""
    from pacehpc.fit.outputs import RESULTS

    return [*(f"{name}/*" if name == "report" else name for name in RESULTS), *PREPARED, *map(escape, outputs)]


def _matches(folder: Path, names: Iterable[str]) -> set[str]:
    found = set()
    for name in names:
        inside = Path(name)
        if inside.is_absolute() or ".." in inside.parts:
            continue  # written elsewhere: nothing of this folder
        found |= {str(path.relative_to(folder)) for path in folder.glob(name) if path.is_file() or path.is_symlink()}
    return found


class _Damaged(Exception):
    """The record does not say what runs wrote."""


def _read(folder: Path) -> dict[str, list[str]]:
    try:
        held = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        lists = {key: [str(name) for name in held[key]] for key in ("outputs", "foreign")}
    except FileNotFoundError:
        return {"outputs": [], "foreign": []}
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        raise _Damaged from None
    return lists


def record(folder: Path, outputs: Sequence[str]) -> None:
    """Note, before a run writes, what it will write; `outputs`: its own names (potential, log).

    Where the record is damaged, all that is here counts as not written by runs.

    Raises:
        PacehpcError: the folder cannot be written.
    """
    try:
        held = _read(folder)
        own = _own(folder, held) if (folder / MANIFEST).exists() else set()
    except _Damaged:
        held, own = {"outputs": []}, set()
    known = sorted({*held["outputs"], *outputs})
    foreign = sorted(_matches(folder, patterns(known)) - own)
    try:
        replace_file(folder / MANIFEST, json.dumps({"outputs": known, "foreign": foreign}, indent=1).encode())
    except OSError as problem:
        raise PacehpcError(f"{folder}: cannot be written ({problem.strerror}).") from None


def remove_leftovers(folder: Path, outputs: Sequence[str]) -> None:
    """Remove what runs were writing beside its place when they were killed.

    Prepared data may be large, and a job that is killed again and again would fill the disk with them.
    """
    names = [MANIFEST, f"{LOCK}-*", *patterns(outputs)]
    for path in (*folder.glob(".*.tmp"), *folder.glob("report/.*.tmp")):
        found = LEFTOVER.fullmatch(path.name)
        if found is None or Path(f"/proc/{found['pid']}").exists():
            continue
        place = str(path.parent.relative_to(folder) / found["name"])
        if any(fnmatch(place, name) for name in names):
            path.unlink(missing_ok=True)


def _own(folder: Path, held: dict[str, list[str]]) -> set[str]:
    return _matches(folder, patterns(held["outputs"])) - set(held["foreign"])


def clean(folder: Path, input_file: Path | None = None) -> tuple[list[str], dict[str, str]]:
    """Remove the outputs of runs in `folder`.

    Returns:
        Names that were removed, and those that were kept with the reason.
    """
    try:
        own = _own(folder, _read(folder)) if (folder / MANIFEST).exists() else set()
    except _Damaged:
        found = ", ".join(sorted(_matches(folder, patterns([])))) or "none of the usual names"
        raise PacehpcError(
            f"{folder / MANIFEST}: damaged, so that it does not say what runs wrote. Look through {found}, remove by "
            f"hand what you do not need, and {MANIFEST}."
        ) from None
    text, input_name = "", ""
    if input_file is not None and input_file.is_file():
        text, input_name = input_file.read_text(encoding="utf-8", errors="replace"), input_file.name
    kept = {}
    for name in sorted(own):
        if (folder / name) == input_file or name == input_name:
            kept[name] = "the input"
        elif Path(name).name in text:
            kept[name] = f"named in {input_name}"
        elif name in PREPARED and (folder / CHECKPOINT).exists():
            kept[name] = "needed by the unfinished fit"
    if (folder / CHECKPOINT).exists():
        kept[CHECKPOINT] = "of an unfinished fit"
    removed = []
    for name in sorted(own - set(kept)):
        try:
            (folder / name).unlink()
            removed.append(name)
        except OSError as problem:
            kept[name] = f"cannot be removed: {problem.strerror}"
    if (folder / "report").is_dir() and not any((folder / "report").iterdir()):
        (folder / "report").rmdir()
    if not kept:
        try:
            (folder / MANIFEST).unlink(missing_ok=True)
        except OSError as problem:
            raise PacehpcError(f"{folder}: cannot be written ({problem.strerror}).") from None
    return removed, kept


@command
def main(argv: Sequence[str] | None = None) -> int:
    """`pacehpc --clean [input.yaml]`."""
    parser = argparse.ArgumentParser(prog="pacehpc --clean", description="Remove the outputs of runs in this folder.")
    parser.add_argument("input", nargs="?", default="input.yaml", help="never removed, nor what it names")
    arguments = parser.parse_args(argv)
    removed, kept = clean(Path.cwd(), Path(arguments.input))
    for name in removed:
        print(f"removed  {name}")
    for name, reason in kept.items():
        print(f"kept     {name} ({reason})")
    if not removed and not kept:
        print("Nothing to remove: no outputs of a run of pacehpc in this folder.")
    return 0
