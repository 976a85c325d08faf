"""ASE databases of structures, in an SQLite file or on a PostgreSQL server: queries for a fit, and filling one."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from pacehpc.dataset.asefiles import add_row, fill_columns
from pacehpc.dataset.dataset import Dataset
from pacehpc.dataset.frames import frame_of
from pacehpc.dataset.loading import checked_table
from pacehpc.dataset.reference_energies import composition, corrected, free_atoms
from pacehpc.dataset.table import Table
from pacehpc.errors import PacehpcError, without_password

if TYPE_CHECKING:
    import pandas as pd

INI_FILE = "structdb.ini"
_SERVER = re.compile(r"postgres(ql)?(\+\w+)?://")


def locate(option: str | None, environ: Mapping[str, str] | None = None) -> str:
    """The database to query: `option`, else $PACEHPC_DATABASE, else `url` of ~/structdb.ini.

    Raises:
        PacehpcError: none of them names one.
    """
    environ = os.environ if environ is None else environ
    if option:
        return option
    if environ.get("PACEHPC_DATABASE"):
        return environ["PACEHPC_DATABASE"]
    path = Path(environ.get("HOME", "~")).expanduser() / INI_FILE
    if path.is_file():
        return _url_of(path)
    raise PacehpcError(
        "No database is named: give data.database (an SQLite file or a postgresql:// URL), "
        f"$PACEHPC_DATABASE, or `url = ...` in ~/{INI_FILE}."
    )


def _url_of(path: Path) -> str:
    parser = configparser.ConfigParser(interpolation=None)  # % stands in passwords
    try:
        text = path.read_text(encoding="utf-8")
        parser.read_string(text if re.search(r"^\s*\[", text, re.MULTILINE) else f"[structdb]\n{text}")
    except (configparser.Error, UnicodeDecodeError, OSError):
        raise PacehpcError(f"{path}: cannot be read; it needs a line `url = postgresql://...`.") from None
    for section in parser.sections():
        if parser.has_option(section, "url"):
            return parser.get(section, "url").strip()
    raise PacehpcError(f"{path}: has no `url`; add a line `url = postgresql://...`.")


def connect(name: str, create: bool = False) -> Any:
    """An open ASE database; `name` is an SQLite file or a postgresql:// URL.

    Raises:
        PacehpcError: no such file, no server, no driver, no ASE database.
    """
    import ase.db

    server = _SERVER.match(name)
    if server:
        name = "postgresql://" + name[server.end() :]
    elif "://" in name:
        raise PacehpcError(f"{without_password(name)}: a database is an SQLite file or a postgresql:// URL.")
    elif not Path(name).expanduser().is_file() and not create:
        raise PacehpcError(f"{name}: no such database; `pacehpc data ingest` makes one.")
    try:
        if server:
            database = ase.db.connect(name)
            database.count(limit=1)
            return database
        database = ase.db.connect(str(Path(name).expanduser()), type="db", use_lock_file=create)
        next(iter(database.select(limit=1)), None)
        return database
    except ImportError:
        raise PacehpcError(
            f"{without_password(name)}: PostgreSQL needs two more packages: pip install 'pacehpc[postgresql]'."
        ) from None
    except Exception as problem:
        reason = without_password(str(problem).strip().split("\n")[0])[:200]
        raise PacehpcError(
            f"{without_password(name)}: cannot be opened ({type(problem).__name__}: {reason})."
        ) from None


def query(
    name: str,
    elements: Sequence[str],
    calculator: str | None = None,
    ref_energy: float | None = None,
    limit: int | None = None,
    seed: int = 42,
) -> pd.DataFrame:
    """Structures of a database as a frame ready to fit, E^ref included.

    Args:
        name: the database.
        elements: those that may occur.
        calculator: key `calculator` of the rows (None: any).
        ref_energy: eV per atom, of every element; None: the energies of the isolated atoms in the database.
        limit: at most so many structures, chosen by `seed`.

    Raises:
        PacehpcError: nothing found, no isolated atom, an unreadable database.
    """
    table = _rows(name, set(elements), calculator)
    wanted = f"elements {' '.join(elements)}" + (f" and calculator {calculator}" if calculator else "")
    if not table.labels:
        raise PacehpcError(f"{table.source}: no structures with energy and forces of {wanted}.")
    data = checked_table(table, elements, "eV/A3")
    found, counts = composition(data.atom_offsets, data.numbers)
    if ref_energy is None:
        single = isolated_atoms(data)
        missing = [e for e in found if e not in single]
        if missing:
            raise PacehpcError(
                f"{table.source}: no isolated atom of {', '.join(missing)} for {wanted}; give data.config.ref_energy."
            )
    else:
        single = {e: float(ref_energy) for e in found}
    data.energy_corrected = corrected(single, found, counts, data.energy)
    if limit is not None and limit < len(data):
        data = data.subset(np.sort(np.random.default_rng(seed).choice(len(data), limit, replace=False)))
    frame = frame_of(data)
    return frame.drop(columns=["w_energy", "w_forces"])


def _rows(name: str, elements: set[str], calculator: str | None) -> Table:
    """All rows with energy and forces whose elements are among `elements`."""
    table, known = Table(without_password(name), []), []
    # ASE writes the names of calculators in small letters
    names = [None] if calculator is None else sorted({calculator, calculator.lower()})
    database = connect(name)
    try:
        for one in names:
            for row in database.select(calculator=one) if one is not None else database.select():
                if {chemical_symbols[z] for z in row.numbers} <= elements and {"energy", "forces"} <= set(row):
                    add_row(table, known, row)
    except Exception as problem:
        reason = f"{type(problem).__name__}: {without_password(str(problem).strip())[:200]}"
        raise PacehpcError(f"{without_password(name)}: cannot be read ({reason}).") from None
    fill_columns(table, known, {"energy": "energy", "forces": "forces", "stress": "stress"})
    for name in ("energy_corrected", "w_energy", "w_forces", "w_factor"):  # rows of another origin may lack them
        table.columns.pop(name, None)
    return table


def isolated_atoms(data: Dataset) -> dict[str, float]:
    """Energy of each element's free atom in the data, eV; see `reference_energies.free_atoms`."""
    return {} if data.energy is None else free_atoms(
        data.atom_offsets, data.numbers, data.pbc, data.volumes, data.energy
    )  # fmt: skip


