"""Figures exist, show every point and survive awkward data."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.text import Text

from pacehpc.report import figures
from pacehpc.report.figures import save_distributions, save_learning_curve, save_predictions
from pacehpc.report.iterations import global_iterations, starts_of
from pacehpc.report.predictions import Predictions

NAMES = ("EF-pairplots", "E-dE-dist", "F-dF-dist", "Fi-dFi-dist", "E-dE-nn")


def predictions(n: int, m: int) -> Predictions:
    random = np.random.default_rng(0)
    energy, forces = random.normal(-3, 1, n), random.normal(0, 1, (m, 3))
    return Predictions(
        energy, energy + random.normal(0, 0.01, n), forces, forces + random.normal(0, 0.05, (m, 3)), np.full(n, 2.5)
    )


@pytest.mark.parametrize(("imagetype", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_names_and_formats(tmp_path, imagetype, magic):
    paths = save_predictions(tmp_path / "report", predictions(20, 80), "test", imagetype)
    assert [path.name for path in paths] == [f"test_{name}.{imagetype}" for name in NAMES]
    assert all(path.read_bytes().startswith(magic) for path in paths)
    data = predictions(20, 80)
    assert save_distributions(tmp_path / "report", data.energy, data.forces, "train", imagetype).name == (
        f"train_ef-distributions.{imagetype}"
    )
    assert len(list((tmp_path / "report").iterdir())) == 6  # nothing left beside


AWKWARD = {
    "one structure": Predictions(
        np.array([-3.7]), np.array([-3.7]), np.zeros((1, 3)), np.zeros((1, 3)), np.array([np.inf])
    ),
    "nan and zero forces": Predictions(
        np.array([0.0, 0.0]), np.array([np.nan, 1e-3]), np.zeros((4, 3)), np.ones((4, 3)), np.ones(2)
    ),
    "nothing": Predictions(np.zeros(0), np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)),
    "huge": Predictions(np.array([-1e6, 1e6]), np.array([-1e6, 1e-9]), np.ones((2, 3)), np.ones((2, 3)), np.ones(2)),
}


@pytest.mark.parametrize("data", AWKWARD.values(), ids=AWKWARD)
def test_awkward_data(tmp_path, data, recwarn):
    assert len(save_predictions(tmp_path, data)) == 5
    assert save_distributions(tmp_path, data.energy, data.forces).exists()
    assert [str(w.message) for w in recwarn] == []


def test_many_points_stay_small_and_fast(tmp_path):
    paths = save_predictions(tmp_path, predictions(5000, 334_000), "train", "svg")
    assert max(path.stat().st_size for path in paths) < 3_000_000


def test_limits_are_tight_and_never_empty():
    low, high = figures._limits(np.array([1.0, 3.0, np.nan]))
    assert 0.85 < low < 1 and 3 < high < 3.15
    for values in ([0.0], [5.0, 5.0], [], [1e-310], [-2e9]):
        low, high = figures._limits(np.array(values))
        assert low < high and all(low <= value <= high for value in values)
    assert figures._limits(np.array([0.0]), from_zero=True) == (0.0, 1.0)
    low, high = figures._limits(np.array([-1.0, 4.0]), around_zero=True)
    assert low == -high < -4


def test_summary():
    error = np.array([3.0, -4.0])
    assert figures._summary(error, "meV") == "RMSE 3.54 meV\nMAE 3.50 meV"


def test_learning_curve(tmp_path):
    train = {
        "ladder_step": np.repeat([0, 0, 1], 3),
        "cycle_step": np.repeat([0, 1, 0], 3),
        "iter_num": np.array([0, 5, 10, 0, 5, 10, 0, 5, 8]),
        "loss": np.geomspace(1, 0.1, 9),
        "rmse_epa": np.geomspace(1, 0.1, 9),
        "rmse_f_comp": np.zeros(9),
    }
    starts = starts_of(train)
    assert starts == {(0, 0): 0, (0, 1): 10, (1, 0): 20}
    assert list(global_iterations(train, starts)) == [0, 5, 10, 10, 15, 20, 20, 25, 28]
    test = {name: values[::2] for name, values in train.items()}
    assert save_learning_curve(tmp_path, train, test).name == "learning_curve.png"
    one = {name: values[:1] for name, values in train.items()}
    assert save_learning_curve(tmp_path, one, {}, "pdf").exists()
    assert save_learning_curve(tmp_path, {}) is None


LADDER = {
    "ladder_step": np.repeat(np.arange(6), 10),
    "cycle_step": np.tile(np.repeat([0, 1], 5), 6),
    "iter_num": np.tile(np.arange(0, 50, 10), 12),
    "loss": np.geomspace(1, 1e-6, 60),
    "rmse_epa": np.geomspace(1, 1e-4, 60),
    "rmse_f_comp": np.geomspace(1, 0.5, 60),
}


@pytest.mark.parametrize(
    "draw",
    [
        lambda folder: save_learning_curve(folder, LADDER, LADDER),
        lambda folder: save_predictions(folder, predictions(200, 800)),
        lambda folder: save_predictions(folder, predictions(6000, 6000)),
        lambda folder: save_predictions(folder, AWKWARD["huge"]),
        lambda folder: save_distributions(folder, predictions(9, 9).energy, predictions(9, 9).forces),
        lambda folder: figures.save_groups(folder, ["a", "some_longer_name"], np.ones(2), np.ones(2)),
        lambda folder: figures.save_stress(
            folder, 1e3 * np.ones((3, 6)), np.ones((3, 6)), groups=np.array(list("abc"))
        ),
    ],
    ids=["ladder", "predictions", "many", "huge", "distributions", "groups", "stress"],
)
def test_all_texts_are_inside_and_apart(tmp_path, monkeypatch, draw):
    """Margins are fixed: labels must fit into them, and titles must not lie over each other."""
    drawn = []
    save = figures.save_figure
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: (drawn.append(figure), save(figure, path))[1])
    draw(tmp_path)
    assert drawn
    for figure in drawn:
        texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
        above = []
        for axes in figure.axes:  # axis labels stand beside the numbers
            texts += [axes.xaxis.label, axes.yaxis.label, axes.title, axes._right_title, *axes.texts]
            above += [axes.title, axes.yaxis.get_offset_text()]
        for text in filter(Text.get_text, texts):
            box = text.get_window_extent()
            assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1) > -1, text.get_text()
        for title in figure.texts:
            for text in filter(Text.get_text, above):
                assert not text.get_window_extent().overlaps(title.get_window_extent()), text.get_text()


def test_pyplot_is_never_imported():
    code = "import sys, pacehpc.report.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
