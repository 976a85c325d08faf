"""Figures by processes of their own: they are there after `wait`, and a failure is the caller's error."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import fits
import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.report.drawing import Drawing

ENERGIES, FORCES = np.linspace(-4, -3, 20), np.random.default_rng(0).normal(size=(60, 3))


def test_figures_are_there_after_waiting(tmp_path):
    drawing = Drawing()
    drawing.draw(
        [("save_distributions", (str(tmp_path), ENERGIES, FORCES, which, "png")) for which in ("train", "test")]
    )
    drawing.wait()
    found = sorted(path.name for path in tmp_path.iterdir())
    assert len(found) >= 2 and all(name.endswith(".png") for name in found)
    assert any(name.startswith("train") for name in found) and any(name.startswith("test") for name in found)


def test_a_failure_is_reported_and_leaves_no_half_file(tmp_path):
    drawing = Drawing()
    drawing.draw([("save_distributions", (str(tmp_path), ENERGIES, FORCES, "train", "no such format"))])
    with pytest.raises(PacehpcError, match=r"figures could not be drawn: .*no such format"):
        drawing.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_failure_of_one_of_several_is_reported(tmp_path, place):
    """Whichever of the two processes meets it; the other figures are drawn."""
    kinds = ["png", "png", "png"]
    kinds.insert(place, "no such format")
    drawing = Drawing()
    jobs = [("save_distributions", (str(tmp_path), ENERGIES, FORCES, f"set{k}", kind)) for k, kind in enumerate(kinds)]
    drawing.draw(jobs)
    with pytest.raises(PacehpcError, match=r"figures could not be drawn: .*no such format"):
        drawing.wait()
    assert len(list(tmp_path.iterdir())) >= place  # those before it, at least


def test_a_page_that_fails_is_a_warning(tmp_path, caplog):
    figure = ("save_distributions", (str(tmp_path), ENERGIES, FORCES, "train", "png"))
    one = fits.compared("train", 4)
    folder = fits.folder_with_potential(tmp_path)
    page = str(folder), fits.summary([one]), [one], fits.curves()
    drawing = Drawing(page=True)
    drawing.draw([figure], page)
    drawing.wait()
    assert (folder / "report" / "index.html").exists() and not caplog.records
    (folder / "output_potential.yaml").unlink()
    (folder / "report" / "index.html").unlink()
    drawing = Drawing(page=True)
    drawing.draw([figure], page)
    drawing.wait()
    assert not (folder / "report" / "index.html").exists()
    assert re.search(r"report/index.html could not be written: .*output_potential.yaml", caplog.text)


def test_who_ends_without_a_word_leaves_no_process_behind(tmp_path):
    code = "import os; from pacehpc.report.drawing import Drawing; d = Drawing(page=True)\n"
    code += "print(*(process.pid for process, _ in d._processes), flush=True); os._exit(1)"
    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False, timeout=600)
    pids, deadline = [int(pid) for pid in ended.stdout.split()], time.monotonic() + 600
    assert len(pids) == 2
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    """Whether the process is there and is more than an entry that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_does_not_load_what_only_the_root_and_figures_need():
    code = "import sys, pacehpc.cli, pacehpc.fit.run; sys.exit('matplotlib' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
