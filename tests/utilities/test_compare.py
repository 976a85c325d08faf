"""`pacehpc compare`: numbers of the fits' own summaries, measured speed, and a page with the front."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import fits
import numpy as np
import pytest
from browser import Browser

from pacehpc.potential import Potential
from pacehpc.report.page.rows import front_of
from pacehpc.speed import microseconds_per_atom, training_structures
from pacehpc.utilities import compare

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two(tmp_path, monkeypatch) -> Path:
    """Folders `small` and `large` of fits; `large` has half the errors."""
    monkeypatch.chdir(tmp_path)
    for name, potential in (("small", "al_cheblinear"), ("large", "al_chebexpcos")):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(fits.GOLDEN / f"{potential}.yaml", folder / "output_potential.yaml")
        frame = ROOT / "examples" / "al_ni" / "al_ni.pckl.gzip"
        _aluminium(frame, folder / "fitting_data_info.pckl.gzip")
        sets = [fits.compared("train", 8), fits.compared("test", 5, 1)]
        found = fits.summary(sets)
        factor = 0.5 if name == "large" else 1.0
        found.errors = {which: {k: factor * v for k, v in e.items()} for which, e in found.errors.items()}
        found.functions = Potential.load(folder / "output_potential.yaml").n_functions
        found.write(folder)
    return tmp_path


def _aluminium(source: Path, target: Path) -> None:
    import pandas as pd

    frame = pd.read_pickle(source, compression="gzip")
    frame[[set(atoms.symbols) == {"Al"} for atoms in frame["ase_atoms"]]].to_pickle(target, compression="gzip")


def test_the_table_holds_the_numbers_of_the_fits(two, capsys):
    assert compare.main(["small", "large/", "--no-timing"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.startswith(("small", "large"))}
    for name in ("small", "large"):
        found = compare.read_summary(name)
        expected = [1000 * found.errors[which][key] for key, _ in compare.ERRORS for which in ("train", "test")]
        assert [float(text) for text in rows[name][4:12]] == pytest.approx(expected, abs=0.051)
        assert rows[name][1:4] == [str(found.functions), "20", "5"] and rows[name][12] == "25"
        assert rows[name][-1] == "–"  # not measured


def test_speed_is_measured_on_training_structures(two):
    structures = training_structures(two / "small", 100)
    assert 60 <= sum(map(len, structures)) <= 160 and len(structures) > 3
    assert {s for atoms in structures for s in atoms.symbols} == {"Al"}
    potential = Potential.load(two / "small" / "output_potential.yaml")
    assert 0.1 < microseconds_per_atom(potential, structures) < 1e5


def test_folders_without_fits_are_named_and_left_out(two, capsys, caplog):
    (two / "running" / "checkpoint").mkdir(parents=True)
    assert compare.main(["small", "running", "absent", "--no-timing"]) == 0
    assert "running: the fit is unfinished" in caplog.text and "absent: there is no such folder" in caplog.text
    assert "small" in capsys.readouterr().out
    assert compare.main(["absent"]) == 1 and "none of the folders" in capsys.readouterr().err
    assert compare.main(["small", "--no-timing", "--html"]) == 1


def test_what_does_not_compare_is_said(two, capsys):
    other = compare.read_summary("large")
    other.files, other.processor = {"train": ["other.xyz"]}, "another processor"
    other.write("large")
    assert compare.main(["small", "large", "--no-timing"]) == 0
    out = capsys.readouterr().out
    assert "differ in their data" in out and "wall times do not compare" in out


def test_the_page_shows_both_fronts(two, capsys):
    assert compare.main(["small", "large", "--html"]) == 0
    with Browser() as browser:
        browser.open(two / "compare.html", 800)
        browser.wait_for("document.querySelectorAll('.bk-Figure').length === 2")
        assert browser.complaints == [] and browser.value("document.documentElement.scrollWidth") <= 800
        captions = browser.value("[...document.querySelectorAll('figcaption')].map(e => e.innerText)")
    assert all("large" in text.split("on the front:")[1] for text in captions)  # the more accurate one is always there


def test_the_front_is_what_no_other_beats():
    costs = np.random.default_rng(0).integers(0, 6, (40, 2)).astype(float)
    costs[7, 1] = np.nan
    expected = [not np.isnan(a).any() and not any((b <= a).all() and (b < a).any() for b in costs) for a in costs]
    assert front_of(costs).tolist() == expected and 1 < sum(expected) < 40
    for a, b in itertools.combinations(costs[front_of(costs)], 2):
        assert (a == b).all() or ((a - b) < 0).any() != ((a - b) > 0).all()
