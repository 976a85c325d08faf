"""Weights, reference energies and the convex hull: golden values, and cases that can be worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from scipy.optimize import linprog

from pacehpc.dataset import load_dataset, weights
from pacehpc.dataset.hull import _lower_hull, _lower_hull_by_programs, hull_distances
from pacehpc.errors import PacehpcError

GOLDEN = ["weights_alni_cohesive", "weights_alni_hull_wlow", "weights_ethanol_hull", "weights_uniform_alni"]


def relative(a, b):
    assert a.shape == b.shape
    return np.abs(a / b - 1).max()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_weights(golden, shared, name):
    known = np.load(golden / "fit" / f"{name}.npz")
    options = json.loads(str(known["options"]))
    file, policy = options.pop("data"), options.pop("policy")
    data = load_dataset(shared("data") / file, weighting={"type": policy, **options})
    assert data.index == known["index"].tolist()
    assert relative(data.w_energy, known["w_energy"]) < 1e-12
    assert relative(data.flat_w_forces, known["w_forces"]) < 1e-12
    if "e_chull_dist_per_atom" in known:
        assert np.abs(data.above_hull - known["e_chull_dist_per_atom"]).max() < 1e-12
        np.testing.assert_array_equal(data.low, known["e_chull_dist_per_atom"] <= 1.0)


def test_golden_reference_energies(golden, shared):
    for file, known in json.loads((golden / "fit/reference_energy_auto.json").read_text()).items():
        data = load_dataset(shared("data") / file, reference_energy="auto")
        assert data.reference_energy == pytest.approx(known, rel=1e-12)
        if data.volumes.any():
            widest = np.argmax(data.volumes / data.atoms_per_structure)
            assert abs(data.energy_corrected[widest]) < 1e-10
        again = load_dataset(shared("data") / file, reference_energy=data.reference_energy)
        np.testing.assert_allclose(again.energy_corrected, data.energy_corrected, rtol=0, atol=1e-9)


def frame_of(energies, formulas, forces=None, **columns):
    frame = pd.DataFrame({"energy": energies, "energy_corrected": energies})
    if columns.pop("only_energy", False):
        del frame["energy_corrected"]
    frame["ase_atoms"] = [
        Atoms(f, np.arange(3 * len(Atoms(f))).reshape(-1, 3) * 1.0, cell=[9, 9, 9 + k], pbc=k % 2 == 0)
        for k, f in enumerate(formulas)
    ]
    frame["forces"] = [np.zeros((len(a), 3)) if forces is None else np.full((len(a), 3), forces[k])
                       for k, a in enumerate(frame.ase_atoms)]  # fmt: skip
    for name, values in columns.items():
        frame[name] = pd.Series(values, dtype=object)
    return frame


@pytest.fixture
def load(tmp_path):
    def load(frame, **options):
        frame.to_pickle(tmp_path / "data.pkl")
        return load_dataset(tmp_path / "data.pkl", **options)

    return load


def test_reference_energy_forms(load):
    frame = frame_of([-10.0, -7.0], ["AlNi2", "Al2"], only_energy=True)
    assert load(frame, reference_energy=1.0).energy_corrected.tolist() == [-13, -9]
    assert load(frame, reference_energy=1).reference_energy == {"Al": 1, "Ni": 1, "shift": 0}
    given = load(frame, reference_energy={"Al": -2, "Ni": -3, "Cu": 5, "shift": 0.5})
    assert given.energy_corrected.tolist() == [-10 + 2 + 6 + 1.5, -7 + 4 + 1]
    for bad, text in (
        ({"Al": 1}, "no value for Ni"), ("much", "not a number"), ({"Al": 1, "Ni": "x"}, "not a number"),
        ({"Al": 1, "Ni": 1, "Xy": 0}, "no element"), (True, "not a number"), (float("nan"), "not a number"),
    ):  # fmt: skip
        with pytest.raises(PacehpcError, match=text):
            load(frame, reference_energy=bad)
    with pytest.raises(PacehpcError, match="no column 'energy_corrected'"):
        load(frame)


def test_implausible_corrected_energies_are_referenced_anew(load, caplog):
    frame = frame_of([-4210.0, -4200.0, -4000.0], ["Al2", "Al2", "Al2"])
    data = load(frame)
    assert "auto" in caplog.text
    assert data.energy_corrected.tolist() == pytest.approx([-210.0, -200.0, 0.0])  # the widest cell is at 0
    assert load(frame_of([-40.0, 500.0], ["Al2", "Al2"])).reference_energy is None  # -20 and 250 still count


def test_implausible_energies_without_the_given_reference_are_said(load, caplog):
    frame = frame_of([-6.0, -7.0], ["Al2", "Al2"], only_energy=True)
    load(frame, reference_energy=-0.5)
    assert "outside" not in caplog.text
    load(frame.assign(energy=1000 * frame["energy"].astype(float)), reference_energy=-0.5)  # meV
    assert "reach from -3500 to -3000 eV/atom, outside [-20, 250]" in caplog.text


def test_one_column_of_weights_alone_is_said(load, caplog):
    frame = frame_of([-1.0, -2.0], ["Al", "Al2"], w_energy=[1.0, 9.0])
    np.testing.assert_allclose(load(frame).w_energy, 0.5)
    assert "w_energy is not used, weights need the column w_forces as well" in caplog.text
    caplog.clear()
    load(frame.assign(w_forces=[[1.0], [1.0, 1.0]]))
    assert "not used" not in caplog.text


def test_columns_factors_and_augmented_names(load):
    frame = frame_of([-1.0, -2.0, -3.0], ["Al", "Al2", "Al"], name=["a", "b", "augmented/c"])
    data = load(frame, aug_factor=0.5)
    np.testing.assert_allclose(data.w_energy, np.array([1, 1, 0.5]) / 2.5)
    np.testing.assert_allclose(data.flat_w_forces, np.array([1, 1, 1, 0.5]) / 3.5)
    frame["w_factor"] = [1.0, 4.0, 1.0]
    np.testing.assert_allclose(load(frame, aug_factor=1).w_energy, np.array([1, 4, 1]) / 6)
    np.testing.assert_allclose(load(frame, aug_factor=1, ignore_weights=True).w_energy, np.array([1, 4, 1]) / 6)
    frame["w_energy"], frame["w_forces"] = [1.0, 2.0, 3.0], [[1.0], [2.0, 0.0], [5.0]]
    data = load(frame, aug_factor=1, weighting={"type": "EnergyBasedWeightingPolicy"})
    np.testing.assert_allclose(data.w_energy, np.array([1, 8, 3]) / 12)
    np.testing.assert_allclose(data.flat_w_forces, np.array([1, 8, 0, 5]) / 14)
    np.testing.assert_allclose(
        load(frame, aug_factor=1, ignore_weights=True).flat_w_forces, np.array([1, 4, 4, 1]) / 10
    )
    frame["w_energy"] = [1.0, -2.0, 3.0]
    with pytest.raises(PacehpcError, match="negative weights in w_energy"):
        load(frame)


def policy(**options):
    return {"type": "EnergyBasedWeightingPolicy", **options}


def test_energy_based_by_hand(load):
    frame = frame_of([-4.0, -3.5, -1.0, 8.0, -3.0], ["Al"] * 5, forces=[0, 1, 2, 0, 9])
    data = load(frame, weighting=policy(DEup=5.0, DE=0.5, DF=2.0, DFup=10.0))
    assert data.index == [0, 1, 2]  # row 3 is 12 eV up, row 4 has a force of 15.6 eV/A
    w = np.array([0.5, 1.0, 3.5]) ** -2.0
    np.testing.assert_allclose(data.w_energy, w / w.sum())
    f = w / (3 * np.array([0, 1, 4]) + 2.0)
    np.testing.assert_allclose(data.flat_w_forces, f / f.sum())
    assert data.low.tolist() == [True, True, False]
    data = load(frame, weighting=policy(DEup=5.0, DElow=0.6, wlow=0.8, DFup=10.0))
    assert data.w_energy[:2].sum() == pytest.approx(0.8) and data.w_energy[2] == pytest.approx(0.2)


def test_selection_by_tiers_and_seed(load, caplog):
    energies = np.concatenate([np.linspace(0, 0.9, 30), np.linspace(2, 8, 50)])
    frame = frame_of(energies, ["Al"] * 80)
    lower = set(range(30))

    def chosen(**options):
        return load(frame, weighting=policy(**options)).index

    assert len(chosen()) == 80 and len(chosen(nfit=-1)) == 80
    forty = chosen(nfit=40)
    assert len(forty) == 40 and lower < set(forty) and forty == sorted(forty)
    assert forty == chosen(nfit=40) == chosen(nfit=40, seed=42) != chosen(nfit=40, seed=1)
    few = chosen(nfit=10)
    assert len(few) == 10 and set(few) < lower
    both = chosen(n_lower=5, n_upper=7)
    assert len(set(both) & lower) == 5 and len(both) == 12
    assert chosen(reftype="bulk") == list(range(0, 80, 2)) and chosen(reftype="cluster") == list(range(1, 80, 2))
    assert load(frame, weighting=policy(nfit=10, wlow=0.5)).w_energy.sum() == pytest.approx(1)
    assert "wlow is set to 1" in caplog.text
    for bad, text in (
        ({"nfi": 3}, "unknown key 'nfi'"), ({"DElow": "x"}, "DElow"), ({"wlow": 2}, "wlow"), ({"nfit": 1.5}, "nfit"),
        ({"reftype": "slab"}, "reftype"), ({"energy": "x"}, "convex_hull"), ({"DEup": 0.0}, "no structure is left"),
        ({"DE": 0}, "DE"), ({"DF": 0}, "DF"),
    ):  # fmt: skip
        with pytest.raises(PacehpcError, match=text):
            chosen(**bad)


def test_external_weights(load, tmp_path):
    frame = frame_of([-1.0, -2.0, -3.0], ["Al", "Al2", "Al"])
    frame.index = [7, 8, 9]
    outer = pd.DataFrame({"w_energy": [3.0, 1.0]}, index=[9, 8])
    outer["w_forces"] = pd.Series([[4.0], [1.0, 3.0]], index=[9, 8], dtype=object)
    outer.to_pickle(tmp_path / "w.gz")
    weighting = {"type": "ExternalWeightingPolicy", "filename": "w.gz"}
    data = load(frame, weighting=weighting, datapath=tmp_path)
    assert data.index == [8, 9] and data.w_energy.tolist() == [0.25, 0.75]
    assert data.flat_w_forces.tolist() == [1 / 8, 3 / 8, 4 / 8]
    frame.index = [7, 8, 10]
    with pytest.raises(PacehpcError, match=r"1 indices are not in the data, the first is 9"):
        load(frame, weighting=weighting, datapath=tmp_path)
    outer.drop(columns="w_forces").to_pickle(tmp_path / "w.gz")
    with pytest.raises(PacehpcError, match="no column 'w_forces'"):
        load(frame, weighting=weighting, datapath=tmp_path)
    with pytest.raises(PacehpcError, match="needs 'filename'"):
        load(frame, weighting={"type": "ExternalWeightingPolicy"})
    with pytest.raises(PacehpcError, match="'Mine' is none of"):
        load(frame, weighting={"type": "Mine"})


def test_external_weights_for_several_files(tmp_path):
    """Labels of the files count while they are unique; rows that are numbered need the atoms in the file of weights."""
    first, second = frame_of([-1.0, -2.0, -3.0], ["Al", "Al", "Al"]), frame_of([-4.0], ["Al"])
    files = [tmp_path / "a.pkl", tmp_path / "b.pkl"]
    weighting = {"type": "ExternalWeightingPolicy", "filename": str(tmp_path / "w.pkl")}

    def load(labels, more, outer):
        first.index, second.index = labels, more
        first.to_pickle(files[0])
        second.to_pickle(files[1])
        outer.to_pickle(tmp_path / "w.pkl")
        return load_dataset(files, weighting=weighting)

    outer = pd.DataFrame({"w_energy": [1.0, 2.0, 3.0], "w_forces": [1.0, 2.0, 3.0]}, index=[0, 1, 2])
    data = load([2, 0, 1], [7], outer)
    assert data.index == [2, 0, 1] and data.w_energy.tolist() == [3 / 6, 1 / 6, 2 / 6]
    with pytest.raises(PacehpcError, match="repeat, so they do not say which"):
        load([2, 0, 1], [1], outer)
    outer["ase_atoms"] = list(first.ase_atoms)
    assert load([2, 0, 1], [1], outer).w_energy.tolist() == [1 / 6, 2 / 6, 3 / 6]
    moved = [atoms.copy() for atoms in first.ase_atoms]
    moved[1].positions += 0.1
    outer["ase_atoms"] = moved
    with pytest.raises(PacehpcError, match=r"w\.pkl, row 1: its atoms are not those of .*a\.pkl, row 1"):
        load([2, 0, 1], [1], outer)
    volumes = [Atoms("Al", cell=[size] * 3, pbc=True) for size in (2.5, 2.7, 2.9)]  # they differ in their cells alone
    first["ase_atoms"] = outer["ase_atoms"] = volumes
    assert load([2, 0, 1], [1], outer).w_energy.tolist() == [1 / 6, 2 / 6, 3 / 6]
    outer["ase_atoms"] = volumes[::-1]
    with pytest.raises(PacehpcError, match=r"w\.pkl, row 0: its atoms are not those of .*a\.pkl, row 0"):
        load([2, 0, 1], [1], outer)


def test_hull_by_hand():
    # A and B at 0, AB at -1: a mixture A3B lies on the line from A to AB, at -0.5
    counts = np.array([[1, 0], [0, 1], [1, 1], [3, 1], [3, 1], [2, 0]])
    energy = np.array([0.0, 0.0, -2.0, -2.0, -1.2, 0.6])
    np.testing.assert_allclose(hull_distances(counts, energy), [0, 0, 0, 0, 0.2, 0.3], atol=1e-12)
    linear = counts @ np.array([-3.3, 7.1])
    np.testing.assert_allclose(hull_distances(counts, energy + linear), [0, 0, 0, 0, 0.2, 0.3], atol=1e-12)


@pytest.mark.parametrize("n_elements", [1, 2, 3, 5, 8])
def test_hull_is_the_cheapest_mixture(n_elements):
    """Against a linear program: the cheapest mixture of structures with the same composition."""
    random = np.random.default_rng(n_elements)
    counts = random.integers(0, 4, (60, n_elements))
    counts[counts.sum(axis=1) == 0, 0] = 1
    energy = random.normal(0, 1, 60) * counts.sum(axis=1)
    found = hull_distances(counts, energy)
    fractions = counts / counts.sum(axis=1, keepdims=True)
    per_atom = energy / counts.sum(axis=1)
    for k in range(60):
        best = linprog(per_atom, A_eq=fractions.T, b_eq=fractions[k])
        assert found[k] == pytest.approx(per_atom[k] - best.fun, abs=1e-8)
    assert found.min() >= 0 and (found < 1e-12).any()


def test_hull_without_the_pure_elements():
    """Compositions on a line inside a ternary, and ones that all share a plane of energies."""
    x = np.array([[1, 1, 2], [2, 2, 2], [3, 3, 2], [2, 2, 3]])
    energy = np.array([-1.0, -1.0, -3.0, 0.0]) * x.sum(axis=1)
    found = hull_distances(x, energy)
    t = x[:, 2] / x.sum(axis=1)  # 0.5, 0.333, 0.25, 0.4286
    line = -3 + (t - 0.25) / 0.25 * 2
    np.testing.assert_allclose(found, energy / x.sum(axis=1) - line, atol=1e-12)
    flat = hull_distances(x, x @ np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(flat, 0, atol=1e-12)


def test_both_ways_to_the_hull_agree():
    random = np.random.default_rng(0)
    points = random.dirichlet(np.ones(4), 50)
    values = random.normal(size=50)
    np.testing.assert_allclose(_lower_hull(points, values), _lower_hull_by_programs(points[:, :3], values), atol=1e-8)


def test_low_structures(load):
    data = load(frame_of([-3.0, -4.2, -4.0], ["Al", "Al2", "Al"]))
    assert data.low.tolist() == [True, False, True]  # -3, -2.1, -4 eV/atom
    assert weights.low_energies(np.array([0.0, 2.0]), np.array([1, 1]), np.array([np.nan, 0.4])).tolist() == [
        False,
        True,
    ]
