"""Queries of ASE databases: an SQLite file, and PostgreSQL's own server, started here."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from environments import cannot_run

from pacehpc.config import load_settings
from pacehpc.dataset import database, load_dataset
from pacehpc.dataset.loading import read_raw
from pacehpc.errors import PacehpcError, without_password

ENERGIES = {"Al": -0.5, "Ni": -1.25}


def write(database, symbols, energy, calculator="VASP_PBE", distance=2.5, open_atom=False, forces=True):
    n = len(symbols)
    atoms = Atoms(symbols, [[distance * k, 0, 0] for k in range(n)])
    if not open_atom:
        atoms.cell, atoms.pbc = np.eye(3) * distance * max(n, 1), True
    results = {"energy": energy} | ({"forces": np.full((n, 3), 0.25)} if forces else {})
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.calc.name = calculator
    database.write(atoms)


def fill(name):
    with connect(name) as db:
        for k in range(5):
            write(db, ["Al", "Ni", "Al"], -10.0 - k)
        write(db, ["Al", "Cu"], -7.0)
        write(db, ["Al", "Al"], -8.0, calculator="other")
        write(db, ["Al", "Al"], -8.0, forces=False)
        for element, energy in ENERGIES.items():
            write(db, [element], energy, open_atom=True)
        write(db, ["Al"], -3.5)  # a crystal, no isolated atom


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory):
    name = str(tmp_path_factory.mktemp("db") / "all.db")
    fill(name)
    return name


def server_programs() -> Path | None:
    found = [shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    return next((Path(p).parent for p in reversed(found) if p), None)


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    """URL of a private server that listens on a socket in a folder of its own."""
    programs = server_programs()
    if programs is None or not hasattr(os, "geteuid"):
        cannot_run("needs PostgreSQL's server (apt-get install postgresql)")
    pytest.importorskip("ase_db_backends.postgresql")
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pgXXXXXX"], text=True).strip())  # a short socket path
    user, become = pwd.getpwuid(os.geteuid()).pw_name, {}
    if os.geteuid() == 0:  # the server refuses to run as root
        user = next((u for u in ("postgres", "nobody") if u in {p.pw_name for p in pwd.getpwall()}), "nobody")
        shutil.chown(folder, user)
        become = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}

    def run(*command):
        return subprocess.run(command, check=True, capture_output=True, cwd="/", **become)

    data = folder / "data"
    run(programs / "initdb", "-D", data, "-U", "pace", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    run(programs / "pg_ctl", "-D", data, "-l", folder / "server.log", "-w", "-o", options, "start")
    try:
        yield f"postgresql://pace:secret@/postgres?host={folder}"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def check_query(name):
    frame = database.query(name, ["Al", "Ni"], "VASP_PBE")
    assert len(frame) == 5 + 2 + 1
    mixed = frame[frame.NUMBER_OF_ATOMS == 3]
    expected = mixed.energy - 2 * ENERGIES["Al"] - ENERGIES["Ni"]
    np.testing.assert_allclose(mixed.energy_corrected, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame[frame.NUMBER_OF_ATOMS == 1].energy_corrected, [0, 0, -3.0], atol=1e-12)
    assert all((f == 0.25).all() for f in frame.forces)
    assert set(database.query(name, ["Al"], "VASP_PBE").NUMBER_OF_ATOMS) == {1}
    assert len(database.query(name, ["Al", "Ni"], None, ref_energy=0.0)) == 9


def test_sqlite(sqlite):
    check_query(sqlite)


def test_postgresql(postgresql, sqlite, tmp_path):
    fill(postgresql)
    check_query(postgresql)
    check_query(postgresql.replace("postgresql://", "postgresql+psycopg2://"))
    data = read_raw(sqlite_with_forces(tmp_path))
    assert database.ingest(postgresql, data, "mine") == len(data)
    frame = database.query(postgresql, ["Al", "Ni"], "mine", ref_energy=0.0)
    np.testing.assert_array_equal(np.sort(frame.energy), np.sort(data.energy))
    with pytest.raises(PacehpcError) as error:
        database.connect(postgresql.replace("host=", "host=/nowhere"))
    assert "cannot be opened" in str(error.value) and "secret" not in str(error.value)


def sqlite_with_forces(folder):
    name = str(folder / "some.db")
    with connect(name) as db:
        for k in range(3):
            write(db, ["Ni", "Al"], -5.0 - k, distance=2.6)
    return name


def test_ingest_gives_back_what_went_in(tmp_path):
    from dataset_samples import make_frame

    from pacehpc.dataset import write_frame

    frame = make_frame(name=["augmented/x", "b", "7", ""], stress=[np.arange(6) * 0.1] * 3 + [None])
    write_frame(frame, tmp_path / "a.pckl.gzip")
    data = read_raw(tmp_path / "a.pckl.gzip")
    database.ingest(str(tmp_path / "b.db"), data, "DFT")
    back = read_raw(tmp_path / "b.db")
    for field in ("energy", "numbers", "positions", "cells", "pbc", "flat_forces", "stress"):
        np.testing.assert_array_equal(getattr(back, field), getattr(data, field))
    assert back.names == ["augmented/x", "b", "", ""]
    again = database.query(str(tmp_path / "b.db"), ["Al", "Ni"], "DFT", ref_energy=-1.0)
    np.testing.assert_allclose(again.energy_corrected, data.energy + 2)


def test_the_limit_is_a_choice_by_seed(sqlite):
    def labels(seed):
        frame = database.query(sqlite, ["Al", "Ni"], "VASP_PBE", limit=4, seed=seed)
        return frame.index.tolist()

    assert labels(1) == labels(1) and len(labels(1)) == 4
    assert len({tuple(labels(seed)) for seed in range(6)}) > 1
    assert set(labels(3)) <= set(database.query(sqlite, ["Al", "Ni"], "VASP_PBE").index)


def test_where_the_database_is(tmp_path):
    environ = {"HOME": str(tmp_path)}
    with pytest.raises(PacehpcError, match="PACEHPC_DATABASE"):
        database.locate(None, environ)
    ini = tmp_path / "structdb.ini"
    ini.write_text("[db]\nurl = postgresql://me:p%40ss@host/db\n")
    assert database.locate(None, environ) == "postgresql://me:p%40ss@host/db"
    ini.write_text("url = other.db\n")
    assert database.locate(None, environ) == "other.db"
    environ["PACEHPC_DATABASE"] = "third.db"
    assert database.locate(None, environ) == "third.db" and database.locate("first.db", environ) == "first.db"
    for text in ("[db]\nname = x\n", "[db\n", "\0"):
        ini.write_text(text)
        with pytest.raises(PacehpcError, match="url"):
            database.locate(None, {"HOME": str(tmp_path)})


def test_passwords_are_not_kept_in_logs_and_checkpoints(tmp_path):
    (tmp_path / "input.yaml").write_text("data: {database: 'postgresql://me:p@ss@host/db', config: {element: Al}}")
    settings = load_settings(tmp_path / "input.yaml")
    assert settings.data.database == "postgresql://me:p@ss@host/db"
    for text in (settings.resolved_yaml(), settings.model_dump_json()):
        assert "postgresql://me:***@host/db" in text and "p@ss" not in text


def test_passwords_are_not_shown():
    assert without_password("postgresql://me:p@ss@host/db") == "postgresql://me:***@host/db"


def test_errors_say_what_is_missing(sqlite, tmp_path):
    with pytest.raises(PacehpcError, match="no structures with energy and forces of elements Fe"):
        database.query(sqlite, ["Fe"])
    with pytest.raises(PacehpcError, match="no isolated atom of Al for"):
        database.query(sqlite, ["Al"], "other")
    with pytest.raises(PacehpcError, match="no such database"):
        database.query(str(tmp_path / "absent.db"), ["Al"])
    with pytest.raises(PacehpcError, match=r"SQLite file or a postgresql:// URL"):
        database.connect("mysql://me:secret@host/db")
    (tmp_path / "x.db").write_bytes(b"no database" * 100)
    with pytest.raises(PacehpcError, match="cannot be opened"):
        database.connect(str(tmp_path / "x.db"))


INPUT = """
cutoff: 4.0
data:
  database: {database}
  datapath: {folder}
  config: {{element: [Al, Ni], calculator: VASP_PBE, query_limit: 6}}
