"""The written input runs as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pacehpc.config import load_settings
from pacehpc.dataset.loading import read_raw
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential, build_potential
from pacehpc.utilities.template import Choices, main, template

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"


def test_dry_run_and_fit(tmp_path):
    def run(*arguments):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pacehpc", *arguments],
            cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-t", "--data", str(DATA), "--elements", "auto", "--cutoff", "5", "--functions", "60", "--test-size", "0.1")
    assert "functions" in run("--dry-run")
    settings = load_settings(tmp_path / "input.yaml", needs=("data", "potential"))
    assert settings.potential["elements"] == ["Al", "Ni"] and settings.cutoff == 5 and settings.data.test_size == 0.1
    text = (tmp_path / "input.yaml").read_text()
    (tmp_path / "input.yaml").write_text(text.replace("maxiter: 2000", "maxiter: 2"))
    run("--no-predict")
    fitted = Potential.load(tmp_path / "output_potential.yaml")
    assert fitted.cutoff == 5 and 100 < fitted.n_functions <= 120


@pytest.mark.parametrize("elements", [["Al"], ["Al", "Ni"], ["Al", "Cu", "Ni"], ["Al", "Cu", "Ni", "Ti", "Y"]])
@pytest.mark.parametrize("functions", [20, 700])
def test_the_basis_is_as_large_as_asked_for(elements, functions, tmp_path):
    data = read_raw(DATA)
    data.numbers = np.where(data.numbers == 28, 13, data.numbers)  # all Al
    path = tmp_path / "input.yaml"
    path.write_text(template(Choices(["x.xyz"], elements="".join(elements), functions=functions), data))
    potential = build_potential(load_settings(path).potential)
    assert potential.elements == tuple(elements)
    assert 0.75 * functions * len(elements) <= potential.n_functions <= functions * len(elements)


def test_what_the_data_tell(tmp_path):
    from ase import Atoms
    from ase.io import write

    frames = []
    for k in range(50):
        atoms = Atoms("Y2", [[0, 0, 0], [0, 0, 2.5 + 0.02 * k]]) if k else Atoms("Y")
        atoms.info["REF_energy"] = -1.5 * len(atoms) - (2 if k > 3 else 0) * 2
        atoms.arrays["REF_forces"] = np.zeros((len(atoms), 3))
        frames.append(atoms)
    write(tmp_path / "a b.xyz", frames, format="extxyz")
    name = str(tmp_path / "a b.xyz")
    output = tmp_path / "in.yaml"
    assert main(["--data", name, "-o", str(output)]) == 0
    settings = load_settings(output)
    assert settings.data.filename == [name] and settings.data.test_size == 0.05
    assert settings.data.reference_energy == {"Y": -1.5} and settings.potential["elements"] == ["Y"]
    assert "Y-Y 2.52" in output.read_text()
    assert main(["--data", name, "-o", str(output)]) == 1  # never overwrites


def test_questions_on_a_terminal(tmp_path, monkeypatch):
    for name in ("fitting_data_info.pckl.gzip", "prepared_data.h5", "train_pred.pckl.gzip"):  # of a run, before "z"
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "z.pckl.gzip").write_bytes(DATA.read_bytes())
    answers = iter(["", "", "6.5", "many", "80", "unifrom", "uniform"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    settings = load_settings("input.yaml")
    assert settings.data.filename == ["z.pckl.gzip"] and next(answers, None) is None
    assert settings.cutoff == 6.5 and settings.potential["functions"]["number_of_functions_per_element"] == 80


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"elements": "Al"}, "the data hold Ni"),
        ({"elements": "AlXx"}, "no list of elements"),
        ({"cutoff": float("nan")}, "between 1 and 30"),
        ({"cutoff": 1.1}, "shorter than all distances"),
        ({"functions": 0}, "less than 1"),
        ({"test_size": 2.0}, "leaves no train"),
        ({"weighting": "what"}, "none of auto"),
    ],
)
def test_impossible_choices(changes, message):
    with pytest.raises(PacehpcError, match=message):
        template(Choices([str(DATA)], **changes), read_raw(DATA))


def test_without_data_or_a_terminal(capsys):
    assert main([]) == 1 and "name the data" in capsys.readouterr().err


def test_names_units_stresses_and_free_atoms(tmp_path):
    """What the files call their columns goes into the input, which runs; `auto` is never written without a word."""
    lattice = 'Lattice="4 0 0 0 4 0 0 0 5"'
    text = f'2\n{lattice} Properties=species:S:1:pos:R:3:f_dft:R:3 e_dft=-1.5 stress="9 0 0 0 9 0 0 0 9"\n'
    (tmp_path / "a.xyz").write_text(text + "Al 0 0 0 0.1 0 0\nAl 0 0 2.4 -0.1 0 0\n")
    names = ["--keys", "energy=e_dft", "forces=f_dft", "--stress-units", "-kbar"]
    given = ["-d", str(tmp_path / "a.xyz"), "--functions", "10", "--cutoff", "5"]
    assert main([*names, *given, "-o", str(tmp_path / "a.yaml")]) == 0
    settings = load_settings(tmp_path / "a.yaml", needs=("data", "potential"))
    assert settings.data.keys == {"energy": "e_dft", "forces": "f_dft"} and settings.data.stress_units == "-kbar"
    assert settings.fit.loss.stress > 0 and settings.fit.optimizer == "GN-BFGS"
    written = (tmp_path / "a.yaml").read_text(encoding="utf-8")
    assert "Free atoms of Al are not in the data" in written and "# reference_energy: {Al: ...}" in written
    assert main([*names, *given, "--free-atoms", "Al=-0.21", "-o", str(tmp_path / "b.yaml")]) == 0
    assert load_settings(tmp_path / "b.yaml").data.reference_energy == {"Al": -0.21}
    assert main([*names, *given, "--free-atoms", "Al", "-o", str(tmp_path / "c.yaml")]) == 1


def test_separate_test_data(tmp_path, monkeypatch, capsys):
    from ase import Atoms
    from ase.io import write

    monkeypatch.chdir(tmp_path)
    for name, symbol in (("train.xyz", "Al"), ("test.xyz", "Al"), ("other.xyz", "Ni")):
        atoms = Atoms([symbol] * 2, [[0, 0, 0], [2.5, 0, 0]])
        atoms.info["REF_energy"] = -1.0
        atoms.arrays["REF_forces"] = np.zeros((2, 3))
        write(name, atoms)
    assert main(["-d", "train.xyz", "--test-data", "test.xyz", "--free-atoms", "Al=0"]) == 0
    settings = load_settings(tmp_path / "input.yaml", needs=("data", "potential"))
    assert [settings.data.test_filename, settings.data.test_size] == [["test.xyz"], None]
    assert main(["-d", "train.xyz", "--test-data", "other.xyz", "-o", "second.yaml"]) != 0
    assert "Ni is not in the data to fit" in capsys.readouterr().err
    assert not (tmp_path / "second.yaml").exists()
