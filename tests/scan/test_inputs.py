"""Inputs of trials: what is varied, what is held out, and inputs that cannot be scanned."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pacehpc.config import load_settings
from pacehpc.errors import PacehpcError
from pacehpc.scan.inputs import problem_of, space, trial_input
from pacehpc.yamlio import dumps_yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "al_ni"
INPUT = """
cutoff: 6
data: {filename: al_ni.pckl.gzip, reference_energy: {Al: 3.28, Ni: 4.44}}
potential:
  elements: [Al, Ni]
  embeddings: {ALL: {npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}
  bonds:
    ALL: {radbase: SBessel, radparameters: [5.25], rcut: 4.5, dcut: 0.01}
    BINARY: {rcut: 4.0}
  functions:
    UNARY: {nradmax_by_orders: [4, 2, 1], lmax_by_orders: [0, 1, 1]}
    BINARY: {nradmax_by_orders: [4, 1], lmax_by_orders: [0, 1]}
fit: {loss: {kappa: 0.3}, maxiter: 8}
scan: {rcut: [4, 6], kappa: [0.01, 0.5], radbase: [SBessel, ChebPow], number_of_functions_per_element: [5, 20]}
"""
VALUES = {"rcut": 5.5, "kappa": 0.1, "radbase": "ChebPow", "number_of_functions_per_element": 7}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """settings(**overrides by dotted path, dots as __) of the input above, in a folder with its data."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE / "al_ni.pckl.gzip", tmp_path)
    shutil.copy(EXAMPLE / "al_ni.pckl.gzip", tmp_path / "test.pckl.gzip")
    (tmp_path / "input.yaml").write_text(INPUT)
    return lambda **changes: load_settings(
        "input.yaml", {key.replace("__", "."): value for key, value in changes.items()}
    )


def test_a_trial_differs_in_what_is_varied_alone(settings, tmp_path):
    found = trial_input(settings(), VALUES)
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "input.yaml"
    path.write_text(dumps_yaml(found))
    made, given = load_settings(path), settings()
    bonds = made.potential["bonds"]
    assert bonds["ALL"]["rcut"] == bonds["BINARY"]["rcut"] == 5.5 and bonds["ALL"]["radbase"] == "ChebPow"
    assert "radbase" not in bonds["BINARY"] and made.cutoff is None and made.scan is None
    assert made.fit.loss.kappa == 0.1 and made.potential["functions"]["number_of_functions_per_element"] == 7
    assert made.potential["embeddings"] == given.potential["embeddings"] and made.fit.maxiter == 8
    assert made.data.filename == [str(tmp_path / "al_ni.pckl.gzip")] and made.data.test_size == 0.1
    assert made.data.seed == given.data.seed  # the same structures are held out in all trials


def test_no_trial_sees_the_test_set_unless_it_is_to_choose(settings):
    held = trial_input(settings(data__test_filename=["test.pckl.gzip"]), {})
    assert "test_filename" not in held["data"] and held["data"]["test_size"] == 0.1
    by_test = trial_input(settings(data__test_filename=["test.pckl.gzip"], scan__choose_by="test"), {})
    assert by_test["data"]["test_filename"][0].endswith("/test.pckl.gzip") and "test_size" not in by_test["data"]
    fraction = trial_input(settings(data__test_size=0.2, scan__choose_by="test"), {})
    assert fraction["data"]["test_size"] == 0.2


@pytest.mark.parametrize(("changes", "message"), [
    ({"scan": {"trials": 3}}, "scan: is missing or varies nothing"),
    ({"scan": {"kappa": [0.1, 0.9]}, "fit": {"schedule": [{}]}}, "scan.kappa: the stages of fit.schedule have"),
    ({"data__test_size": 0.2}, "data.test_size: takes a test set"),
    ({"scan__choose_by": "test"}, "there is no test set"),
    ({"scan__rcut": [6, 4]}, "the smaller one first"),
    ({"scan__rcut": [4, 5, 6]}, r"\[smallest, largest\]"),
    ({"scan__radbase": ["SBessel", "Bessel"]}, "SBessel"),
    ({"scan__kapa": [0.1, 0.2]}, "did you mean `kappa`"),
])  # fmt: skip
def test_what_cannot_be_scanned_is_said(settings, changes, message):
    with pytest.raises(PacehpcError, match=message):
        space(settings(**changes))


def test_a_potential_from_a_file_cannot_be_scanned(settings, tmp_path):
    shutil.copy(next(Path(__file__).parents[1].glob("golden/potentials/al*.yaml")), tmp_path / "pot.yaml")
    with pytest.raises(PacehpcError, match="not the file of a potential"):
        space(settings(potential="pot.yaml"))


def test_the_number_of_trials_is_no_part_of_the_problem(settings):
    assert problem_of(settings(scan__trials=3)) == problem_of(settings(scan__trials=50))
    assert problem_of(settings(fit__maxiter=9)) != problem_of(settings())
    assert problem_of(settings(backend__threads=2)) == problem_of(settings())
