"""The examples that users start from: their data can be made again, their inputs are valid and fit."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pacehpc import Potential, cli
from pacehpc.config import load_settings
from pacehpc.yamlio import loads_yaml

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "al_ni"


def test_the_script_makes_the_committed_data():
    made = runpy.run_path(EXAMPLE / "make_data.py")["make_frame"]()
    kept = pd.read_pickle(EXAMPLE / "al_ni.pckl.gzip", compression="gzip")
    assert len(kept) >= 150
    assert list(kept.name) == list(made.name)
    for a, b in zip(kept.ase_atoms, made.ase_atoms, strict=True):
        assert a.calc is None
        assert a.symbols.get_chemical_formula() == b.symbols.get_chemical_formula()
        np.testing.assert_allclose(a.positions, b.positions, rtol=0, atol=1e-10)
    np.testing.assert_allclose(kept.energy, made.energy, rtol=0, atol=1e-8)
    np.testing.assert_allclose(np.concatenate(list(kept.forces)), np.concatenate(list(made.forces)), rtol=0, atol=1e-8)


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/*.yaml")), ids=lambda p: str(p.relative_to(ROOT)))
def test_inputs_are_valid(path):
    load_settings(path, {})


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_input_shown_to_readers_is_valid(page, tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    inputs = [text for text in blocks if "potential" in loads_yaml(text, page)]
    assert inputs
    for text in inputs:
        (tmp_path / "input.yaml").write_text(text)
        load_settings(tmp_path / "input.yaml", {})


def fit(folder: Path, text: str, *options: str, **changes: int) -> str:
    """Run an input on two ranks in `folder`, with some of its numbers changed; returns the log."""
    for key, value in changes.items():
        text, found = re.subn(rf"\b{key}: [\d.]+", f"{key}: {value}", text)
        assert found
    (folder / "changed.yaml").write_text(text)
    tools = Path(sys.executable).parent
    mpirun = tools / "mpirun" if (tools / "mpirun").exists() else shutil.which("mpirun")
    command = [mpirun, "-n", "2", tools / "pacehpc", "changed.yaml", *options]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "log.txt").read_text()


@pytest.mark.slow
def test_first_example_fits(tmp_path):
    """A short version of what `make demo` runs."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    log = fit(tmp_path, (tmp_path / "input.yaml").read_text(), maxiter=40, display_step=10)
    metrics = pd.read_csv(tmp_path / "metrics.txt", sep=r"\s+")
    assert metrics.rmse_epa.iloc[-1] < 0.1 * metrics.rmse_epa.iloc[0]
    assert metrics.rmse_f_comp.iloc[-1] < 0.5 * metrics.rmse_f_comp.iloc[0]
    assert (tmp_path / "output_potential.yaml").is_file()
    assert (tmp_path / "report" / "train_EF-pairplots.png").is_file()
    assert "Energy/at, meV/at" in log  # what `make demo` shows at the end


SILICON = ROOT / "examples" / "silicon"


