"""Figures by processes of their own: they are there after `wait`, and a failure is the caller's error."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.report.drawing import Drawing

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


def test_a_run_does_not_load_what_only_the_root_and_figures_need():
    code = "import sys, pacehpc.cli, pacehpc.fit.run; sys.exit('matplotlib' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
