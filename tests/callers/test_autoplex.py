"""autoplex's fit function for pacemaker, run whole with its default settings and our command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from caller_environments import environ

from pacehpc.report.tables import read_table

pytestmark = pytest.mark.slow

CALL = """
import json, sys
from autoplex.fitting.common.utils import pace_fitting
from autoplex.fitting.mlip_hypers import PacemakerSettings

found = pace_fitting(
    db_dir=sys.argv[1], hyperparameters=PacemakerSettings(), isolated_atom_energies={29: 3.51}, num_processes_fit=1
)
json.dump(found, open("found.json", "w"), default=str)
"""


def write_data(folder: Path) -> None:
    """Train and test set of copper as autoplex writes them."""
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(24):
        atoms = bulk("Cu", a=rng.uniform(3.5, 3.8), cubic=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        atoms.info |= {"REF_energy": atoms.get_potential_energy(), "config_type": "bulk"}
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
        frames.append(atoms)
    write(folder / "train.extxyz", frames[:20])
    write(folder / "test.extxyz", frames[20:])


def test_its_fit_function_reads_our_errors(environment, callers, tmp_path):
    data, work = tmp_path / "data", tmp_path / "work"
    data.mkdir()
    work.mkdir()
    write_data(data)
    path = os.pathsep.join([str(environment), os.environ["PATH"]])
    done = subprocess.run(
        [callers, "-c", CALL, data], cwd=work, env=environ() | {"PATH": path}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

    found = json.loads((work / "found.json").read_text())
    assert found["mlip_path"] == str(work)
    for name, table in (("train_error", "metrics.txt"), ("test_error", "test_metrics.txt")):
        # in eV/atom, from the log's two decimals in meV/atom; 1.0 stands for a log that it could not read
        assert found[name] == pytest.approx(read_table(work / table)["rmse_epa"][-1], abs=6e-6)
        assert found[name] < 0.01
    assert (work / "output_potential.yace").stat().st_size > 1000
    log = (work / "pacemaker.log").read_text()
    for said in ("fit.loss.w_stress: accepted", "repulsion: auto replaces r_in 1 of Cu Cu", "W - cutoff: 5"):
        assert log.count(said) == 1, log
