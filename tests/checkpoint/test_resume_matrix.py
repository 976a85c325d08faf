"""A sample of benchmarks/resume.py, which stops fits everywhere, by everything, and resumes them on other ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def resume(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    yield __import__("resume")
    sys.modules.pop("resume")


def test_every_point_signal_change_and_optimizer(resume, tmp_path, capsys):
    cells = resume.sample()
    for kind in ("point", "signal", "change", "optimizer"):
        assert {getattr(cell, kind) for cell in cells} == {getattr(cell, kind) for cell in resume.matrix()}
    found = resume.run(cells, tmp_path)
    assert len(found) >= len(cells) - sum(cell.signal == "full disk" for cell in cells)  # the rights of root
    assert [cell for cell in found if not cell.holds] == [], capsys.readouterr().out
