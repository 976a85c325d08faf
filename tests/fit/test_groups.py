"""Groups of structures in the log, the tables and the figures of a fit."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pacehpc.fit.plan import Tasks

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"


def test_errors_by_group_are_those_of_the_predictions(fit):
    frame = pd.read_pickle(DATA, compression="gzip").iloc[:60]
    frame["config_type"] = [f"{len(set(atoms.symbols))} elements" for atoms in frame["ase_atoms"]]
    frame.to_pickle("grouped.pckl.gzip", compression="gzip")
    _, folder = fit(Tasks(), data__filename=["grouped.pckl.gzip"], data__test_size=0.3, fit__maxiter=3)
    text = (folder / "log.txt").read_text()
    for which in ("train", "test"):
        found = pd.read_pickle(folder / f"{which}_pred.pckl.gzip", compression="gzip")
        kinds = np.array([f"{len(set(atoms.symbols))} elements" for atoms in found["ase_atoms"]])
        with open(folder / "report" / f"{which}_groups.csv", newline="") as file:
            rows = {row["group"]: row for row in csv.DictReader(file)}
        assert set(rows) == set(kinds) and len(rows) == 2
        for kind, row in rows.items():
            part = found[kinds == kind]
            error = (part["energy_pred"] - part["energy_corrected"]) / part["NUMBER_OF_ATOMS"]
            assert int(row["structures"]) == len(part)
            assert float(row["rmse_epa"]) == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-7)
            assert f"{1e3 * float(row['rmse_epa']):9.2f}" in text
        with open(folder / "report" / f"{which}_worst.csv", newline="") as file:
            worst = list(csv.DictReader(file))
        assert len(worst) == 10 and {row["file"] for row in worst} == {"grouped.pckl.gzip"}
        assert {int(row["label"]) for row in worst} <= set(found.index)
        assert f"Errors by group ({which}):" in text and f"Worst structures ({which}):" in text


def test_without_groups_there_is_no_table_of_them(fit):
    frame = pd.read_pickle(DATA, compression="gzip").iloc[:20].drop(columns="name")
    frame.to_pickle("plain.pckl.gzip", compression="gzip")
    _, folder = fit(Tasks(), data__filename=["plain.pckl.gzip"], fit__maxiter=1)
    assert "Errors by group" not in (folder / "log.txt").read_text()
    assert not (folder / "report" / "train_groups.csv").exists() and (folder / "report" / "train_worst.csv").exists()
