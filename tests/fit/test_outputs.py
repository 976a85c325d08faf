"""Stress in predictions, figures and log; what is written in between costs little."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.stress import voigt_6_to_full_3x3_stress

from pacehpc.calculator import PaceCalculator
from pacehpc.errors import PacehpcError
from pacehpc.fit.outputs import stresses
from pacehpc.fit.plan import Tasks
from pacehpc.metrics import GPA
from pacehpc.potential import Potential
from pacehpc.report.tables import read_table

EXAMPLE = Path(__file__).parents[2] / "examples" / "al_ni"


def test_voigt_rows_of_virials():
    virial = voigt_6_to_full_3x3_stress([1, 2, 3, 4, 5, 6])
    found = stresses(np.array([virial, virial]), np.array([2.0, 0.0]))
    np.testing.assert_array_equal(found[0], [0.5, 1, 1.5, 2, 2.5, 3])
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_stress_is_predicted_and_shown(fit, weight):
    _, folder = fit(Tasks(), fit__loss__stress=weight, fit__maxiter=3, data__test_size=0.2)
    text = (folder / "log.txt").read_text()
    for which in ("train", "test"):
        frame = pd.read_pickle(folder / f"{which}_pred.pckl.gzip", compression="gzip")
        reference, predicted = (np.stack(frame[name].to_list()) for name in ("stress", "stress_pred"))
        periodic = np.array([atoms.pbc.all() for atoms in frame["ase_atoms"]])
        assert np.isnan(predicted[~periodic]).all() and np.isfinite(predicted[periodic]).all()
        known = periodic & np.isfinite(reference).all(axis=1)
        rmse = GPA * np.sqrt(np.mean((predicted - reference)[known] ** 2))
        assert float(re.search(rf"Stress \({which}\): RMSE (\S+) GPa", text)[1]) == pytest.approx(rmse, abs=1e-4)
        assert (folder / "report" / f"{which}_S-pairplot.png").stat().st_size > 5000
        if weight:
            prefix = "" if which == "train" else "test_"
            assert read_table(folder / f"{prefix}ladder_metrics.txt")["rmse_stress"][-1] == pytest.approx(
                rmse, rel=1e-6
            )
            assert re.search(rf"Stress \({which}\): \d+ of {len(frame)} structures take part; left out: \d+", text)
    atoms = frame["ase_atoms"].iloc[int(np.flatnonzero(periodic)[0])].copy()
    atoms.calc = PaceCalculator(Potential.load(folder / "output_potential.yaml"))
    np.testing.assert_allclose(atoms.get_stress(), predicted[periodic][0], rtol=1e-8, atol=1e-12)


def test_stresses_that_are_asked_for_and_absent_are_refused(fit):
    frame = pd.read_pickle(EXAMPLE / "al_ni.pckl.gzip", compression="gzip").iloc[:20]
    frame.drop(columns="stress").to_pickle("without.pckl.gzip", compression="gzip")
    with pytest.raises(PacehpcError, match="no periodic structure has a stress"):
        fit(fit__loss__stress=1.0, fit__maxiter=1, data__filename=["without.pckl.gzip"])