def test_the_template_writes_the_input_of_the_tutorial(tmp_path, monkeypatch):
    """By the command that its README and the tutorial name."""
    for name in ("train.extxyz.gz", "test.extxyz.gz"):
        shutil.copy(SILICON / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for text in ((SILICON / "README.md").read_text(encoding="utf-8"), page):
        command = re.search(r"pacehpc (-t .*?)\n```", text.replace("\\\n", " "), re.DOTALL)[1]
        assert cli.main(command.split()) == 0
        assert (tmp_path / "input.yaml").read_text() == (SILICON / "input.yaml").read_text()
        (tmp_path / "input.yaml").unlink()


@pytest.mark.slow
def test_tutorial_fits(tmp_path):
    """A short version, with few functions."""
    shutil.copytree(SILICON, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "input.yaml").read_text()
    log = fit(tmp_path, text, number_of_functions_per_element=40, maxiter=30, display_step=10)
    metrics = pd.read_csv(tmp_path / "test_metrics.txt", sep=r"\s+")
    assert metrics.rmse_epa.iloc[-1] < 0.02 * metrics.rmse_epa.iloc[0]
    assert metrics.rmse_stress.iloc[-1] < 0.5 * metrics.rmse_stress.iloc[0]
    groups = pd.read_csv(tmp_path / "report" / "test_groups.csv")
    assert set(groups.iloc[:, 0]) | set(groups.iloc[:, -1]) >= {"AIMD-NVT", "Elastic", "Surface", "Vacancy"}
    assert "Errors by group (test)" in log


STRATEGIES = {
    "ladder": "interim_potential_ladder_step_1.yaml",
    "cycles": "interim_potential_2.yaml",
    "test_set": "test_pred.pckl.gzip",
    "schedule": "interim_potential_2.yaml",
    "weighting": "output_potential.yaml",
    "group_weights": "output_potential.yaml",
    "huber": "output_potential.yaml",
    "reference_auto": "output_potential.yaml",
    "stress": "output_potential.yaml",
    "repulsion": "output_potential.yaml",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy_runs(name, tmp_path):
    text = (ROOT / "examples" / "strategies" / f"{name}.yaml").read_text().replace("../al_ni", str(EXAMPLE))
    reports = [] if name in ("test_set", "stress") else ["--no-predict"]
    log = fit(tmp_path, text, *reports, maxiter=3)
    assert (tmp_path / STRATEGIES[name]).is_file()
    assert ("Stress:" in log) == (name == "stress")


@pytest.mark.slow
def test_partial_fit_and_refinement(tmp_path):
    partial, refine = (
        (ROOT / "examples" / "strategies" / f"{name}.yaml").read_text().replace("../al_ni", str(EXAMPLE))
        for name in ("partial", "refine")
    )
    fit(tmp_path, partial, "--no-predict", "-o", "partial_potential.yaml", maxiter=3)
    fit(tmp_path, refine, "--no-predict", maxiter=3)
    first = Potential.load(tmp_path / "partial_potential.yaml")
    second = Potential.load(tmp_path / "output_potential.yaml")
    radial = np.concatenate([np.r_[part] for part in first.radial_slices.values()])
    assert set(first.parameters[radial]) == {0.0, 1.0}
    assert set(second.parameters[radial]) != {0.0, 1.0}


@pytest.mark.slow
def test_weights_from_a_file(tmp_path):
    text = (ROOT / "examples" / "strategies" / "external_weights.yaml").read_text().replace("../al_ni", str(EXAMPLE))
    script = (ROOT / "examples" / "strategies" / "make_weights.py").read_text().replace("../al_ni", str(EXAMPLE))
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    fit(tmp_path, text, "--no-predict", maxiter=3)
    used = pd.read_pickle(tmp_path / "fitting_data_info.pckl.gzip", compression="gzip")
    crystals = np.array([atoms.pbc.all() for atoms in used.ase_atoms])
    assert 0 < crystals.sum() < len(used)
    np.testing.assert_allclose(used.w_energy[crystals], 10 * used.w_energy[~crystals].iloc[0], rtol=1e-12)


@pytest.mark.slow
def test_a_callback_of_the_user_stops_the_fit(tmp_path):
    strategies = ROOT / "examples" / "strategies"
    shutil.copy(strategies / "stop_when_steady.py", tmp_path / "stop_when_steady.py")
    script = tmp_path / "stop_when_steady.py"
    script.write_text(script.read_text().replace("< 0.01", "< 1e9"))
    text = (strategies / "callbacks.yaml").read_text().replace("../al_ni", str(EXAMPLE))
    log = fit(tmp_path, text, "--no-predict", maxiter=30)
    assert "a callback asked to stop" in log
    assert pd.read_csv(tmp_path / "cycle_metrics.txt", sep=r"\s+").iter_num.iloc[-1] == 11
