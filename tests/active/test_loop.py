"""The example of active learning: grades and errors fall, and a generation that was killed ends the same."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]


def start(folder: Path, number: int) -> subprocess.Popen:
    """Start a generation in a process group of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}
    return subprocess.Popen(
        [sys.executable, "generation.py", str(number)], cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def run(folder: Path, number: int) -> tuple[float, float]:
    """Run a generation to its end; its largest grade and test error."""
    process = start(folder, number)
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    found = re.search(r"largest grade ([\d.]+), error of test forces ([\d.]+)", text)
    return float(found[1]), float(found[2])


@pytest.mark.slow
def test_generations(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shutil.copytree(ROOT / "examples" / "active_learning", whole)
    shutil.copytree(ROOT / "examples" / "active_learning", killed)
    found = [run(whole, number) for number in range(3)]
    grades, errors = zip(*found, strict=True)
    assert grades[0] > grades[1]
    assert grades[0] > 5 * grades[2]
    assert errors[0] > errors[1] > errors[2]
    process = start(killed, 0)
    while not (killed / "gen_0" / "checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert run(killed, 0) == found[0]
    one, two = (pd.read_pickle(f / "gen_1" / "data.pckl.gzip", compression="gzip") for f in (whole, killed))
    pd.testing.assert_frame_equal(one.drop(columns="ase_atoms"), two.drop(columns="ase_atoms"))