"""


def test_query_data_prepares_and_keeps_the_result(sqlite, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "input.yaml").write_text(INPUT.format(database=sqlite, folder=kept))

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "pacehpc", *arguments], cwd=tmp_path, text=True, capture_output=True, check=False
        )

    first = run("--query-data")
    assert first.returncode == 0, first.stderr
    cache = kept / "df-VASP_PBE-AlNi.pckl.gzip"
    assert len(load_dataset(cache)) == 6 and (tmp_path / "prepared_data.h5").exists()
    made = cache.stat().st_mtime_ns
    second = run("--prepare-data")
    assert second.returncode == 0 and "earlier query" in second.stdout and cache.stat().st_mtime_ns == made
    assert "prepared before" in second.stdout
    assert run("--query-data").returncode == 0 and cache.stat().st_mtime_ns != made
    text = (tmp_path / "input.yaml").read_text()
    (tmp_path / "input.yaml").write_text(text.replace("limit: 6", "limit: 5, ref_energy: 1"))
    third = run("--prepare-data")
    assert "ref_energy was None, is 1.0, query_limit was 6, is 5" in third.stdout, third.stdout
    known = load_dataset(cache)
    assert len(known) == 5
    np.testing.assert_allclose(known.energy_corrected, known.energy - known.atoms_per_structure)
    assert "earlier query" in run("--prepare-data").stdout
    cache.unlink()
    (tmp_path / "input.yaml").write_text(text.replace("query_limit: 6", "cache_ref_df: false"))
    assert run("--query-data").returncode == 0 and not cache.exists()
    (tmp_path / "input.yaml").write_text("cutoff: 4.0\ndata: some.pckl.gzip\n")
    nothing = run("--query-data")
    assert nothing.returncode == 1 and "data.config.element" in nothing.stderr
