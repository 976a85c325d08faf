"""Threads of a rank change neither what is evaluated nor a bit of it, however many of them the system gives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys, numpy as np
from ase.build import bulk
from pacehpc import Potential
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.dataset import structures_of
potential = Potential.load(sys.argv[1])
rng = np.random.default_rng(0)
frames = [bulk("Al", cubic=True).repeat(2) for _ in range(8)]
for seed, atoms in enumerate(frames):
    atoms.rattle(0.1, seed=seed)
s = structures_of(frames, potential)
s.energy, s.forces = rng.normal(size=8), rng.normal(size=(s.n_atoms, 3))
s.w_energy, s.w_forces = np.full(8, 1 / 8), np.full(s.n_atoms, 1 / s.n_atoms)
s.shards = np.arange(9)
evaluator = CpuEvaluator(potential, s, LossWeights(kappa=0.3), EvaluatorOptions(threads=int(sys.argv[2])))
sums = evaluator.evaluate(potential.parameters)
print(evaluator._threads, sums.terms[:2].tobytes().hex(), sums.gradient.tobytes().hex())
"""


def evaluate(golden, threads, **variables):
    """(threads asked of the system, bits of loss and gradient)."""
    command = [sys.executable, "-c", PROGRAM, str(golden / "potentials" / "al_cheblinear.yaml"), str(threads)]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked, bits = done.stdout.split(maxsplit=1)
    return int(asked), bits


@pytest.mark.parametrize("variables", [{}, {"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}], ids=str)
def test_fewer_threads_than_asked_for(golden, variables):
    """OpenMP may start fewer threads than it was asked for: the others' structures are evaluated all the same."""
    assert evaluate(golden, 3, **variables) == (3, evaluate(golden, 1)[1])