def ingest(name: str, data: Dataset, calculator: str, complete: bool = False) -> int:
    """Write structures with energy, forces, stress and name to a database, all or none; returns their number.

    complete: with `energy_corrected` and the weights that came with the data, too, for a database of its own.

    Raises:
        PacehpcError: data without total energies, or a database that cannot be written.
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    if data.energy is None:
        raise PacehpcError("A database holds total energies, but the data have only 'energy_corrected'.")
    if not re.fullmatch(r"[\w.+-]+", calculator):
        raise PacehpcError(f"calculator: {calculator!r} may hold letters, digits and . + - _ only.")
    w_forces = data.per_structure(data.extra["w_forces"]) if "w_forces" in data.extra else None
    database = connect(name, create=True)
    try:
        with database:
            for k, (atoms, forces) in enumerate(zip(data.atoms, data.forces, strict=True)):
                atoms.info.clear()
                results: dict[str, Any] = {"energy": float(data.energy[k])} if np.isfinite(data.energy[k]) else {}
                if np.isfinite(forces).all():
                    results["forces"] = forces
                if data.stress is not None and np.isfinite(data.stress[k]).all():
                    results["stress"] = data.stress[k]
                atoms.calc = SinglePointCalculator(atoms, **results)
                atoms.calc.name = calculator
                keys, own = _key("name", data.names[k]), {}
                if data.info:
                    keys |= _key("config_type", str(data.info[k].get("config_type") or ""))
                if complete:
                    keys |= {key: float(data.extra[key][k]) for key in ("w_energy", "w_factor") if key in data.extra}
                    if np.isfinite(data.energy_corrected[k]):
                        keys["energy_corrected"] = float(data.energy_corrected[k])
                    if w_forces is not None:
                        own = {"w_forces": w_forces[k]}
                database.write(atoms, data=own, **keys)
    except Exception as problem:
        reason = f"{type(problem).__name__}: {without_password(str(problem).strip())[:200]}"
        raise PacehpcError(f"{without_password(name)}: cannot be written ({reason}).") from None
    return len(data)


def _key(key: str, label: str) -> dict[str, Any]:
    """A name or group as a key, where ASE accepts it (no text that looks like a number or a word of its own)."""
    from ase.db.core import check

    try:
        check({key: label})
    except ValueError:
        return {}
    return {key: label} if label else {}


def cache_name(calculator: str | None, elements: Sequence[str]) -> str:
    """df-{calculator}-{elements}.pckl.gzip, without characters that a file name cannot have."""
    clean = re.sub(r"[^\w.+-]", "_", calculator or "any")
    return f"df-{clean}-{''.join(sorted(elements))}.pckl.gzip"
