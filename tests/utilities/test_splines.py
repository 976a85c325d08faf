"""Bins that are too coarse for dcut: what is said of them, and that the cure works."""

import re

import pytest

from pacehpc.potential import Potential
from pacehpc.utilities import yaml2yace
from pacehpc.utilities.splines import warn_of_coarse_bins


@pytest.fixture
def potential(golden):
    return Potential.load(golden / "potentials" / "al_chebexpcos.yaml")  # dcut 0.01 Å


def test_coarse_bins_are_named_with_bins_that_do(potential, caplog):
    potential.delta_spline_bins = 0.001
    warn_of_coarse_bins(potential)
    (text,) = caplog.messages
    assert "bins of 0.001 Å" in text and "dcut, 0.01 Å" in text
    numbers = re.search(r"by up to (\S+) eV.*With bins of (\S+) Å it is (\S+) eV", text).groups()
    change, finer, finer_change = map(float, numbers)
    assert 1e-6 < change < 1e-3 and finer < 0.001 and finer_change < change / 5
    caplog.clear()
    potential.delta_spline_bins = finer
    warn_of_coarse_bins(potential)
    assert caplog.messages == []


def test_the_command_says_it_and_takes_the_proposed_bin(golden, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    file = str(golden / "potentials" / "al_chebexpcos.yaml")
    assert yaml2yace.main([file, "-o", "a.yace", "--spline-bin", "0.001"]) == 0
    proposed = re.search(r"--spline-bin (\S+)$", caplog.messages[-1])[1]
    caplog.clear()
    assert yaml2yace.main([file, "-o", "a.yace", "--spline-bin", proposed]) == 0 and caplog.messages == []
    assert f"deltaSplineBins: {float(proposed):.3g}" in (tmp_path / "a.yace").read_text()[:60]
