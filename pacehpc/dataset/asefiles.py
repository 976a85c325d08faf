"""Extended xyz files, ASE trajectories and ASE databases as tables."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from pacehpc.dataset.files import text_stream
from pacehpc.dataset.table import KEYS, Table
from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")

_MAX_COLUMNS = 1000


def fill_columns(table: Table, rows: list[Mapping[str, Any]], keys: Mapping[str, str]) -> None:
    """Columns from one mapping of everything known per structure; a column is there if any structure has it."""
    for column, usual in KEYS.items():
        names = (keys[column], *usual) if column in keys else usual
        found = [next((name for name in names if row.get(name) is not None), None) for row in rows]
        if not any(found) or (column in keys and keys[column] not in found):
            continue
        table.columns[column] = [None if name is None else row[name] for name, row in zip(found, rows, strict=True)]
        _say_names(table.source, column, found, rows, keys.get(column))
    geometry = {"numbers", "positions", "pbc", "cell"}
    table.names = sorted({name for row in rows for name in row if name not in geometry})


def read_extxyz(data: bytes, source: str, keys: Mapping[str, str] | None = None) -> Table:
    """All frames of an extended xyz file.

    Args:
        data: the file's content, unpacked.
        source: its name, for messages.
        keys: names in the file that differ from `KEYS`, such as {"energy": "dft_energy"}.

    Raises:
        PacehpcError: the file cannot be parsed; the message says at which frame.
    """
    from ase.io.extxyz import read_xyz

    for match in re.finditer(rb"Properties=\S*", data):
        if any(int(n[:9]) > _MAX_COLUMNS for n in re.findall(rb":(\d+)", match.group())):
            raise PacehpcError(f"{source}: more than {_MAX_COLUMNS} columns an atom; this is no data set.")
    n_lines = data.count(b"\n") + 1
    for match in re.finditer(rb"^[ \t]*(\d+)[ \t\r]*$", data, re.MULTILINE):
        if len(match[1]) > 12 or int(match[1]) > n_lines:  # ASE would count up to it
            raise PacehpcError(f"{source}: a frame of {match[1][:20].decode()} atoms in a file of {n_lines} lines.")
    data = as_ase_writes(fortran_numbers(data))
    table, rows = Table(source, []), []
    frames = read_xyz(text_stream(data, source), index=slice(None))
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # ASE's, on keys that it renames
                atoms = next(frames)
        except StopIteration:
            break
        except Exception as problem:
            cause = f"{type(problem).__name__}: {str(problem)[:200]}"
            raise PacehpcError(f"{source}, frame {len(rows)}: not an extended xyz file ({cause}).") from None
        add_atoms(table, rows, atoms)
    fill_columns(table, rows, keys or {})
    return table


def fortran_numbers(data: bytes) -> bytes:
    """Extended xyz with `5.0d0` as `5.0e0` in the lines of atoms; elsewhere letters may be a name's."""
    if not re.search(rb"\d\.?\d*[dD][+-]?\d", data):
        return data
    lines, row = data.split(b"\n"), 0
    while row < len(lines) and lines[row].strip().isdigit():
        count = int(lines[row])
        for k in range(row + 2, min(row + 2 + count, len(lines))):
            lines[k] = re.sub(rb"(?<=\s)([+-]?\d+\.?\d*)[dD]([+-]?\d+)(?=\s|$)", rb"\1e\2", lines[k])
        row += 2 + count
    return b"\n".join(lines)


def _say_names(
    source: str, column: str, found: list[str | None], rows: list[Mapping[str, Any]], key: str | None
) -> None:
    """Say where frames of one file do not all have a column under the same name."""
    others = [name for name in found if name not in (None, key)]
    if key is not None and others:
        log.warning("%s: %d structures have no %s; %s is taken there", source, len(others), key, others[0])
    if any(name == "free_energy" and row.get("energy") is not None for name, row in zip(found, rows, strict=True)):
        log.info("%s: the force-consistent free_energy is taken as energy, not `energy`", source)
    lacking = [row for name, row in zip(found, rows, strict=True) if name is None]
    alike = sorted({name for row in lacking for name in row if column.rstrip("s") in str(name).lower()})
    if column == "forces" and alike:
        log.warning(
            "%s: %d structures have no forces, but %s: data.keys: {forces: %s} would read them",
            source, len(lacking), ", ".join(alike), alike[0],
        )  # fmt: skip


