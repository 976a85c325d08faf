from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk

from pacehpc import Potential, replacing
from pacehpc.dataset import Dataset, load_dataset, write_frame, write_store
from pacehpc.dataset.writing import write_data
from pacehpc.potential import export_yace
from pacehpc.replacing import LEFTOVER, replace_file


def data(folder: Path) -> Dataset:
    atoms = bulk("Al", cubic=True)
    frame = pd.DataFrame({"ase_atoms": [atoms], "energy": [-1.0], "forces": [np.zeros((4, 3))]})
    frame.to_pickle(folder / "source.pkl")
    return load_dataset(folder / "source.pkl", reference_energy=0.0)


def figure(folder: Path) -> None:
    from matplotlib.figure import Figure

    from pacehpc.report.layout import save_figure

    save_figure(Figure(), folder / "x.png")


def table(folder: Path) -> None:
    from pacehpc.report.tables import COLUMNS, MetricsTable

    (folder / "x.txt").write_text(" ".join("1" for _ in COLUMNS) + "\n")
    MetricsTable(folder / "x.txt").close()


def manifest(folder: Path) -> None:
    from pacehpc.utilities.clean import record

    record(folder, ["x"])


def state(folder: Path) -> None:
    from pacehpc.checkpoint import state

    state.save(folder, {})


POTENTIAL = Path(__file__).parent / "golden" / "potentials" / "al_chebexpcos.yaml"
WRITERS = {
    "B basis": lambda folder: Potential.load(POTENTIAL).save(folder / "x.yaml"),
    "C tilde": lambda folder: export_yace(Potential.load(POTENTIAL), folder / "x.yace"),
    "frame": lambda folder: write_frame(pd.DataFrame({"a": [1]}), folder / "x.pckl.gzip"),
    "store": lambda folder: write_store(folder / "x.h5", data(folder), 3.0),
    "text": lambda folder: write_data(data(folder), folder / "x.extxyz"),
    "database": lambda folder: write_data(data(folder), folder / "x.db"),
    "table without header": table,
    "figure": figure,
    "record of outputs": manifest,
    "checkpoint": state,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_all_writers_bring_a_whole_file_to_the_disk_before_it_gets_its_name(tmp_path, monkeypatch, writer):
    """And what they write beside has a name by which it is found and removed after a kill."""
    calls = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor):
        calls.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        sync(descriptor)

    def renamed(beside, path):
        calls.append(("replace", Path(beside)))
        rename(beside, path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    WRITERS[writer](tmp_path)
    renames = [path for call, path in calls if call == "replace"]
    assert len(renames) == 1
    found = LEFTOVER.fullmatch(renames[0].name)
    assert found["pid"] == str(os.getpid()) and (tmp_path / found["name"]).is_file()
    order = [("fsync", renames[0]), ("replace", renames[0]), ("fsync", tmp_path)]
    assert [call for call in calls if call in order] == order
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_fails_leaves_the_old_file_and_nothing_beside(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing.replacing(path) as beside:
        beside.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        raise KeyboardInterrupt
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(OSError, match="broken"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    replace_file(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    code = f"""
import os
from pathlib import Path
from pacehpc.replacing import replacing
with replacing(Path({str(path)!r})) as beside:
    beside.write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert path.read_bytes() == b"old"
    (left,) = set(tmp_path.iterdir()) - {path}
    assert LEFTOVER.fullmatch(left.name)["name"] == "x"
