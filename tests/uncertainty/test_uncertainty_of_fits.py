"""`fit.uncertainty`: the file beside the potential, and standard deviations among the predictions."""

from __future__ import annotations

import pandas as pd
import pytest
from on_ranks import counting_compiler

from pacehpc.config import load_settings
from pacehpc.fit import uncertainties
from pacehpc.parallel import AgreedError

EXAMPLE = __file__.rsplit("/tests/", 1)[0] + "/examples/al_ni"
INPUT = f"""
cutoff: 4.0
data: {{filename: {EXAMPLE}/al_ni.pckl.gzip, reference_energy: {{Al: 3.28, Ni: 4.44}}, test_size: 30}}
potential:
  elements: [Al, Ni]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1], ndensity: 1}}}}
  bonds: {{ALL: {{radbase: SBessel, radparameters: [5.25], rcut: 4.0, dcut: 0.01}}}}
  functions: {{ALL: {{nradmax_by_orders: [4, 2], lmax_by_orders: [0, 1]}}}}
fit: {{loss: {{kappa: auto}}, maxiter: 8, uncertainty: true}}
backend: {{evaluator: cpu}}
"""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, command):
    folder = tmp_path_factory.mktemp("fit")
    (folder / "input.yaml").write_text(INPUT)
    text = command(folder, "input.yaml", ranks=2)
    assert "Uncertainties of its energies and forces: output_potential.uq.npz" in text
    return folder


def test_the_file_is_that_of_the_command(fitted, command):
    """On one rank, from the data and the kappa that the fit left."""
    arguments = ("output_potential.yaml", "-d", "fitting_data_info.pckl.gzip", "-o", "again.npz")
    command(fitted, "uq", "build", *arguments)
    ours, again = (uncertainties_of(fitted, name) for name in ("output_potential.uq.npz", "again.npz"))
    assert again.forces.alpha == pytest.approx(ours.forces.alpha, rel=1e-6)
    assert again.energies.rmse == pytest.approx(ours.energies.rmse, rel=1e-6)


def test_ranks_of_a_node_compile_once_with_stresses_in_the_loss(tmp_path, command):
    """Each library of the fit, of the matrix and of the standard deviations, with and without stresses."""
    environment, log = counting_compiler(tmp_path)
    (tmp_path / "input.yaml").write_text(INPUT.replace("kappa: auto}", "kappa: 0.3, stress: 0.1}"))
    command(tmp_path, "input.yaml", ranks=2, **environment)
    frame = pd.read_pickle(tmp_path / "train_pred.pckl.gzip", compression="gzip")
    assert (frame["energy_std"] > 0).all()
    calls = log.read_text()
    assert (calls.count("evaluate.cpp"), calls.count("rows.cpp")) == (2, 2)


def uncertainties_of(folder, name):
    from pacehpc import Potential
    from pacehpc.uncertainty.model import Uncertainty

    return Uncertainty.load(folder / name, Potential.load(folder / "output_potential.yaml"))


def test_predictions_have_standard_deviations(fitted, command):
    command(fitted, "uq", "predict", "output_potential.yaml", "test_data_info.pckl.gzip")
    for name in ("train_pred.pckl.gzip", "test_pred.pckl.gzip"):
        frame = pd.read_pickle(fitted / name, compression="gzip")
        assert (frame["energy_std"] > 0).all()
        assert all(std.shape == forces.shape for std, forces in zip(frame["forces_std"], frame["forces"], strict=True))
    again = pd.read_pickle(fitted / "pred.pckl.gzip", compression="gzip")
    assert again["energy_std"].tolist() == pytest.approx(frame["energy_std"].tolist(), rel=1e-8)


def test_fresh_moves_it_and_clean_removes_it(fitted, command):
    command(fitted, "--fresh", "--no-predict", "input.yaml")
    before = fitted / "previous_1" / "output_potential.uq.npz"
    assert before.read_bytes() == (fitted / "output_potential.uq.npz").read_bytes()
    assert "removed  output_potential.uq.npz" in command(fitted, "--clean")


def test_a_fit_that_is_killed_before_it_builds_it_at_the_next_start(tmp_path, monkeypatch):
    from pacehpc import cli

    (tmp_path / "input.yaml").write_text(INPUT)
    monkeypatch.chdir(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(uncertainties, "build", killed)
        assert cli.main(["--no-predict", "input.yaml"]) != 0
    assert not (tmp_path / "output_potential.uq.npz").exists()
    assert cli.main(["--no-predict", "input.yaml"]) == 0
    assert (tmp_path / "output_potential.uq.npz").exists()
    assert not (tmp_path / "checkpoint").exists()


def test_what_prevents_it_is_a_warning(tmp_path, monkeypatch, caplog):
    from pacehpc import cli

    (tmp_path / "input.yaml").write_text(INPUT)
    monkeypatch.chdir(tmp_path)

    def refused(*_):
        raise AgreedError("uncertainty: too large.")

    monkeypatch.setattr(uncertainties, "build", refused)
    assert cli.main(["--no-predict", "input.yaml"]) == 0
    assert "output_potential.uq.npz is not written: uncertainty: too large." in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "output_potential.yaml").exists()


def test_the_key(tmp_path):
    (tmp_path / "input.yaml").write_text(INPUT)
    assert load_settings(tmp_path / "input.yaml", {}).fit.uncertainty is True
