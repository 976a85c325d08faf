"""Radial functions bond by bond give what moments give, and are chosen where they cost less."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import read

from pacehpc import Potential, fixed_point
from pacehpc.backends.bondwise import prefers_bonds
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.backends.shape import make_shape
from pacehpc.potential import build_potential


def with_references(structures):
    rng = np.random.default_rng(5)
    n = structures.n_structures
    structures.energy, structures.w_energy = rng.normal(size=n), rng.random(n)
    structures.forces, structures.w_forces = rng.normal(size=(structures.n_atoms, 3)), rng.random(structures.n_atoms)
    structures.stress = 0.01 * rng.normal(size=(n, 6))
    return structures


def results(potential, structures, loss, **options):
    """Predictions and gradient."""
    made = CpuEvaluator(potential, structures, loss, EvaluatorOptions(**options))
    gradient = made.evaluate(potential.parameters).gradient
    prediction = made.predict(potential.parameters)
    return prediction.energies, prediction.forces, prediction.virials, gradient


def bondwise_tiles(potential, structures):
    return np.frombuffer(CpuEvaluator(potential, structures, LossWeights(0.3))._kept["tile_rows"], np.int64) >= 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.3, 0.7)], ids=["energy", "forces and stress"])
def test_both_ways_agree(golden, golden_name, brute_force, weights, threads):
    potential = Potential.load(golden / "potentials" / f"{golden_name}.yaml")
    frames = read(golden / "potentials" / f"{golden_name}.extxyz", ":")
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
    structures, loss = with_references(brute_force(potential, frames)), LossWeights(kappa=weights[0], stress=weights[1])
    ways = [results(potential, structures, loss, threads=threads, bondwise=way) for way in (True, False)]
    for one, other in zip(*ways, strict=True):
        scale = np.nanmax(abs(other), initial=1e-300)
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=1e-13)


def test_fixed_radial_coefficients(golden, brute_force):
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    frames = read(golden / "potentials" / "alni_mixed.extxyz", ":")
    structures = with_references(brute_force(potential, frames))
    free, fixed = (
        results(potential, structures, LossWeights(0.3), bondwise=True, radial_gradient=way)[-1]
        for way in (True, False)
    )
    n_radial = min(where.start for where in potential.block_slices)
    assert abs(free[:n_radial]).max() > 0
    assert not fixed[:n_radial].any()
    np.testing.assert_array_equal(fixed[n_radial:], free[n_radial:])


@pytest.fixture
def ethanol_and_crystal(brute_force):
    """A potential of H, C, O and its structures: five molecules and, stretched, a dense crystal of carbon."""
    potential = build_potential(
        {
            "elements": ["C", "H", "O"],
            "embeddings": {
                "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}
            },
            "bonds": {"ALL": {"radbase": "ChebExpCos", "radparameters": [5.25], "rcut": 4, "dcut": 0.01}},
            "functions": {"ALL": {"nradmax_by_orders": [8, 3, 1], "lmax_by_orders": [0, 2, 1]}},
        }
    )
    rng = np.random.default_rng(2)
    potential.parameters = potential.parameters + 0.01 * rng.normal(size=potential.n_parameters)
    molecules = [molecule("CH3CH2OH") for _ in range(5)]
    crystals = [bulk("C", cubic=True) for _ in range(2)]
    for k, atoms in enumerate(molecules + crystals):
        atoms.rattle(0.05, seed=k)
    return potential, with_references(brute_force(potential, molecules + crystals))


def test_each_tile_goes_its_cheaper_way(ethanol_and_crystal):
    potential, structures = ethanol_and_crystal
    molecules, crystals = structures.select(slice(0, 5)), structures.select(slice(5, 7))
    assert bondwise_tiles(potential, molecules).all()
    assert not bondwise_tiles(potential, crystals).any()
    # apart, since a batch would put carbon atoms of both into one tile
    structures.shards = np.array([0, 5, 7])
    chosen = bondwise_tiles(potential, structures)
    assert chosen.any()
    assert not chosen.all()
    both = results(potential, structures, LossWeights(0.3))
    for way in (True, False):
        for one, other in zip(both, results(potential, structures, LossWeights(0.3), bondwise=way), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-13 * np.nanmax(abs(other), initial=1e-300))


def test_the_choice_does_not_depend_on_what_else_a_rank_holds(ethanol_and_crystal):
    potential, structures = ethanol_and_crystal
    structures.shards = np.array([0, 2, 5, 7])
    x, loss = potential.parameters, LossWeights(0.3)
    whole = CpuEvaluator(potential, structures, loss).evaluate(x)
    parts = [structures.select(slice(0, 2)), structures.select(slice(2, 7))]
    parts[0].shards, parts[1].shards = np.array([0, 2]), np.array([0, 3, 5])
    sums = [CpuEvaluator(potential, part, loss).evaluate(x) for part in parts]
    apart = fixed_point.decode(sum(s.encoded_gradient for s in sums))
    np.testing.assert_array_equal(fixed_point.decode(whole.encoded_gradient), apart)


def test_cost_of_few_and_many_neighbours(ethanol_and_crystal):
    shape = make_shape(ethanol_and_crystal[0])
    elements = np.zeros(3, int)
    slots = np.array([[1, 1, 0], [3, 5, 1], [60, 0, 0]])
    assert prefers_bonds(shape, elements, slots).tolist() == [True, True, False]
