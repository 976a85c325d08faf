"""`pacehpc uq`, `pacehpc predict --uq` and the calculator; on several ranks, too."""

from __future__ import annotations

import hashlib
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import pytest
from on_ranks import counting_compiler

from pacehpc import PaceCalculator, Potential
from pacehpc.active.active_set import ActiveSet
from pacehpc.errors import PacehpcError
from pacehpc.uncertainty.model import Uncertainty, uq_name


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data, potential, command):
    """A folder with a potential, its data, and its uncertainty made on one rank."""
    from pacehpc.dataset import frame_of, write_frame

    found = tmp_path_factory.mktemp("uq")
    potential = potential.copy()
    potential.metadata["loss_weights"] = '{"kappa": 0.3, "stress": 0.0}'
    potential.save(found / "pot.yaml")
    write_frame(frame_of(data), found / "data.pckl.gzip")
    frames = data.atoms[:8]
    for atoms, name in zip(frames, data.names, strict=False):
        atoms.info["name"] = name
    ase.io.write(found / "some.extxyz", frames, format="extxyz")
    text = command(found, "uq", "build", "pot.yaml", "-d", "data.pckl.gzip")
    assert "rows of the Jacobian (all force components)" in text and "pot.uq.npz written" in text
    return found


def test_names():
    assert uq_name("output_potential.yaml") == "output_potential.uq.npz"
    assert uq_name("somewhere/pot.yaml") == str(Path("somewhere/pot.uq.npz"))


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_same_file_on_any_number_of_ranks(folder, ranks, command):
    command(folder, "uq", "build", "pot.yaml", "-d", "data.pckl.gzip", "-o", f"on_{ranks}.npz", ranks=ranks)
    one, several = (hashlib.sha256((folder / name).read_bytes()).digest() for name in ("pot.uq.npz", f"on_{ranks}.npz"))
    assert one == several


def test_the_same_bits_of_combined_rows_on_any_number_of_ranks(folder, python):
    code = (
        "import sys; from pacehpc.uncertainty import parts; from pacehpc.utilities.uq import main; "
        "parts.MOST_ENTRIES = 0; sys.exit(main(['build', 'pot.yaml', '-d', 'data.pckl.gzip', '-o', sys.argv[1]]))"
    )
    found = set()
    for ranks in (1, 2, 3):
        name = f"combined_{ranks}.npz"
        python(folder, "-c", code, name, ranks=ranks)
        found.add(hashlib.sha256((folder / name).read_bytes()).digest())
    assert len(found) == 1
    made = Uncertainty.load(folder / "combined_1.npz", Potential.load(folder / "pot.yaml"))
    assert "random combinations" in made.origin["matrix"]


def test_predict_and_the_calculator_agree(folder, command):
    """A frame, an extended xyz file made on two ranks, and the calculator."""
    command(folder, "uq", "predict", "pot.yaml", "some.extxyz", "-o", "pred.pckl.gzip")
    command(folder, "predict", "pot.yaml", "some.extxyz", "--uq", "pot.uq.npz", "-o", "pred.extxyz", ranks=2)
    frame = pd.read_pickle(folder / "pred.pckl.gzip", compression="gzip")
    frames = ase.io.read(folder / "pred.extxyz", ":")
    calculator = PaceCalculator(folder / "pot.yaml", uq=folder / "pot.uq.npz")
    made = Uncertainty.load(folder / "pot.uq.npz", calculator.potential)
    for row, atoms in zip(frame.to_dict("records"), frames, strict=True):
        plain = row["ase_atoms"].copy()
        plain.calc = calculator
        assert plain.get_potential_energy() == pytest.approx(row["energy_pred"], abs=1e-10)
        assert calculator.results["energy_std"] == pytest.approx(row["energy_std"], rel=1e-8)
        assert calculator.get_property("energy_std", plain) == calculator.results["energy_std"] > 0
        np.testing.assert_allclose(calculator.results["forces_std"], row["forces_std"], rtol=1e-8)
        assert atoms.info["energy_std"] == pytest.approx(row["energy_std"], rel=1e-12)
        np.testing.assert_allclose(atoms.arrays["forces_std"], row["forces_std"], rtol=1e-6, atol=1e-8)
        for level, factor in (("68", made.forces.quantiles[0, 0]), ("90", made.forces.quantiles[0, 1])):
            np.testing.assert_allclose(row[f"forces_interval_{level}"], factor * row["forces_std"])
        assert row["energy_interval_90"] == pytest.approx(made.energies.quantiles[0, 1] * row["energy_std"])


def test_groups_have_quantiles_of_their_own(potential):
    from pacehpc.uncertainty.calibration import Scale
    from pacehpc.uncertainty.model import potential_hash

    n = potential.n_parameters
    quantiles = np.array([[1.0, 1.6], [0.5, 0.9], [np.nan, np.nan]])
    scale = Scale(1.0, 0.1, 0.0, quantiles, 1.0)
    made = Uncertainty(
        potential_hash(potential), np.ones(n, bool), np.asfortranarray(np.eye(n)), np.ones(n), scale, scale, ("a", "b")
    )
    assert made.quantiles("forces", "a").tolist() == [0.5, 0.9]
    assert made.quantiles("forces", "b").tolist() == made.quantiles("forces", None).tolist() == [1.0, 1.6]


