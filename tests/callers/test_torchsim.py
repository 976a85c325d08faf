"""The model for TorchSim, in a real TorchSim with its own check of models."""

from __future__ import annotations

import os
import subprocess

import pytest
from caller_environments import ROOT, TORCHSIM, environ, install

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import numpy as np
import torch
import torch_sim as ts
from ase.build import bulk
from pacehpc import PaceCalculator
from pacehpc.errors import PacehpcError
from pacehpc.torchsim import PaceModel

model, calculator = PaceModel(sys.argv[1]), PaceCalculator(sys.argv[1])
strained = bulk("Ni", cubic=True) * (2, 1, 1)
strained.symbols[0] = "Al"
strained.rattle(0.05, seed=1)
strained.set_cell(strained.cell.array @ [[1, 0.02, 0], [0, 1.01, 0.03], [0.01, 0, 0.98]], scale_atoms=True)
frames = [strained, bulk("Al", cubic=True)]

def state():
    return ts.io.atoms_to_state(frames, torch.device("cpu"), torch.float64)

for step in range(3):  # the second and third with the lists of the first
    found, end = model(state()), 0
    for k, atoms in enumerate(frames):
        atoms.calc = calculator
        start, end = end, end + len(atoms)
        assert abs(found["energy"][k].item() - atoms.get_potential_energy()) < 1e-11
        assert np.allclose(found["forces"][start:end], atoms.get_forces(), rtol=0, atol=1e-12)
        assert np.allclose(found["stress"][k], atoms.get_stress(voigt=False), rtol=0, atol=1e-14)
        atoms.rattle(0.03, seed=step)

moved = ts.integrate(
    system=frames, model=model, integrator=ts.nve, n_steps=60, timestep=0.001, temperature=300
)
assert torch.isfinite(moved.energy).all()
relaxed = ts.optimize(system=frames, model=model, optimizer=ts.frechet_cell_fire, max_steps=300)
assert (relaxed.energy < moved.energy).all()

try:
    model(ts.io.atoms_to_state([bulk("Cu", cubic=True)], torch.device("cpu"), torch.float64))
except PacehpcError as error:
    assert "Cu" in str(error)
else:
    raise SystemExit("copper was accepted")
single = PaceModel(sys.argv[1], dtype=torch.float32, compute_stress=False)
found = single(ts.io.atoms_to_state(frames, torch.device("cpu"), torch.float32))
assert found["forces"].dtype == torch.float32 and "stress" not in found
print("as expected")
"""


def test_energies_forces_and_stresses_are_those_of_the_calculator(callers, tmp_path):
    if os.environ.get("CI") != "true":
        pytest.skip("installs PyTorch, which is several GB on most machines; CI=true runs it")
    install(callers, *TORCHSIM)
    potential = ROOT / "examples" / "ase" / "al_ni.yace"
    done = subprocess.run(
        [callers, "-c", PROGRAM, potential],
        cwd=tmp_path,
        env=environ() | {"PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0 and "as expected" in done.stdout, done.stdout + done.stderr


def test_without_torchsim_the_message_names_it():
    done = subprocess.run(["python", "-c", "import pacehpc.torchsim"], env=environ(), text=True, capture_output=True)
    assert done.returncode == 1
    assert "pip install torch-sim-atomistic" in done.stderr
