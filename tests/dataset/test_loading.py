"""What files hold beside what a loss uses: columns that do not apply, partial labels, free atoms, names, virials."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from dataset_samples import make_frame

from pacehpc.dataset import frame_of, load_dataset, write_frame, write_store
from pacehpc.dataset.loading import read_raw
from pacehpc.dataset.writing import write_data
from pacehpc.errors import PacehpcError

VIRIAL = np.array([[1.2, 0.3, -0.2], [0.3, 0.7, 0.1], [-0.2, 0.1, -0.4]])  # eV
FRAME = (
    '2\nLattice="4 0 0 0 4 0 0 0 5" Properties=species:S:1:pos:R:3:{forces}:R:3 {keys} pbc="T T T"\n'
    "Al 0 0 0 0.1 0 0\nNi 0 0 2 -0.1 0 0\n"
)


def joined(**columns) -> pd.DataFrame:
    """Two frames of which the second lacks a column: NaN stands in its rows."""
    first, second = make_frame(3, **columns), make_frame(2)
    return pd.concat([first, second], ignore_index=True)


def write_xyz(path, *keys: str, forces: str = "forces"):
    path.write_text("".join(FRAME.format(keys=each, forces=forces) for each in keys))
    return path


# ---------------------------------------------------------------------------------------------- joined frames


def test_columns_that_do_not_apply_to_all_rows(tmp_path):
    frame = joined(w_energy=1.0, w_forces=[np.ones(2)] * 3, w_factor=2.0)
    frame.loc[3:, "energy_corrected"] = np.nan
    frame.to_pickle(tmp_path / "a.pkl")
    data = load_dataset(tmp_path / "a.pkl", reference_energy=0.0, ignore_weights=True)
    np.testing.assert_array_equal(data.energy_corrected, frame.energy)
    np.testing.assert_allclose(data.w_energy, np.array([2, 2, 2, 1, 1]) / 8)  # a missing factor is 1
    with pytest.raises(PacehpcError, match=r"a\.pkl, row 3: w_energy .*data\.ignore_weights: true"):
        load_dataset(tmp_path / "a.pkl", reference_energy=0.0)
    with pytest.raises(PacehpcError, match=r"a\.pkl, row 3: energy_corrected .*Set data\.reference_energy"):
        load_dataset(tmp_path / "a.pkl", ignore_weights=True)


def test_total_energies_do_not_matter_where_corrected_ones_are_fitted(tmp_path):
    frame = joined()
    frame.loc[3:, "energy"] = np.nan
    frame.to_pickle(tmp_path / "a.pkl")
    assert load_dataset(tmp_path / "a.pkl").energy_corrected.tolist() == [-1, 0, 1, -1, 0]
    with pytest.raises(PacehpcError, match=r"row 3: energy contains NaN"):
        load_dataset(tmp_path / "a.pkl", reference_energy=0.0)


# ----------------------------------------------------------------------------------------------- partial labels


def test_missing_forces_have_no_weight(tmp_path, caplog):
    frame = make_frame(4)
    frame["forces"] = pd.Series([None, np.nan, *frame.forces[2:]], dtype=object)
    frame.forces[2][1, 2] = np.nan
    frame.to_pickle(tmp_path / "a.pkl")
    with caplog.at_level(logging.INFO):
        data = load_dataset(tmp_path / "a.pkl")
    np.testing.assert_allclose(data.flat_w_forces, np.array([0, 0, 0, 0, 1, 0, 1, 1]) / 3)
    assert "no forces for 5 of 8 atoms (2 structures without any): their weight is 0" in caplog.text
    structures = data.structures(_potential())
    assert np.isfinite(structures.forces).all() and structures.w_forces.tolist() == data.flat_w_forces.tolist()


def test_energies_of_weight_zero_may_be_missing(tmp_path):
    frame = make_frame(3, w_energy=[1.0, 0.0, 1.0], w_forces=1.0)
    frame.loc[1, "energy_corrected"] = np.nan
    frame.to_pickle(tmp_path / "a.pkl")
    data = load_dataset(tmp_path / "a.pkl")
    assert data.w_energy.tolist() == [0.5, 0, 0.5] and data.low.tolist() == [True, False, True]
    frame.drop(columns=["w_energy"]).to_pickle(tmp_path / "a.pkl")
    with pytest.raises(PacehpcError, match=r"row 1: .*1 of 3 structures have no energy"):
        load_dataset(tmp_path / "a.pkl")


@pytest.mark.parametrize("missing, needed", [("energy", ["forces"]), ("forces", ["energy"])])
def test_a_loss_of_one_kind_needs_no_other(tmp_path, missing, needed):
    columns = ["energy", "energy_corrected"] if missing == "energy" else ["forces"]
    make_frame(3).drop(columns=columns).to_pickle(tmp_path / "a.pkl")
    data = load_dataset(tmp_path / "a.pkl", needed=needed)
    weights = {"energy": data.w_energy, "forces": data.flat_w_forces}
    assert not weights[missing].any() and weights[needed[0]].sum() == pytest.approx(1)
    with pytest.raises(PacehpcError, match=rf"'{missing}'.*data\.keys: {{{missing}: NAME}}"):
        load_dataset(tmp_path / "a.pkl")


@pytest.mark.parametrize("name", ["a.pckl.gzip", "b.extxyz", "c.db", "d.h5"])
def test_partial_labels_survive_conversion(tmp_path, name):
    frame = make_frame(3)
    frame["forces"] = pd.Series([None, *frame.forces[1:]], dtype=object)
    frame.drop(columns="energy_corrected").to_pickle(tmp_path / "in.pkl")
    write_data(read_raw(tmp_path / "in.pkl"), tmp_path / name)
    data = read_raw(tmp_path / name)
    assert data.energy.tolist() == [-5, -4, -3]
    assert np.isnan(data.flat_forces[:2]).all() and data.flat_forces[2:, 0].tolist() == [0.1, 0.1, 0.2, 0.2]


def test_a_frame_of_partial_labels_is_read_again(tmp_path):
    frame = make_frame(3, w_energy=[1.0, 0.0, 1.0], w_forces=1.0)
    frame.loc[1, "energy_corrected"] = np.nan
    frame["forces"] = pd.Series([*frame.forces[:2], None], dtype=object)
    frame.to_pickle(tmp_path / "a.pkl")
    data = load_dataset(tmp_path / "a.pkl")
    write_frame(frame_of(data), tmp_path / "fitting_data_info.pckl.gzip")
    again = load_dataset(tmp_path / "fitting_data_info.pckl.gzip")
    np.testing.assert_allclose(again.flat_w_forces, data.flat_w_forces)
    np.testing.assert_array_equal(again.w_energy, data.w_energy)
    write_store(tmp_path / "a.h5", data, _potential())


# ------------------------------------------------------------------------------------------------- names


def test_each_frame_has_its_own_names(tmp_path):
    path = write_xyz(tmp_path / "a.xyz", "energy=-1", "REF_energy=-2 energy=5", "free_energy=-3")
    assert load_dataset(path, reference_energy=0.0).energy.tolist() == [-1, -2, -3]


def test_the_force_consistent_energy_counts_and_that_is_said(tmp_path, caplog):
    path = write_xyz(tmp_path / "a.xyz", "energy=-1 free_energy=-1.5")
    with caplog.at_level(logging.INFO):
        assert load_dataset(path, reference_energy=0.0).energy.tolist() == [-1.5]
    assert "free_energy is taken" in caplog.text
    assert load_dataset(path, reference_energy=0.0, keys={"energy": "energy"}).energy.tolist() == [-1]


def test_errors_list_the_names_in_the_file(tmp_path):
    path = write_xyz(tmp_path / "a.xyz", "qm_energy=-1 charge=0", forces="force")
    with pytest.raises(PacehpcError, match=r"charge, force, qm_energy.*data\.keys: {energy: NAME}"):
        load_dataset(path, reference_energy=0.0)
    with pytest.raises(PacehpcError, match=r"charge, force, qm_energy.*data\.keys: {forces: NAME}"):
        load_dataset(path, reference_energy=0.0, keys={"energy": "qm_energy"})
    with pytest.raises(PacehpcError, match=r"forces: 'dft_forces' is in none of .*charge, force, qm_energy"):
        load_dataset(path, reference_energy=0.0, keys={"energy": "qm_energy", "forces": "dft_forces"})
    data = load_dataset(path, reference_energy=0.0, keys={"energy": "qm_energy", "forces": "force"})
    assert data.energy.tolist() == [-1] and data.flat_forces[0].tolist() == [0.1, 0, 0]


def test_names_that_only_some_frames_have(tmp_path, caplog):
    text = [FRAME.format(keys="energy=-1", forces="forces"), FRAME.format(keys="qm_energy=-2", forces="qm_forces")]
    (tmp_path / "a.xyz").write_text("".join(text))
    with pytest.raises(PacehpcError, match=r"row 1: energy is missing. It has: .*qm_energy.*data\.keys"):
        load_dataset(tmp_path / "a.xyz", reference_energy=0.0)
    assert "1 structures have no forces, but qm_forces: data.keys: {forces: qm_forces}" in caplog.text
    data = load_dataset(tmp_path / "a.xyz", reference_energy=0.0, keys={"energy": "qm_energy", "forces": "qm_forces"})
    assert data.energy.tolist() == [-1, -2] and data.flat_w_forces.all()
    assert "1 structures have no qm_energy; energy is taken there" in caplog.text


def test_names_in_frames(tmp_path):
    make_frame().rename(columns={"forces": "dft_forces"}).to_pickle(tmp_path / "a.pkl")
    data = load_dataset(tmp_path / "a.pkl", keys={"forces": "dft_forces"})
    assert data.flat_forces[2, 0] == 0.1


# ------------------------------------------------------------------------------------------------- stresses


@pytest.mark.parametrize(
    "text, keys",
    [
        ('virial="{virial}"', None),
        ('virials="{virial}"', None),
        ('REF_virial="{virial}"', None),
        ('dft_virial="{virial}"', {"virial": "dft_virial"}),
        ('stress="{stress}"', None),
        ('REF_stress="{stress}"', None),
        ('stress="{six}"', None),
        ('REF_stress="{six}"', None),
        ('virial="{virial}" stress="{stress}"', None),
    ],
)
def test_virials_and_stresses(tmp_path, text, keys, caplog):
    """stress = -virial/V with V = 80 Å³; six numbers are xx yy zz yz xz xy."""
    stress = -VIRIAL / 80
    six = [stress[0, 0], stress[1, 1], stress[2, 2], stress[1, 2], stress[0, 2], stress[0, 1]]
    numbers = {"virial": VIRIAL.ravel(), "stress": stress.ravel(), "six": six}
    key = text.format(**{name: " ".join(map(repr, map(float, values))) for name, values in numbers.items()})
    path = write_xyz(tmp_path / "a.xyz", f"energy=0 {key}", "energy=0")
    data = load_dataset(path, reference_energy=0.0, keys=keys)
    np.testing.assert_allclose(data.stress[0], six, rtol=1e-14)
    assert np.isnan(data.stress[1]).all() and not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_units_that_cannot_be_are_said(tmp_path, caplog):
    path = write_xyz(tmp_path / "a.xyz", 'energy=0 stress="10 0 0 0 20 0 0 0 30"')
    load_dataset(path, reference_energy=0.0)
    assert "stresses up to 30 eV/Å³" in caplog.text and "stress_units" in caplog.text
    caplog.clear()
    load_dataset(path, reference_energy=0.0, stress_units="GPa")
    assert not caplog.records
    path = write_xyz(tmp_path / "a.xyz", 'energy=0 stress="0.1 0 0 0 0.1 0 0 0 0.1" virial="1 0 0 0 1 0 0 0 1"')
    load_dataset(path, reference_energy=0.0)
    assert "stress and virial do not agree" in caplog.text


def test_trajectories_are_read(tmp_path):
    from ase.calculators.emt import EMT
    from ase.io import write

    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]], cell=[4, 4, 5], pbc=True, calculator=EMT())
    atoms.get_potential_energy(), atoms.get_stress()
    write(tmp_path / "a.traj", [atoms, atoms])
    data = load_dataset(tmp_path / "a.traj", reference_energy=0.0)
    assert data.energy.tolist() == [atoms.get_potential_energy()] * 2
    np.testing.assert_array_equal(data.flat_forces[:2], atoms.get_forces())
    np.testing.assert_allclose(data.stress[1], atoms.get_stress())
    (tmp_path / "b.traj").write_bytes((tmp_path / "a.traj").read_bytes()[:200])
    with pytest.raises(PacehpcError, match=r"b\.traj, image 0: not an ASE trajectory"):
        load_dataset(tmp_path / "b.traj", reference_energy=0.0)


def test_numbers_as_fortran_writes_them(tmp_path):
    text = FRAME.format(keys="energy=-0.5d1 config_type=d1d0", forces="forces").replace("0.1 0 0", "1.0D-01 0 0.0d0")
    (tmp_path / "a.xyz").write_text(text)
    data = load_dataset(tmp_path / "a.xyz", reference_energy=0.0)
    assert data.energy.tolist() == [-5] and data.flat_forces[0].tolist() == [0.1, 0, 0] and data.names == ["d1d0"]


def _potential():
    from pacehpc.potential import build_potential

    bond = {"radbase": "SBessel", "radparameters": [5.25], "rcut": 4.0, "dcut": 0.01}
    embedding = {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}
    functions = {"nradmax_by_orders": [2], "lmax_by_orders": [0]}
    return build_potential(
        {"elements": ["Al", "Ni"], "embeddings": {"ALL": embedding}, "bonds": {"ALL": bond},
         "functions": {"ALL": functions}, "deltaSplineBins": 0.001}
    )  # fmt: skip
