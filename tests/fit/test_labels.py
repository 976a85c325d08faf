"""A loss finds the energies, forces and stresses that it needs, or says what is missing."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml

from pacehpc import cli

POTENTIAL = {
    "elements": ["Al"],
    "embeddings": {"ALL": {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}},
    "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 4.0, "dcut": 0.01}},
    "functions": {"ALL": {"nradmax_by_orders": [2], "lmax_by_orders": [0]}},
}
HEAD = '2\nLattice="4 0 0 0 4 0 0 0 {c}" Properties=species:S:1:pos:R:3{columns} {keys}\n'
FRAME = HEAD + "Al 0 0 0{force}\nAl 0 0 2.3{minus}\n"
FREE = "1\nProperties=species:S:1:pos:R:3 energy={} \nAl 0 0 0\n"


def frames(n=4, forces=True, keys="energy={energy}"):
    columns = ":forces:R:3" if forces else ""
    return "".join(
        FRAME.format(c=5 + k, columns=columns, keys=keys.format(energy=-1.0 - k),
                     force=f" 0 0 0.{k}" if forces else "", minus=f" 0 0 -0.{k}" if forces else "")
        for k in range(n)
    )  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Fit a text of extended xyz for an iteration: (exit code, what was printed)."""
    monkeypatch.chdir(tmp_path)

    def start(text, *arguments, **loss):
        (tmp_path / "data.xyz").write_text(text)
        settings = {"data": {"filename": "data.xyz", "reference_energy": 0.0}, "potential": POTENTIAL,
                    "fit": {"loss": loss, "maxiter": 1}, "backend": {"evaluator": "cpu"}}  # fmt: skip
        (tmp_path / "input.yaml").write_text(yaml.safe_dump(settings))
        code = cli.main(["--no-predict", *arguments, "input.yaml"])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return start


def rmse(printed: str) -> list[str]:
    return re.findall(r"^ *RMSE: *(\S+) *\S+ *(\S+)", printed, re.MULTILINE)[0]


def test_energies_alone_and_forces_alone(run):
    code, printed = run(frames(forces=False), kappa=0.0)
    assert code == 0 and rmse(printed)[1] == "nan" and rmse(printed)[0] != "nan"


def test_forces_alone(run):
    code, printed = run(frames(keys=""), kappa=1.0)
    assert code == 0 and rmse(printed)[0] == "nan" and rmse(printed)[1] != "nan"


def test_structures_without_forces_stay_out_of_the_metrics(run):
    code, printed = run(frames(2) + frames(2, forces=False), kappa=0.3)
    errors = np.sqrt(np.mean(np.array([[0, 0, 0.0], [0, 0, 0.1]]) ** 2))  # before the fit all forces are zero
    assert code == 0 and float(rmse(printed)[1]) == pytest.approx(1e3 * errors, abs=0.01)


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_a_stress_term_without_stresses_is_an_error(run, arguments):
    code, printed = run(frames(), *arguments, kappa=0.3, stress=1.0)
    assert code == 1 and "fit.loss.stress: 1, but" in printed and "{virial: NAME}" in printed


def test_virials_are_enough(run):
    code, printed = run(frames(keys='energy={energy} virial="1 0 0 0 1 0 0 0 1"'), kappa=0.3, stress=1.0)
    assert code == 0 and "Stress (train): 4 of 4" in printed


def test_a_loss_that_is_nothing_but_stress_is_said(run):
    keys = 'energy={energy} stress="0.9 0 0 0 0.9 0 0 0 0.9"'
    code, printed = run(frames(keys=keys), kappa=0.3, stress=1000.0)
    assert code == 0 and "% of the first loss" in printed and "stress_units" in printed


@pytest.mark.parametrize("energy, said", [(0.0, False), (-1300.5, True)])
def test_a_free_atom_with_an_energy_left_is_said(run, energy, said):
    code, printed = run(frames() + FREE.format(energy), kappa=0.3)
    assert code == 0 and ("atoms without neighbours have an energy to fit other than zero" in printed) == said
