"""Reference energies that a potential was fitted with are used again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pacehpc.config import load_settings
from pacehpc.dataset import Store
from pacehpc.errors import PacehpcError
from pacehpc.fit.data import prepare, stored_reference
from pacehpc.fit.plan import Tasks
from pacehpc.potential import Potential

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"
STORED = {"Al": -1.0, "Ni": -2.0, "shift": 0.25}


@pytest.fixture
def potential(golden):
    found = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    found.metadata["reference_energy"] = json.dumps(STORED)
    return found


@pytest.fixture
def energies(tmp_path, monkeypatch, potential):
    """energies(option, corrected): what is fitted of the first ten structures, and that of the stored energies."""
    monkeypatch.chdir(tmp_path)

    def go(option, corrected=False):
        frame = pd.read_pickle(DATA, compression="gzip")[["ase_atoms", "energy", "forces"]].iloc[:10]
        if corrected:
            frame["energy_corrected"] = np.arange(10.0)
        frame.to_pickle("data.pckl.gzip", compression="gzip")
        settings = load_settings(None, {"data.filename": ["data.pckl.gzip"], "data.reference_energy": option})
        data, _, _ = prepare(settings, potential)
        counts = np.array([[a.symbols.count("Al"), a.symbols.count("Ni")] for a in frame["ase_atoms"]])
        expected = frame["energy"].to_numpy() - counts @ [-1.0, -2.0] + 0.25 * counts.sum(axis=1)
        return data.energy_corrected, expected

    return go


@pytest.mark.parametrize("option", ["auto", None])
def test_stored_energies_are_reused(energies, option):
    found, expected = energies(option)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_energies_of_the_data_and_of_the_input_win(energies, caplog):
    found, _ = energies(None, corrected=True)
    np.testing.assert_array_equal(found, np.arange(10.0))
    with caplog.at_level("WARNING", logger="pacehpc"):
        found, expected = energies(0.0)
    assert not np.allclose(found, expected) and "the potential was fitted with" in caplog.text
    caplog.clear()
    found, expected = energies({"Al": -1.5, "Ni": -2.5, "shift": -0.25})  # the same sum
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert "fitted with" not in caplog.text


def test_prepared_data_of_other_reference_energies_are_made_anew(energies, potential):
    energies("auto")
    potential.metadata["reference_energy"] = json.dumps({"Al": 0.0, "Ni": 0.0})
    found, expected = energies("auto")
    assert not np.allclose(found, expected)


def test_stored_energies_that_lack_an_element_or_are_no_numbers_are_left(potential):
    assert stored_reference(potential) == STORED
    for text in ('{"Al": 1.0}', "much", '{"Al": "x", "Ni": 1}'):
        potential.metadata["reference_energy"] = text
        assert stored_reference(potential) is None
    assert stored_reference(None) is None


def test_a_fit_goes_on_with_the_energies_of_the_first(fit):
    _, folder = fit(data__reference_energy="auto", fit__maxiter=1)
    first = json.loads(Potential.load(folder / "output_potential.yaml").metadata["reference_energy"])
    fresh = pd.read_pickle(DATA, compression="gzip").iloc[:60]
    fresh.to_pickle(folder / "fewer.pckl.gzip", compression="gzip")  # whose own fit would differ
    (folder / "output_potential.yaml").rename(folder / "first.yaml")
    _, folder = fit(
        data__filename=["fewer.pckl.gzip"],
        data__reference_energy="auto",
        potential={"filename": "first.yaml"},
        fit__maxiter=1,
    )
    assert json.loads(Potential.load(folder / "output_potential.yaml").metadata["reference_energy"]) == first


def test_a_missing_file_is_named_with_its_key(fit):
    for key, changes in (
        ("data.filename", {"data__filename": ["none.pkl"]}),
        ("data.test_filename", {"data__test_filename": ["none.pkl"]}),
        ("fit.weighting.filename", {"fit__weighting": {"type": "ExternalWeightingPolicy", "filename": "none.pkl"}}),
    ):
        with pytest.raises(PacehpcError, match=rf"not found: none\.pkl\. Check {key} and data\.datapath"):
            fit(**changes)
    Path("folder").mkdir()
    with pytest.raises(PacehpcError, match=r"folder \(a folder\)"):
        fit(data__filename=["folder"])


def test_elements_that_the_fit_does_not_describe_are_said(fit):
    functions = {"ALL": {"nradmax_by_orders": [3], "lmax_by_orders": [0]}}
    log = fit(fit__maxiter=1, potential__functions=functions)[1] / "log.txt"
    assert log.read_text().count(" W - ") == 1 and "atoms without neighbours" in log.read_text()
    assert "train: energies -4.4517 to 0.0000 eV/atom" in log.read_text()
    for said, elements, given in (
        ("no structure to fit contains Cu:", ["Al", "Cu", "Ni"], functions),
        ("potential.functions: none for Ni alone", ["Al", "Ni"], dict.fromkeys(("Al", "NiAl"), functions["ALL"])),
    ):
        log.unlink()
        fit(fit__maxiter=1, potential__elements=elements, potential__functions=given)
        warnings = [line.split(" W - ")[1].strip() for line in log.read_text().splitlines() if " W - " in line]
        assert len(warnings) == 2 and sum(line.startswith(said) for line in warnings) == 1


def test_a_fit_does_not_need_the_files_of_prepared_data(fit, tmp_path, monkeypatch):
    """They may lie elsewhere at the next start, and the result of a query that is not kept is gone already."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    shutil.copy(DATA, tmp_path / "first" / "data.pckl.gzip")
    known = hashlib.sha256(DATA.read_bytes()).hexdigest()
    monkeypatch.setenv("PACEMAKERDATAPATH", str(tmp_path / "first"))
    fit(Tasks(prepare=True), data__filename=["data.pckl.gzip"])
    (tmp_path / "first" / "data.pckl.gzip").rename(tmp_path / "second" / "data.pckl.gzip")
    monkeypatch.setenv("PACEMAKERDATAPATH", str(tmp_path / "second"))
    code, folder = fit(data__filename=["data.pckl.gzip"], fit__maxiter=1)
    assert code == 0 and "prepared before" in (folder / "log.txt").read_text()
    assert Potential.load(folder / "output_potential.yaml").metadata["data_sha256"] == known