_NUMBER = rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?"
_SIX = re.compile(rb"""(?<=[\s"'])((?:stress|virial)=)(["'])\s*(""" + rb"[\s,]+".join([_NUMBER] * 6) + rb""")\s*\2""")


_CASE = re.compile(rb"(?im)(?<![^\s])(lattice|properties)=")
_NONE = re.compile(rb"(?<![^\s])(?:stress|virial)=(?:None|null)(?![^\s])")


def as_ase_writes(data: bytes) -> bytes:
    """Extended xyz with what ASE refuses, or takes for something else, written as ASE writes it.

    `lattice` in small letters (GPUMD), without which a crystal would be a cluster; a `stress` or `virial` of six
    numbers; one that is None.
    """
    data = _CASE.sub(lambda match: match[1].capitalize() + b"=", data)
    data = _NONE.sub(b"", data)

    def nine(match: re.Match[bytes]) -> bytes:
        six = re.split(rb"[\s,]+", match[3])
        return match[1] + match[2] + b" ".join(six[k] for k in (0, 5, 4, 5, 1, 3, 4, 3, 2)) + match[2]

    return _SIX.sub(nine, data)


def add_atoms(table: Table, rows: list[Mapping[str, Any]], atoms: Atoms) -> None:
    """Geometry of ASE's atoms to `table`, everything else that is known of them to `rows`."""
    results = {} if atoms.calc is None else atoms.calc.results
    rows.append({**atoms.info, **atoms.arrays, **results})
    table.labels.append(len(rows) - 1)
    table.numbers.append(atoms.numbers)
    table.positions.append(atoms.positions)
    table.cells.append(atoms.cell.array)
    table.pbc.append(atoms.pbc)
    plain = (str, int, float, bool, np.generic)
    table.info.append({k: v for k, v in atoms.info.items() if isinstance(v, plain)})


def read_trajectory(path: Path, keys: Mapping[str, str] | None = None) -> Table:
    """All images of an ASE trajectory (`.traj`).

    Raises:
        PacehpcError: the file is damaged.
    """
    from ase.io.trajectory import TrajectoryReader

    table, rows = Table(str(path), []), []
    try:
        with TrajectoryReader(str(path)) as images:
            for atoms in images:
                add_atoms(table, rows, atoms)
    except Exception as problem:
        raise PacehpcError(
            f"{path}, image {len(rows)}: not an ASE trajectory ({type(problem).__name__}: {str(problem)[:200]})."
        ) from None
    fill_columns(table, rows, keys or {})
    return table


def read_asedb(path: Path, keys: Mapping[str, str] | None = None) -> Table:
    """All rows of an ASE database (SQLite); labels are the rows' ids.

    Raises:
        PacehpcError: the file is damaged or no ASE database.
    """
    from ase.db import connect

    table, rows = Table(str(path), []), []
    try:
        with connect(str(path), type="db", use_lock_file=False) as database:
            for row in database.select():
                add_row(table, rows, row)
    except Exception as problem:
        raise PacehpcError(
            f"{path}, row {len(rows)}: not an ASE database ({type(problem).__name__}: {str(problem)[:200]})."
        ) from None
    fill_columns(table, rows, keys or {})
    return table


def add_row(table: Table, rows: list[Mapping[str, Any]], row: Any) -> None:
    """Geometry of an ASE database's row to `table`, everything else that is known of it to `rows`."""
    known = dict(row.key_value_pairs)
    known.update({k: row.get(k) for k in ("energy", "free_energy", "forces", "stress") if row.get(k) is not None})
    if "w_energy" in known and "w_forces" not in known and "w_forces" in row.data:
        known["w_forces"] = row.data["w_forces"]
    rows.append(known)
    table.labels.append(row.id)
    table.numbers.append(row.numbers)
    table.positions.append(row.positions)
    table.cells.append(np.asarray(row.cell))
    table.pbc.append(row.pbc)
    table.info.append(dict(row.key_value_pairs))
