"""Huber's loss on all backends: its definition, its gradient, and squares as its limit."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import read

from pacehpc import Potential, metrics
from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import LossWeights

NAMES = ["reference", "cpu", "cuda"]
KAPPA, STRESS = 0.3, 0.2

pytestmark = pytest.mark.usefixtures("fake_cupy")


@pytest.fixture(params=["alni_mixed", "cuozr_zbl"])
def case(request, golden, brute_force):
    """(potential, structures, medians of the errors of energies and of force lengths)"""
    potential = Potential.load(golden / "potentials" / f"{request.param}.yaml")
    frames = read(golden / "potentials" / f"{request.param}.extxyz", ":6")
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
    s = brute_force(potential, frames)
    random = np.random.default_rng(3)
    n, m = s.n_structures, s.n_atoms
    s.energy, s.forces = random.normal(size=n), random.normal(size=(m, 3))
    s.w_energy, s.w_forces = random.uniform(0.5, 2, n) / n, random.uniform(0.5, 2, m) / m
    s.stress = np.where(s.volumes[:, None] > 0, random.normal(0, 0.01, (n, 6)), np.nan)
    energy, forces = errors(create_evaluator("reference", potential, s, LossWeights()), potential.parameters)
    return potential, s, np.median(np.abs(energy)), np.median(np.linalg.norm(forces, axis=1))


def errors(evaluator, x):
    """Of energies per atom, (n_structures,), and of forces, (n_atoms, 3)."""
    s, found = evaluator.structures, evaluator.predict(x)
    energies = np.add.reduceat(found.energies, s.atom_offsets[:-1])
    return (energies - s.energy) / s.atoms_per_structure, found.forces - s.forces


def by_hand(r, delta):
    return r**2 if r <= delta else 2 * delta * r - delta**2


def terms_of(evaluator, x):
    return dict(zip(metrics.TERMS, evaluator.evaluate(x, gradient=False).terms, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_its_definition_and_metrics_stay(case, name):
    potential, s, energy_delta, force_delta = case
    x = potential.parameters
    evaluator = create_evaluator(name, potential, s, LossWeights(KAPPA, STRESS, energy_delta, force_delta))
    energy, forces = errors(evaluator, x)
    found = terms_of(evaluator, x)
    lengths = np.linalg.norm(forces, axis=1)
    assert 0 < (np.abs(energy) > energy_delta).sum() < len(energy) and (lengths > force_delta).any()
    e_loss = sum(w * by_hand(abs(r), energy_delta) for w, r in zip(s.w_energy, energy, strict=True))
    f_loss = sum(w * by_hand(r, force_delta) for w, r in zip(s.w_forces, lengths, strict=True))
    assert found["e_loss"] == pytest.approx(e_loss, rel=1e-9) and found["f_loss"] == pytest.approx(f_loss, rel=1e-9)
    square = terms_of(create_evaluator(name, potential, s, LossWeights(KAPPA, STRESS)), x)
    assert square.pop("e_loss") > 1.01 * found.pop("e_loss") and square.pop("f_loss") > 1.01 * found.pop("f_loss")
    assert found == square


@pytest.mark.parametrize("kinds", ["energy", "forces", "both"])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_with_errors_on_both_sides_of_delta(case, name, kinds):
    """Central differences of the loss, in fourth order."""
    potential, s, energy_delta, force_delta = case
    deltas = energy_delta * (kinds != "forces"), force_delta * (kinds != "energy")
    evaluator = create_evaluator(name, potential, s, LossWeights(KAPPA, STRESS, *deltas))

    def loss(x):
        terms = terms_of(evaluator, x)
        return (1 - KAPPA) * terms["e_loss"] + KAPPA * terms["f_loss"] + STRESS * terms["s_loss"]

    x = potential.parameters
    gradient = evaluator.evaluate(x).gradient
    random = np.random.default_rng(4)
    for _ in range(3):
        direction = random.normal(size=len(x)) / np.sqrt(len(x))
        h = 1e-5
        a, b, c, d = (loss(x + k * h * direction) for k in (-2, -1, 1, 2))
        assert gradient @ direction == pytest.approx((a - 8 * b + 8 * c - d) / (12 * h), rel=1e-6, abs=1e-14 * b / h)


@pytest.mark.parametrize("name", NAMES)
def test_a_delta_above_all_errors_gives_the_bits_of_squares(case, name):
    potential, s, *_ = case
    x = potential.parameters
    square = create_evaluator(name, potential, s, LossWeights(KAPPA, STRESS)).evaluate(x)
    for delta in (1e3, 1e300):
        found = create_evaluator(name, potential, s, LossWeights(KAPPA, STRESS, delta, delta)).evaluate(x)
        np.testing.assert_array_equal(found.encoded_terms, square.encoded_terms)
        np.testing.assert_array_equal(found.gradient, square.gradient)
        np.testing.assert_array_equal(found.maxima, square.maxima)


def test_factors_are_the_slope_over_that_of_squares():
    r, h = np.array([0.0, 0.3, 0.5, 0.7, 40.0]), 1e-6
    slope = (metrics.huber((r + h) ** 2, 0.5) - metrics.huber((r - h) ** 2, 0.5)) / (2 * h)
    np.testing.assert_allclose(2 * r * metrics.huber_factors(r**2, 0.5), slope, atol=1e-6)
    assert metrics.huber(r**2, 0.0).tolist() == (r**2).tolist()
    assert metrics.huber_factors(np.array([np.nan, 1.0]), 0.5).tolist() == [1.0, 0.5]
