"""Folders of fits read again, and those that hold none."""

from __future__ import annotations

import json

import fits
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.report.folder import read_predictions
from pacehpc.report.summary import NAME, read_summary
from pacehpc.utilities import report


def test_a_summary_comes_back_as_it_was(tmp_path):
    found = fits.summary([fits.compared("train", 3)])
    found.write(tmp_path)
    again = read_summary(tmp_path)
    again.errors["train"].pop("rmse_stress"), found.errors["train"].pop("rmse_stress")  # nan is not nan
    assert again == found and again.ranks == 2 and again.wall_seconds == 4.0


def test_folders_without_a_finished_fit_are_named(tmp_path, capsys):
    with pytest.raises(PacehpcError, match="no such folder"):
        read_summary(tmp_path / "absent")
    with pytest.raises(PacehpcError, match="holds no finished fit"):
        read_summary(tmp_path)
    fits.folder_with_potential(tmp_path)
    with pytest.raises(PacehpcError, match="earlier version"):
        read_summary(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    assert report.main([str(tmp_path)]) == 1 and "is unfinished" in capsys.readouterr().err
    (tmp_path / NAME).write_text("{")
    with pytest.raises(PacehpcError, match="cannot be read"):
        read_summary(tmp_path)
    (tmp_path / NAME).write_text(json.dumps({"version": "0"}))
    with pytest.raises(PacehpcError, match="damaged"):
        read_summary(tmp_path)


def test_a_fit_without_predictions_is_told_how_to_make_them(tmp_path):
    with pytest.raises(PacehpcError, match=r"pacehpc -p output_potential.yaml --no-fit"):
        read_predictions(tmp_path, fits.summary([fits.compared("train", 3)]))