def test_extrapolation_is_a_warning_once(folder, caplog, command):
    """Where an active set is at hand and says so."""
    command(folder, "activeset", "pot.yaml", "-d", "data.pckl.gzip", "-a")
    calculator = PaceCalculator(folder / "pot.yaml", uq=folder / "pot.uq.npz", active_set=folder / "pot.asi")
    assert isinstance(calculator.active_set, ActiveSet)
    assert {"gamma", "gamma_max", "energy_std", "forces_std"} <= set(calculator.implemented_properties)
    atoms = ase.io.read(folder / "some.extxyz", 0)
    atoms.calc = calculator
    with caplog.at_level("WARNING", logger="pacehpc"):
        atoms.get_potential_energy()
        assert not caplog.records
        for factor in (0.7, 0.69):
            squeezed = atoms.copy()
            squeezed.set_cell(factor * atoms.cell, scale_atoms=True)
            squeezed.calc = calculator
            squeezed.get_potential_energy()
            assert calculator.results["gamma_max"] > 1.01
    assert len(caplog.records) == 1 and "atoms extrapolate" in caplog.text
    ase.io.write(folder / "squeezed.extxyz", squeezed, format="extxyz")
    text = command(folder, "uq", "predict", "pot.yaml", "squeezed.extxyz", "-a", "pot.asi", "-o", "s.extxyz")
    assert text.count("extrapolate") == 1


def test_files_that_do_not_belong_are_named(folder, tmp_path, potential, command):
    other = potential.copy()
    other.parameters = other.parameters * (1 + 1e-12)
    other.save(tmp_path / "other.yaml")
    with pytest.raises(PacehpcError, match=r"pot.uq.npz: belongs to another potential than .*other.yaml"):
        PaceCalculator(tmp_path / "other.yaml", uq=folder / "pot.uq.npz")
    made = Uncertainty.load(folder / "pot.uq.npz", potential)
    with pytest.raises(PacehpcError, match="PaceCalculator: uq: belongs to another potential"):
        PaceCalculator(other, uq=made)
    text = command(folder, "predict", tmp_path / "other.yaml", "some.extxyz", "--uq", "pot.uq.npz", fails=True)
    assert "pot.uq.npz: belongs to another potential" in text and "Traceback" not in text
    text = command(folder, "uq", "predict", tmp_path / "other.yaml", "some.extxyz", fails=True)
    assert "other.uq.npz: there is no such file; `pacehpc uq build`" in text


def test_metadata_make_no_other_potential(folder, potential):
    changed = potential.copy()
    changed.metadata["comment"] = "another"
    Uncertainty.load(folder / "pot.uq.npz", changed)


def test_damaged_files_and_other_versions(folder, tmp_path, potential):
    data = (folder / "pot.uq.npz").read_bytes()
    for name, content in (("cut", data[: len(data) // 2]), ("text", b"not a file of arrays"), ("empty", b"")):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(PacehpcError, match=f"{name}.npz: not a file of uncertainties"):
            Uncertainty.load(path, potential)
    with np.load(folder / "pot.uq.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "later.npz", **(arrays | {"version": np.array(99)}))
    with pytest.raises(PacehpcError, match=r"later\.npz: written in version 99 of this format"):
        Uncertainty.load(tmp_path / "later.npz", potential)


def test_what_was_saved_is_read(folder, tmp_path, potential):
    made = Uncertainty.load(folder / "pot.uq.npz", potential)
    made.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (folder / "pot.uq.npz").read_bytes()
    assert made.origin["kappa"] == 0.3 and len(made.origin["data_sha256"][0]) == 64


def test_build_needs_kappa(folder, tmp_path, potential, command):
    bare = potential.copy()
    bare.metadata = {}
    bare.save(tmp_path / "bare.yaml")
    arguments = ("uq", "build", tmp_path / "bare.yaml", "-d", "data.pckl.gzip")
    assert "does not say which kappa it was fitted with" in command(folder, *arguments, fails=True)
    assert "--kappa 1.5: a number from 0 to 1" in command(folder, *arguments, "--kappa", 1.5, fails=True)
    command(folder, *arguments, "--kappa", 0.3)
    assert (tmp_path / "bare.uq.npz").read_bytes() == (folder / "pot.uq.npz").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("uq", "build", "pot.yaml", "-d", "data.pckl.gzip"),
        ("uq", "predict", "pot.yaml", "some.extxyz"),
        ("activeset", "pot.yaml", "-d", "data.pckl.gzip"),
    ],
    ids=["build", "predict", "activeset"],
)
def test_ranks_of_a_node_compile_once(folder, tmp_path, words, command):
    environment, log = counting_compiler(tmp_path)
    command(folder, *words, "-o", tmp_path / "made.xyz", ranks=2, **environment)
    calls = log.read_text()
    assert (calls.count("evaluate.cpp"), calls.count("rows.cpp")) == (1, 1)
