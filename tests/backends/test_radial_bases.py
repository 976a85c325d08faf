"""Every radial basis that the formulas know, in every backend: one that is new is tested here by its name alone."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.physics.parameters import FAMILIES
from pacehpc.potential import build_potential


@pytest.fixture(params=FAMILIES)
def potential(request):
    """Random coefficients; inner cutoff and dcut within the distances of the structures."""
    bond = {"radbase": request.param, "radparameters": [2.5], "rcut": 4.0, "dcut": 0.6}
    potential = build_potential(
        {
            "elements": ["Al", "Ni"],
            "embeddings": {
                "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}
            },
            "bonds": {"ALL": {**bond, "r_in": 1.8, "delta_in": 0.4}},
            "functions": {"ALL": {"nradmax_by_orders": [5, 2, 1], "lmax_by_orders": [0, 2, 1]}},
        }
    )
    potential.parameters = np.random.default_rng(3).normal(size=potential.n_parameters)
    return potential


@pytest.fixture
def structures(potential, brute_force):
    """Clusters with distances from within the inner cutoff to beyond rcut, and random references."""
    rng = np.random.default_rng(5)
    frames = [Atoms("Al3Ni4", positions=rng.uniform(0, 4.0, size=(7, 3))) for _ in range(3)]
    distances = np.concatenate([atoms.get_all_distances()[np.triu_indices(7, 1)] for atoms in frames])
    assert distances.min() < 1.4 and ((distances > 1.4) & (distances < 1.8)).any()
    assert ((distances > 3.4) & (distances < 4.0)).any() and distances.max() > 4.0
    structures = brute_force(potential, frames)
    structures.energy = rng.normal(size=structures.n_structures)
    structures.forces = rng.normal(size=(structures.n_atoms, 3))
    structures.w_energy, structures.w_forces = rng.random(structures.n_structures), rng.random(structures.n_atoms)
    return structures


def test_gradient(potential, structures, backend):
    """Of the loss, by all coefficients, against differences of the loss."""
    evaluator = create_evaluator(backend, potential, structures, LossWeights(kappa=0.4))

    def loss(x):
        e_loss, f_loss = evaluator.evaluate(x, gradient=False).terms[:2]
        return 0.6 * e_loss + 0.4 * f_loss

    x = potential.parameters
    gradient = evaluator.evaluate(x).gradient
    rng = np.random.default_rng(4)
    for part in (slice(0, sum(c.size for c in potential.radcoefficients.values())), slice(None)):
        direction = np.zeros(len(x))
        direction[part] = rng.normal(size=len(direction[part])) / np.sqrt(len(x))
        h = 1e-5
        a, b, c, d = (loss(x + s * h * direction) for s in (-2, -1, 1, 2))
        assert gradient @ direction == pytest.approx((a - 8 * b + 8 * c - d) / (12 * h), rel=1e-6)


def test_forces_are_derivatives(potential, brute_force, backend):
    atoms = Atoms("Al3Ni4", positions=np.random.default_rng(5).uniform(0, 4.0, size=(7, 3)))
    shifts = np.random.default_rng(6).normal(size=(7, 3))
    h = 1e-6
    frames = [atoms] + [Atoms(atoms.symbols, positions=atoms.positions + s * h * shifts) for s in (-1, 1)]
    evaluator = create_evaluator(backend, potential, brute_force(potential, frames), LossWeights())
    prediction = evaluator.predict(potential.parameters)
    energies = prediction.energies.reshape(3, -1).sum(axis=1)
    power = -(prediction.forces[:7] * shifts).sum()
    assert abs(power) > 1.0
    assert power == pytest.approx((energies[2] - energies[1]) / (2 * h), rel=1e-6)


def test_kernels_agree_with_the_formulas(potential, structures):
    x = potential.parameters
    weights = LossWeights(kappa=0.4)
    expected = create_evaluator("reference", potential, structures, weights)
    found = create_evaluator("cpu", potential, structures, weights)
    one, two = expected.predict(x), found.predict(x)
    np.testing.assert_allclose(two.energies, one.energies, rtol=1e-10, atol=1e-10 * np.abs(one.energies).max())
    np.testing.assert_allclose(two.forces, one.forces, rtol=0, atol=1e-10 * np.abs(one.forces).max())
    gradients = [evaluator.evaluate(x).gradient for evaluator in (expected, found)]
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=0, atol=1e-10 * np.abs(gradients[0]).max())


def test_continuity_at_the_cutoffs(potential, brute_force, backend):
    """Energy and forces of a pair on both sides of rcut, and of both ends of the inner cutoff."""
    bond = potential.bonds["Al", "Ni"]
    edges = [bond.r_in - bond.delta_in, bond.r_in]
    if bond.radbase != "ChebLinear":  # which jumps at rcut
        edges.append(bond.rcut)
    for edge in edges:
        frames = [Atoms("AlNiAl", positions=[[0, 0, 0], [edge + s * 1e-8, 0, 0], [0.3, 2.9, 0.4]]) for s in (-1, 1)]
        evaluator = create_evaluator(backend, potential, brute_force(potential, frames), LossWeights())
        prediction = evaluator.predict(potential.parameters)
        energies, forces = prediction.energies.reshape(2, 3), prediction.forces.reshape(2, 3, 3)
        scale = 1.0 + np.abs(forces).max()
        np.testing.assert_allclose(energies[1], energies[0], rtol=0, atol=1e-6 * scale, err_msg=f"{edge} Å")
        np.testing.assert_allclose(forces[1], forces[0], rtol=0, atol=1e-4 * scale, err_msg=f"{edge} Å")
