"""What the root reads and checks before a fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.fit.plan import Tasks
from pacehpc.potential import Potential

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"


def test_more_functions_asked_for_than_there_are_is_said_in_one_line(fit):
    changes = {"potential__functions__number_of_functions_per_element": 1000, "fit__maxiter": 0}
    _, folder = fit(Tasks(predict=False, dry_run=False), **changes)
    n = Potential.load(folder / "output_potential.yaml").n_functions
    said = [line for line in (folder / "log.txt").read_text().splitlines() if "asked for" in line]
    assert len(said) == 1 and f"2000 functions asked for, {n} are there" in said[0]


def test_a_file_or_folder_in_the_place_of_the_other_is_refused_before_the_fit(fit, tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(PacehpcError, match="report: figures go into a folder"):
        fit(Tasks(), fit__maxiter=1)
    (tmp_path / "old").mkdir()
    with pytest.raises(PacehpcError, match="old: cannot be read: Is a directory"):
        fit(potential={"filename": "old"}, data__reference_energy=None)
    with pytest.raises(PacehpcError, match="old: cannot be read: Is a directory"):
        fit(potential__initial_potential="old")
    assert not (tmp_path / "checkpoint").exists()


def test_metadata_of_a_potential_that_is_fitted_again(fit):
    """Of the fit before only what still holds stays: neither its test set nor its reference energies."""
    frame = pd.read_pickle(DATA, compression="gzip")
    numbers = np.array([[a.symbols.count("Al"), a.symbols.count("Ni")] for a in frame["ase_atoms"]])
    frame["energy_corrected"] = frame["energy"] - numbers @ [3.0, 4.0]
    frame.to_pickle("corrected.pckl.gzip", compression="gzip")
    _, folder = fit(fit__maxiter=1, data__test_size=0.1, metadata={"origin": "here"})
    before = Potential.load(folder / "output_potential.yaml").metadata
    assert {"final_test_loss", "reference_energy"} <= set(before)
    (folder / "output_potential.yaml").rename(folder / "old.yaml")
    _, folder = fit(fit__maxiter=1, potential={"filename": "old.yaml"}, data={"filename": ["corrected.pckl.gzip"]})
    after = Potential.load(folder / "output_potential.yaml").metadata
    assert set(before) - set(after) == {key for key in before if key.startswith("final_test_")} | {"reference_energy"}
    assert after["origin"] == "here" and after["data_sha256"] != before["data_sha256"]
    assert "reference_energy" not in Potential.load(folder / "target_potential.yaml").metadata
