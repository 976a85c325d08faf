"""What a dry run says of data with known oddities, and of the fit to come."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk

from pacehpc.dataset import load_dataset
from pacehpc.fit.dry_run import closest_relative, duplicates, outliers
from pacehpc.fit.plan import Tasks
from pacehpc.potential import Potential
from pacehpc.report.tables import read_table


def frames() -> list[Atoms]:
    """0 and 1: a crystal, turned, moved and with its atoms in another order; 2: almost it; 3: another; 4: too close."""
    first = bulk("Ni", "fcc", a=3.6, cubic=True)
    first.symbols[0] = "Al"
    first.rattle(0.05, seed=1)
    same = first.copy()
    same.rotate(33, (1, 2, 3), rotate_cell=True)
    same.translate((0.3, 0.1, -0.2))
    same = same[[2, 0, 3, 1]]
    other = first.copy()
    other.rattle(0.02, seed=2)
    close = Atoms("Ni2", positions=[(0, 0, 0), (0, 0, 1.2)])
    return [first, same, other, bulk("Al", "fcc", a=4.0), close]


def test_duplicates_are_found_whatever_their_orientation(golden, tmp_path):
    atoms = frames()
    columns = {"ase_atoms": atoms, "energy_corrected": np.zeros(5), "forces": [np.zeros((len(a), 3)) for a in atoms]}
    pd.DataFrame(columns).to_pickle(tmp_path / "data.pckl.gzip", compression="gzip")
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    structures = load_dataset(tmp_path / "data.pckl.gzip").structures(potential)
    assert [group.tolist() for group in duplicates(structures)] == [[0, 1]]
    closest = closest_relative(structures, potential.elements)
    assert closest[4] == pytest.approx(1.2 / (2 * 1.24)) and (closest[:4] > 0.9).all()


def test_outliers_are_far_from_the_median():
    values = np.concatenate([np.linspace(-1, 1, 50), [30.0]])
    assert np.flatnonzero(outliers(values)).tolist() == [50]
    assert not outliers(np.zeros(4)).any() and not outliers(np.linspace(0, 1, 9)).any()


def test_everything_is_shown(fit):
    weighting = {"type": "EnergyBasedWeightingPolicy", "DElow": 0.5, "DEup": 3.0, "wlow": 0.8}
    code, folder = fit(
        Tasks(dry_run=True), fit__weighting=weighting, fit__ladder_step=8, fit__fit_cycles=2, data__test_size=0.2
    )
    text = (folder / "log.txt").read_text()
    assert code == 0 and not (folder / "target_potential.yaml").exists()
    assert re.search(r"train: \d+ structures, \d+ atoms \(Al \d+, Ni \d+\)", text)
    assert re.search(r"test: \d+ duplicates", text) and re.search(r"train: \d+ outliers in the shortest distance", text)
    assert "train: 0 of" not in text and re.search(r"train: [1-9]\d* of \d+ atoms have no neighbour", text)
    assert re.search(r"lower tier \(below 0.5 eV/atom above the hull\): \d+ structures, energies 0\.\d+", text)
    assert re.search(r"block Al Ni +rank 2: \d+ functions", text)
    assert re.search(r"memory: about \S+ MiB per rank for the data", text)
    assert re.search(r"memory: \S+ KiB of the first rank for the optimizer", text)
    seconds = float(re.search(r"time: about (\S+) ms an evaluation on 1 rank ", text)[1]) / 1000
    assert 1e-5 < seconds < 5

    # the ladder plan is what a fit does
    planned = [int(n) for n in re.findall(r"(\d+)/\d+", re.search(r"ladder: \d+ steps, (.*)", text)[1])]
    assert f"{len(planned)} ladder steps x 2 cycles x at most 8 iterations of BFGS" in text
    steps = f"{len(planned)} ladder steps x 2 cycles x 8 iterations"
    total = re.search(
        rf"at most about (\S+) for the whole fit \({steps}, 1.3 evaluations each\); started now it", text
    )[1]
    hours, minutes, whole = map(int, total.split(":"))
    spent = 3600 * hours + 60 * minutes + whole
    assert spent <= max(1.5, 1.3 * 8 * 2 * len(planned) * seconds + 1)  # the earlier steps cost less than the last
    _, folder = fit(fit__ladder_step=8, fit__maxiter=0)
    assert read_table(folder / "ladder_metrics.txt")["nfuncs"].tolist() == planned
