"""Factors on the weights of groups of structures: which structures a pattern names, and what becomes of the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms

from pacehpc.config import load_settings
from pacehpc.dataset import Store, load_dataset
from pacehpc.dataset.groups import group_factors, pattern_labels
from pacehpc.errors import PacehpcError
from pacehpc.fit.data import prepare
from pacehpc.potential import Potential

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"
NAMES = ["bulk_1", "bulk_2", "surface_a_1", "surface_a_2", "surface_b_1", "surface_b_2"]
SIZES = [1, 2, 3, 1, 2, 2]


@pytest.fixture
def load(tmp_path):
    """load(columns, **options): six structures of known sizes, three groups."""

    def load(columns=None, **options):
        frame = pd.DataFrame({"name": NAMES, "energy_corrected": -np.arange(6.0)})
        frame["ase_atoms"] = [Atoms(f"Al{n}", 2.0 * np.arange(3 * n).reshape(n, 3)) for n in SIZES]
        frame["forces"] = [np.full((n, 3), 0.1 * k) for k, n in enumerate(SIZES)]
        for name, values in (columns or {}).items():
            frame[name] = pd.Series(values, dtype=object)
        frame.to_pickle(tmp_path / "data.pkl")
        return load_dataset(tmp_path / "data.pkl", **options)

    return load


FACTORS = {"surface*": {"energy": 10.0, "forces": 3.0}, "surface_b": {"energy": 2.0}}
BY_HAND = np.array([1, 1, 10, 10, 2, 2.0]), np.array([1, 1, 3, 3, 3, 3.0])


def check(data, plain):
    """The factors times the weights without them, normalised."""
    energy, forces = BY_HAND[0][data.rows], np.repeat(BY_HAND[1][data.rows], data.atoms_per_structure)
    assert data.index == plain.index
    np.testing.assert_allclose(data.w_energy, plain.w_energy * energy / (plain.w_energy @ energy), rtol=1e-14)
    np.testing.assert_allclose(
        data.flat_w_forces, plain.flat_w_forces * forces / (plain.flat_w_forces @ forces), rtol=1e-14
    )


def test_factors_on_uniform_weights_by_hand(load):
    data = load(group_weights=FACTORS)
    np.testing.assert_allclose(data.w_energy, BY_HAND[0] / 26)
    np.testing.assert_allclose(data.flat_w_forces, np.repeat(BY_HAND[1], SIZES) / 27)


def test_factors_on_a_policy_that_drops_structures(load):
    weighting = {"type": "EnergyBasedWeightingPolicy", "energy": "cohesive", "DEup": 1.9, "DElow": 0.5}
    plain = load(weighting=weighting)
    assert 0 < len(plain) < 6
    check(load(weighting=weighting, group_weights=FACTORS), plain)


def test_factors_on_columns_and_on_weights_of_a_file(load, tmp_path):
    columns = {"w_energy": [1.0, 2, 3, 4, 5, 6], "w_forces": [[0.5 + k] * n for k, n in enumerate(SIZES)]}
    plain = load(columns)
    assert plain.weighting == "columns"
    check(load(columns, group_weights=FACTORS), plain)
    outer = pd.DataFrame({"w_energy": [3.0, 1.0, 2.0]}, index=[5, 0, 2])
    outer["w_forces"] = pd.Series([[4.0, 1.0], [2.0], [1.0, 2.0, 3.0]], index=[5, 0, 2], dtype=object)
    outer.to_pickle(tmp_path / "weights.pkl")
    weighting = {"type": "ExternalWeightingPolicy", "filename": str(tmp_path / "weights.pkl")}
    check(load(weighting=weighting, group_weights=FACTORS), load(weighting=weighting))
    check(load({"w_factor": [1.0, 2, 3, 4, 5, 6]}, group_weights=FACTORS), load({"w_factor": [1.0, 2, 3, 4, 5, 6]}))


def test_factor_zero_leaves_a_group_out(load):
    data = load(group_weights={"surface_a": {"forces": 0.0}})
    assert (data.flat_w_forces == 0).sum() == 4 and (data.w_energy > 0).all()


def test_the_last_pattern_counts_and_the_log_says_what_it_did(load, caplog):
    caplog.set_level("INFO", logger="pacehpc")
    data = load(group_weights={"*": {"energy": 5.0}, "bulk": {"energy": 1.0}})
    np.testing.assert_allclose(data.w_energy, np.array([1, 1, 5, 5, 5, 5]) / 22)
    assert "(2 structures keep theirs)" in caplog.text
    lines = [line.split() for line in caplog.text.splitlines()]
    assert ["2", "5", "1", "surface_a"] in lines and ["2", "5", "1", "surface_b"] in lines


def test_a_pattern_without_structures_is_an_error_with_the_labels(load):
    with pytest.raises(PacehpcError, match=r"'surfaces' matches no structure.*: bulk, surface_a, surface_b"):
        load(group_weights={"surfaces": {"energy": 1.0}})
    with pytest.raises(PacehpcError, match="no factor 'stress'"):
        load(group_weights={"bulk": {"stress": 1.0}})


@pytest.mark.parametrize(
    ("names", "types", "wanted"),
    [
        (["a_1", "a_2", "b_1", "b_2"], ["x", "x", "y", "y"], ["x", "x", "y", "y"]),
        (["a_1", "a_2", "b_1", "b_2"], [None] * 4, ["a", "a", "b", "b"]),
        (["a_1", "a_2", "a_3", "a_4"], ["all"] * 4, ["all"] * 4),  # one group is none in tables of errors
        ([f"n{k}" for k in range(100)], [f"kind{k}" for k in range(100)], [f"kind{k}" for k in range(100)]),
        (["one", "two", "three", ""], [None] * 4, ["one", "two", "three", "others"]),
    ],
)
def test_labels_are_those_of_the_tables_or_else_the_structures_own(names, types, wanted):
    info = [{} if kind is None else {"config_type": kind} for kind in types]
    assert pattern_labels(names, info).tolist() == wanted


def test_factors_without_patterns_are_one():
    energy, forces = group_factors(np.array(["a", "b"], dtype=object), {}, "here")
    assert energy.tolist() == forces.tolist() == [1, 1]


def test_train_and_test_set_and_the_prepared_files_that_know_the_factors(tmp_path, monkeypatch, golden):
    monkeypatch.chdir(tmp_path)
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")

    def go(**weights):
        given = {"data.filename": [str(DATA)], "data.reference_energy": 3.0, "data.test_size": 0.3}
        settings = load_settings(None, {**given, "data.weights": weights or None})
        train, test, stores = prepare(settings, potential)
        with Store(stores["train"]) as store:
            return train, test, store.inputs

    plain, plain_test, before = go()
    factors = {"*_surface": {"energy": 10}, "Al*": {"forces": 3}}
    train, test, inputs = go(**factors)
    for data, other in ((train, plain), (test, plain_test)):
        surface = np.array([name.endswith("surface") for name in data.names])
        ratio = data.w_energy / other.w_energy
        assert surface.any() and np.ptp(ratio[surface]) < 1e-12
        np.testing.assert_allclose(ratio[surface] / ratio[~surface][0], 10)
        assert data.w_energy.sum() == pytest.approx(1) and data.flat_w_forces.sum() == pytest.approx(1)
    assert inputs != before and go(**factors)[2] == inputs
    assert go(**dict(reversed(factors.items())))[2] not in (before, inputs)  # the last pattern counts: order matters


def test_one_number_is_a_factor_on_both():
    assert load_settings(None, {"data.weights": {"a": 2}}).data.weights == {"a": {"energy": 2.0, "forces": 2.0}}