def test_prepared_data_given_as_data_are_not_written_over(fit, tmp_path):
    """With a test set every start would leave fewer structures in them."""
    fit(Tasks(prepare=True))
    before = (tmp_path / "prepared_data.h5").read_bytes()
    again = {"filename": ["prepared_data.h5"], "test_size": 0.2}
    with pytest.raises(PacehpcError, match=r"prepared_data\.h5: is where this fit writes its prepared data"):
        fit(Tasks(prepare=True), data=again)
    assert (tmp_path / "prepared_data.h5").read_bytes() == before
    (tmp_path / "prepared_data.h5").rename(tmp_path / "all.h5")
    assert fit(Tasks(prepare=True), data=again | {"filename": ["all.h5"]})[0] == 0
    assert (tmp_path / "all.h5").read_bytes() == before


def test_lists_for_potentials_to_come(fit, tmp_path):
    """--prepare-data stores neighbours within `cutoff`, a fit those within each rcut, but uses longer lists."""

    def stored():
        with Store(tmp_path / "prepared_data.h5") as store:
            return store.serves(6.0), store.n_bonds

    fit(cutoff=6.0, fit__maxiter=1)
    assert not stored()[0] and "cutoff: 6 counts with --prepare-data" in (tmp_path / "log.txt").read_text()
    (tmp_path / "output_potential.yaml").unlink()
    fit(Tasks(prepare=True), cutoff=6.0)
    longer = stored()
    assert longer[0]
    fit(fit__maxiter=1)
    assert stored() == longer and "prepared before" in (tmp_path / "log.txt").read_text()
