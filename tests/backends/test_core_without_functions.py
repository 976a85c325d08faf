"""Bonds that no function uses still count where core repulsion switches an atom's energy off."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.backends.oracle import ReferenceEvaluator
from pacehpc.potential import build_potential

WAYS = {"moments": {"bondwise": False}, "bond by bond": {"bondwise": True}, "cuda": {}}


@pytest.fixture(params=["distance", "zbl"])
def case(request, brute_force):
    """A potential of elements that do not see each other, structures whose unlike atoms are closest, coefficients."""
    repulsion = [20.0, 0.3] if request.param == "distance" else [1.0, 1.0]
    bond = {"radbase": "SBessel", "radparameters": [5.25], "rcut": 5.0, "dcut": 0.5, "r_in": 2.6, "delta_in": 0.3}
    section = {
        "elements": ["Al", "Ni"],
        "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}},
        "bonds": {"ALL": {**bond, "inner_cutoff_type": request.param, "core-repulsion": repulsion}},
        "functions": {"UNARY": {"nradmax_by_orders": [4, 2], "lmax_by_orders": [0, 2]}},
    }
    potential = build_potential(section)
    rng = np.random.default_rng(0)
    x = potential.parameters
    x[potential.block_slices[0].start :] = 0.3 * rng.normal(size=len(x) - potential.block_slices[0].start)
    frames = []
    for shift in (0.0, 0.04):
        positions = [[0, 0, 0], [2.45 + shift, 0, 0], [0.2, 2.9, 0.1], [2.5, 2.8 - shift, 0.3]]
        frames.append(Atoms("AlNiAlNi", positions=positions, cell=np.diag([12.0, 11.0, 10.0]), pbc=True))
    s = brute_force(potential, frames)
    s.energy, s.forces = rng.normal(size=2), rng.normal(size=(8, 3))
    s.w_energy, s.w_forces = np.full(2, 0.5), np.full(8, 0.125)
    s.stress = 0.01 * rng.normal(size=(2, 6))
    return potential, frames, s, x


@pytest.mark.parametrize("way", WAYS)
def test_as_the_reference(case, way, request):
    potential, _, s, x = case
    loss = LossWeights(kappa=0.4, stress=0.3)
    if way == "cuda":
        request.getfixturevalue("fake_cupy")
    evaluator = create_evaluator("cuda" if way == "cuda" else "cpu", potential, s, loss, EvaluatorOptions(**WAYS[way]))
    reference = ReferenceEvaluator(potential, s, loss)
    found, expected = evaluator.predict(x), reference.predict(x)
    for name in ("energies", "forces", "virials"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-10)
    sums, expected = evaluator.evaluate(x), reference.evaluate(x)
    np.testing.assert_allclose(sums.terms, expected.terms, rtol=1e-10)
    scale = np.abs(expected.gradient).max()
    np.testing.assert_allclose(sums.gradient, expected.gradient, rtol=0, atol=1e-9 * scale)


def test_forces_are_derivatives(case, brute_force):
    potential, (atoms, _), _, x = case
    forces = create_evaluator("cpu", potential, brute_force(potential, [atoms]), LossWeights()).predict(x).forces

    def energy(atom, axis, step):
        moved = atoms.copy()
        moved.positions[atom, axis] += step
        return (
            create_evaluator("cpu", potential, brute_force(potential, [moved]), LossWeights()).predict(x).energies.sum()
        )

    for atom, axis in ((0, 0), (1, 0), (3, 1)):
        slope = (energy(atom, axis, 1e-5) - energy(atom, axis, -1e-5)) / 2e-5
        assert forces[atom, axis] == pytest.approx(-slope, rel=1e-6, abs=1e-6)
        assert abs(slope) > 1e-3
