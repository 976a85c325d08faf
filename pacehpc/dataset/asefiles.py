"""Extended xyz files and ASE databases as tables."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.dataset.files import text_stream
from pacehpc.dataset.table import KEYS, Table
from pacehpc.errors import PacehpcError

_MAX_COLUMNS = 1000


def fill_columns(table: Table, rows: list[Mapping[str, Any]], keys: Mapping[str, str]) -> None:
    """Columns from one mapping of everything known a structure; a column is there if any structure has it."""
    for column, names in KEYS.items():
        names = (keys[column],) if column in keys else names
        name = next((name for name in names if any(name in row for row in rows)), None)
        if name is None:
            continue
        values = [row.get(name) for row in rows]
        if column == "stress":
            values = [np.reshape(v, (3, 3)) if np.size(v) == 9 else v for v in values]
        elif column == "w_factor":
            values = [1.0 if v is None else v for v in values]
        table.columns[column] = values


def read_extxyz(data: bytes, source: str, keys: Mapping[str, str] | None = None) -> Table:
    """All frames of an extended xyz file.

    Args:
        data: the file's content, unpacked; source: its name, for messages.
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
        results = {} if atoms.calc is None else atoms.calc.results
        rows.append({**atoms.info, **atoms.arrays, **results})
        table.labels.append(len(rows) - 1)
        table.numbers.append(atoms.numbers)
        table.positions.append(atoms.positions)
        table.cells.append(atoms.cell.array)
        table.pbc.append(atoms.pbc)
        plain = (str, int, float, bool, np.generic)
        table.info.append({k: v for k, v in atoms.info.items() if isinstance(v, plain)})
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
    known.update({k: row.get(k) for k in ("energy", "forces", "stress") if row.get(k) is not None})
    if "w_energy" in known and "w_forces" not in known and "w_forces" in row.data:
        known["w_forces"] = row.data["w_forces"]
    rows.append(known)
    table.labels.append(row.id)
    table.numbers.append(row.numbers)
    table.positions.append(row.positions)
    table.cells.append(np.asarray(row.cell))
    table.pbc.append(row.pbc)
    table.info.append(dict(row.key_value_pairs))
