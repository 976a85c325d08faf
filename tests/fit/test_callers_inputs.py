"""Inputs as programs around pacemaker write them: accepted, with one line for each key with another meaning here."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pacehpc import parallel
from pacehpc.config import load_settings
from pacehpc.errors import PacehpcError
from pacehpc.fit.plan import Tasks
from pacehpc.fit.run import run
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"
UNARY, ALL = 10, 56  # functions of one element, and of both with their two mixed blocks
KAPPA = "accepted, no meaning here: kappa weighs forces against energies"
MEMORY = "accepted, no meaning here: batches are cut to the free memory"
SAID = {
    "a_batch": [f"backend.batch_size_training: {MEMORY}", f"backend.batch_size_evaluation: {MEMORY}"],
    "a_case": ["potential.bonds.ALL.NameofCutoffFunction: means NameOfCutoffFunction"],
    "a_loss_w": [f"fit.loss.w_energy: {KAPPA}", f"fit.loss.w_forces: {KAPPA}"],
    "a_loss_ws": ["fit.loss.w_stress: accepted, no meaning here: `stress` is the factor of the stress term"],
    "e_eight": ["fit.min_relative_test_loss_per_iter: no meaning without a test set"],
    "el_str": ["potential.elements: 'AuCu' means [Au, Cu]"],
    "gpu-1": ["backend.evaluator: tensorpot means cpu here"],
    "gpu_none": ["backend.evaluator: tensorpot means auto here"],
    "i_float": [],
    "l_short": [
        "potential.functions.ALL.nradmax_by_orders: has 3 entries, the other list 2: there will be no functions of "
        "rank 3 and more"
    ],
    "m_back": [
        "backend.parallel_mode: accepted, no meaning here: the number of MPI ranks sets the parallelism",
        f"backend.batch_size: {MEMORY}",
    ],
    "m_opts": ["fit.options.disp: accepted, no meaning here: the log shows the progress"],
    "m_tiny": [],
    "p_inside": ["potential.functions.ALL.number_of_functions_per_element: means the key beside ALL"],
    "p_null": [],
}


@pytest.mark.parametrize("name", SAID)
def test_inputs_of_wrappers_run(name, shared, tmp_path, monkeypatch):
    folder = shared("cases/wrapper_inputs")
    assert {path.stem for path in folder.glob("*.yaml")} == set(SAID)
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "df.pckl.gzip", tmp_path)
    settings = load_settings(folder / f"{name}.yaml", {"fit.maxiter": 1})
    parallel.setup_logging(Ranks(), "log.txt")
    try:
        assert run(settings, Ranks(), Tasks(predict=False)) == 0
    finally:
        parallel.close_logging()
    text = Path("log.txt").read_text()
    for line in SAID[name]:
        level = "W" if "there will be no" in line else "I"
        assert text.count(f" {level} - {line}\n") == 1, text
    assert Potential.load("output_potential.yaml").n_functions == (40 if name == "p_inside" else ALL)


def bonds(**keys) -> dict:
    return {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 4.5, "dcut": 0.01} | keys}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"r_in": 2.6, "delta_in": 0.5}, "r_in 2.6 of Al Al, r_in 2.6 of Al Ni, r_in 2.6 of Ni Ni"),
        (
            {"inner_cutoff_type": "density", "core-repulsion": [100, 1]},
            "core-repulsion of Al Al, core-repulsion of Al Ni, ",
        ),
    ],
)
def test_repulsion_auto_replaces_an_inner_cutoff_before_the_fit(fit, keys, said):
    """What is trained is what is deployed: the errors of the last iteration are those of the written potential."""
    _, folder = fit(fit__repulsion="auto", potential__bonds=bonds(**keys), fit__maxiter=3)
    lines = (folder / "log.txt").read_text().splitlines()
    found = [line for line in lines if "repulsion: auto replaces" in line]
    assert len(found) == 1 and f" I - repulsion: auto replaces {said}" in found[0]
    fit(Tasks(predict=False, output="plain.yaml"), fit__repulsion="auto", potential__bonds=bonds(), fit__maxiter=3)
    with_keys, without = (Potential.load(name) for name in ("output_potential.yaml", "plain.yaml"))
    np.testing.assert_array_equal(with_keys.parameters, without.parameters)
    assert with_keys.bonds == without.bonds
    assert {bond.inner_cutoff_type for bond in with_keys.bonds.values()} == {"zbl"}
    fitted = float([line for line in (folder / "ladder_metrics.txt").read_text().split("\n") if line][-1].split()[3])
    assert float(with_keys.metadata["final_loss"]) == pytest.approx(fitted, rel=1e-9)


def test_a_cutoff_below_rcut_is_a_warning_and_changes_nothing(fit):
    _, folder = fit(cutoff=4.0, fit__maxiter=2)
    said = [line for line in (folder / "log.txt").read_text().splitlines() if " W - " in line]
    said = [line for line in said if "atoms without neighbours" not in line]  # dimers of the data beyond the cutoff
    assert len(said) == 1 and "cutoff: 4 Å is smaller than the largest rcut and not used" in said[0]
    low = Potential.load("output_potential.yaml")
    fit(Tasks(predict=False, output="plain.yaml"), cutoff=None, fit__maxiter=2)
    np.testing.assert_array_equal(low.parameters, Potential.load("plain.yaml").parameters)


def test_columns_of_other_names(fit):
    """data.energy_key and data.forces_key, as autoplex gives them and with other names."""
    frame = pd.read_pickle(DATA, compression="gzip").iloc[:30]
    frame.to_pickle("plain.pckl.gzip", compression="gzip")
    frame.rename(columns={"energy": "e_dft", "forces": "f_dft"}).to_pickle("other.pckl.gzip", compression="gzip")
    parameters = []
    for file, keys in (
        ("plain", {}),
        ("plain", {"data__energy_key": "energy", "data__forces_key": "forces"}),
        ("other", {"data__energy_key": "e_dft", "data__forces_key": "f_dft"}),
        ("other", {"data__keys": {"energy": "e_dft", "forces": "f_dft"}}),
    ):
        fit(data__filename=[f"{file}.pckl.gzip"], fit__maxiter=2, **keys)
        parameters.append(Potential.load("output_potential.yaml").parameters)
    for found in parameters[1:]:
        np.testing.assert_array_equal(found, parameters[0])
    text = Path("log.txt").read_text()
    assert text.count("data.energy_key: the column `e_dft` holds the energies\n") == 1
    with pytest.raises(PacehpcError, match=r"energy: 'e' is in none of .*They have: .*energy"):
        fit(data__filename=["plain.pckl.gzip"], data__energy_key="e")


def test_corrected_energies_named_by_energy_key():
    settings = load_settings(None, {"data.energy_key": "energy_corrected", "data.forces_key": "forces"})
    assert settings.data.keys is None
    assert settings.notes[0] == "data.energy_key: the column `energy_corrected` holds the energies"
