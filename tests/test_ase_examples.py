"""The ASE examples run; their potential was fitted to EMT, whose own results are known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "ase"


def run(name: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, FOLDER / name, *arguments], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def number(text: str, pattern: str) -> float:
    return float(re.search(pattern + r"\s*\[?([-\d.e+]+)", text)[1])


@pytest.mark.slow
def test_molecular_dynamics():
    text = run("md.py")
    rows = [[float(word) for word in line.split()] for line in text.splitlines()[1:-1]]
    assert [row[0] for row in rows] == [40 * k for k in range(1, 11)]
    assert all(abs(row[1] + row[2] - row[3]) < 1e-3 for row in rows)
    assert all(400 < row[4] < 850 for row in rows[1:])
    assert number(text, "varies by") < 100


@pytest.mark.slow
def test_cell_relaxation():
    text = run("relax_cell.py")
    lengths = [float(x) for x in re.search(r"lengths: \[([\d. ]+)\]", text)[1].split()]
    assert lengths == pytest.approx([3.6596] * 3, abs=0.02)  # EMT
    angles = [float(x) for x in re.search(r"angles: \[([\d. ]+)\]", text)[1].split()]
    assert angles == pytest.approx([90] * 3, abs=0.02)
    assert number(text, "largest force") < 2e-4 and number(text, "stress") < 5e-3


@pytest.mark.slow
def test_elastic_constants():
    text = run("elastic_constants.py", FOLDER / "al_ni.yace")
    emt = {"C11": 147.6, "C12": 95.0, "C44": 86.5, "B ": 112.5}
    for name, value in emt.items():
        assert number(text, name + r" *=") == pytest.approx(value, rel=0.15)
