"""The chain of examples/active_learning: fit, active set, augmentation, second fit, core by grade."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms

from pacehpc import PaceCalculator, Potential

EXAMPLE = Path(__file__).parents[2] / "examples" / "active_learning"


@pytest.mark.slow
def test_chain(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("generation", EXAMPLE / "generation.py")
    generation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generation)
    folder = shutil.copytree(EXAMPLE, tmp_path / "learning")
    text = (folder / "input.yaml").read_text(encoding="utf-8").replace("maxiter: 150", "maxiter: 60")
    (folder / "input.yaml").write_text(text, encoding="utf-8")
    generation.write_frame(folder / "data.pckl.gzip", generation.labelled(generation.first_structures()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLE.parents[1])}
    done = subprocess.run(
        ["bash", "chain.sh", "data.pckl.gzip"], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    augmented = pd.read_pickle(folder / "chain" / "first" / "aug_df.pkl.gz", compression="gzip")
    assert augmented.name.str.startswith("augmented").all()
    potential = Potential.load(folder / "chain" / "potential.yaml")
    bond = potential.bonds["Cu", "Cu"]
    assert bond.inner_cutoff_type == "zbl"
    energies = []
    for r in np.linspace(0.6, bond.r_in - 0.1, 8):
        atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, r]])
        atoms.calc = PaceCalculator(potential, backend="reference")
        energies.append(atoms.get_potential_energy())
    assert all(np.diff(energies) < 0)
    assert energies[0] > 100.0
