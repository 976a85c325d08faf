"""What has weight 0 may be unknown: it counts neither in the loss nor in the metrics, in any backend."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import read

from pacehpc import Potential, metrics
from pacehpc.backends import create_evaluator
from pacehpc.backends.cuda import CudaEvaluator
from pacehpc.backends.interface import LossWeights


@pytest.fixture
def case(golden, brute_force):
    """A potential and structures of which some have no energy, some atoms no forces."""
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    structures = brute_force(potential, read(golden / "potentials" / "alni_mixed.extxyz", ":"))
    random = np.random.default_rng(5)
    n, n_atoms = structures.n_structures, structures.n_atoms
    structures.energy, structures.forces = random.normal(size=n), random.normal(size=(n_atoms, 3))
    structures.w_energy = np.where(np.arange(n) == 0, 0.0, random.random(n))
    structures.w_forces = np.where(np.arange(n_atoms) % 3 == 0, 0.0, random.random(n_atoms))
    structures.low = np.arange(n) % 2 == 0
    return potential, structures


@pytest.mark.usefixtures("fake_cupy")
@pytest.mark.parametrize("name", ["reference", "cpu", "cuda"])
def test_metrics_are_of_what_has_a_weight(case, name):
    potential, s = case
    loss = LossWeights(kappa=0.3)
    make = CudaEvaluator if name == "cuda" else lambda *given: create_evaluator(name, *given)
    evaluator = make(potential, s, loss)
    sums, found = evaluator.evaluate(potential.parameters), evaluator.predict(potential.parameters)
    energies = np.add.reduceat(found.energies, s.atom_offsets[:-1])
    errors = ((energies - s.energy) / s.atoms_per_structure)[s.w_energy > 0]
    forces = (found.forces - s.forces)[s.w_forces > 0]
    low = np.repeat(s.low, s.atoms_per_structure)[s.w_forces > 0]
    finished = metrics.finish(sums.terms, sums.maxima)
    expected = {
        "rmse_epa": np.sqrt(np.mean(errors**2)),
        "mae_epa": np.mean(np.abs(errors)),
        "max_ae_epa": np.abs(errors).max(),
        "rmse_f_comp": np.sqrt(np.mean(forces**2)),
        "mae_f_comp": np.mean(np.abs(forces)),
        "max_ae_f": np.abs(forces).max(),
        "low_rmse_f_comp": np.sqrt(np.mean(forces[low] ** 2)),
    }
    for key, value in expected.items():
        assert finished[key] == pytest.approx(value, rel=1e-9), key
    before = sums.gradient
    s.energy = np.where(s.w_energy > 0, s.energy, 1e3)  # any other number there
    s.forces = np.where(s.w_forces[:, None] > 0, s.forces, -1e3)
    again = make(potential, s, loss).evaluate(potential.parameters)
    np.testing.assert_array_equal(again.gradient, before)
    np.testing.assert_array_equal(again.encoded_terms, sums.encoded_terms)
