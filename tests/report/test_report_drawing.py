"""Figures by processes of their own: they are there after `wait`, and a failure is the caller's error."""

from __future__ import annotations

import re
import subprocess
import sys

import fits
import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.report.drawing import Drawing, shared_out

ENERGIES, FORCES = np.linspace(-4, -3, 20), np.random.default_rng(0).normal(size=(60, 3))


def test_figures_are_there_after_waiting(tmp_path):
    drawing = Drawing(
        [("save_distributions", (str(tmp_path), ENERGIES, FORCES, which, "png")) for which in ("train", "test")]
    )
    drawing.wait()
    found = sorted(path.name for path in tmp_path.iterdir())
    assert len(found) >= 2 and all(name.endswith(".png") for name in found)
    assert any(name.startswith("train") for name in found) and any(name.startswith("test") for name in found)


def test_a_failure_is_reported_and_leaves_no_half_file(tmp_path):
    drawing = Drawing([("save_distributions", (str(tmp_path), ENERGIES, FORCES, "train", "no such format"))])
    with pytest.raises(PacehpcError, match=r"figures could not be drawn: .*no such format"):
        drawing.wait()
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_fails_is_a_warning(tmp_path, caplog):
    figure = ("save_distributions", (str(tmp_path), ENERGIES, FORCES, "train", "png"))
    one = fits.compared("train", 4)
    folder = fits.folder_with_potential(tmp_path)
    Drawing([figure], (str(folder), fits.summary([one]), [one], fits.curves())).wait()
    assert (folder / "report" / "index.html").exists() and not caplog.records
    (folder / "output_potential.yaml").unlink()
    (folder / "report" / "index.html").unlink()
    Drawing([figure], (str(folder), fits.summary([one]), [one], fits.curves())).wait()
    assert not (folder / "report" / "index.html").exists()
    assert re.search(r"report/index.html could not be written: .*output_potential.yaml", caplog.text)


def test_a_run_does_not_load_what_only_the_root_and_figures_need():
    code = "import sys, pacehpc.cli, pacehpc.fit.run; sys.exit('matplotlib' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_processes_share_the_figures():
    jobs = [("save_predictions", ("train",)), ("save_distributions", ("train",)), ("save_groups", ("train",)),
            ("save_stress", ("train",)), ("save_learning_curve", ())]  # fmt: skip
    first, second = shared_out(jobs)
    assert first == jobs[:1]
    assert second == jobs[1:]
    both = shared_out([*jobs[:4], ("save_predictions", ("test",)), *jobs[4:]])
    assert sorted(job for part in both for job in part) == sorted([*jobs, ("save_predictions", ("test",))])
    assert [part[0][0] for part in both] == ["save_predictions"] * 2
