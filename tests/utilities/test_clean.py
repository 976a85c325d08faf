"""--clean removes what runs wrote and nothing else."""

from __future__ import annotations

import os

import pytest

from pacehpc.errors import PacehpcError
from pacehpc.utilities import clean

WRITTEN = [
    "interim_potential_0.yaml",
    "metrics.txt",
    "output_potential.yaml",
    "log.txt",
    "report/a.png",
    "prepared_data.h5",
]


def run(folder, *names):
    clean.record(folder, ["output_potential.yaml", "log.txt"])
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_only_what_runs_wrote_goes(tmp_path):
    mine = ["input.yaml", "data.pckl.gzip", "interim_potential_mine.yaml", "notes.txt", "report/notes.txt"]
    (tmp_path / "report").mkdir()
    for name in mine:
        (tmp_path / name).write_text("mine")
    run(tmp_path, *WRITTEN)
    run(tmp_path, *WRITTEN)  # a second run does not take the first one's outputs for the user's
    removed, kept = clean.clean(tmp_path, tmp_path / "input.yaml")
    assert sorted(removed) == sorted(WRITTEN) and kept == {}
    assert names(tmp_path) == sorted(mine)
    assert clean.clean(tmp_path) == ([], {})


def test_what_the_input_names_and_an_unfinished_fit_stay(tmp_path):
    (tmp_path / "input.yaml").write_text("potential: interim_potential_0.yaml\n")
    run(tmp_path, *WRITTEN)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state").write_text("x")
    _, kept = clean.clean(tmp_path, tmp_path / "input.yaml")
    assert set(kept) == {"interim_potential_0.yaml", "prepared_data.h5", "checkpoint"}
    assert names(tmp_path) == [
        ".pacehpc_outputs.json",
        "checkpoint/state",
        "input.yaml",
        *sorted(set(kept) - {"checkpoint"}),
    ]
    (tmp_path / "input.yaml").write_text("")
    (tmp_path / "checkpoint" / "state").unlink()
    (tmp_path / "checkpoint").rmdir()
    assert sorted(clean.clean(tmp_path, tmp_path / "input.yaml")[0]) == ["interim_potential_0.yaml", "prepared_data.h5"]


def test_nothing_without_a_record_or_outside_the_folder(tmp_path):
    inside = tmp_path / "run"
    inside.mkdir()
    for name in WRITTEN[:2]:
        (inside / name).write_text("x")
    assert clean.clean(inside) == ([], {})
    clean.record(inside, ["../outside.yaml", str(tmp_path / "absolute.txt")])
    (tmp_path / "outside.yaml").write_text("x")
    (tmp_path / "absolute.txt").write_text("x")
    clean.clean(inside)
    assert names(tmp_path) == ["absolute.txt", "outside.yaml", "run/interim_potential_0.yaml", "run/metrics.txt"]


def test_a_damaged_record_removes_nothing(tmp_path):
    run(tmp_path, "metrics.txt")
    (tmp_path / clean.MANIFEST).write_text("[" * 100000)
    with pytest.raises(PacehpcError, match="damaged"):
        clean.clean(tmp_path)
    assert (tmp_path / "metrics.txt").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"outputs": []}'])
def test_a_fit_begins_a_damaged_record_anew(text, tmp_path):
    """What was there then is nobody's, and stays."""
    run(tmp_path, "metrics.txt")
    (tmp_path / clean.MANIFEST).write_text(text)
    clean.record(tmp_path, ["mine.yaml"])
    for name in ("mine.yaml", "log.txt"):
        (tmp_path / name).write_text("x")
    assert clean.clean(tmp_path)[0] == ["mine.yaml"]
    assert names(tmp_path) == ["log.txt", "metrics.txt"]


def test_what_killed_writers_left_beside_goes(tmp_path):
    (tmp_path / "report").mkdir()
    gone = [".metrics.txt.4194999.tmp", f".{clean.MANIFEST}.4194999.tmp", "report/.curve.png.4194999.tmp"]
    stay = [".hidden.4194999.tmp", f".mine.yaml.{os.getpid()}.tmp", "metrics.txt.4194999.tmp", "report/curve.png"]
    for name in (*gone, *stay):
        (tmp_path / name).write_text("x")
    clean.remove_leftovers(tmp_path, ["mine.yaml"])
    assert sorted(names(tmp_path)) == sorted(stay)


def test_command(tmp_path, monkeypatch, capsys):
    from pacehpc import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "input.yaml").write_text("data: data.xyz\n")
    assert cli.main(["-c"]) == 0 and "Nothing to remove" in capsys.readouterr().out
    run(tmp_path, *WRITTEN)
    assert cli.main(["--clean"]) == 0
    assert "removed  log.txt" in capsys.readouterr().out and os.listdir() == ["input.yaml"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    run(tmp_path)

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(clean.Path, "unlink", refused)
    with pytest.raises(PacehpcError, match=r"cannot be written \(Read-only file system\)"):
        clean.clean(tmp_path)
