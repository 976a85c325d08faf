"""Rows of the linearised model: derivatives of energies, of combinations of forces and virials, and B values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.io import read

from pacehpc import Potential
from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.calculator import projections

ROWS_BACKENDS = ["reference", "cpu", "cuda"]
KAPPA, STRESS = 0.3, 0.2


@pytest.fixture(scope="module", params=["alni_mixed", "cuozr_zbl", "al_density_core"])
def case(request, golden, brute_force):
    """(potential, structures with reference values, of which one has no stress)"""
    potential = Potential.load(golden / "potentials" / f"{request.param}.yaml")
    frames = read(golden / "potentials" / f"{request.param}.extxyz", ":6")
    structures = brute_force(potential, frames)
    random = np.random.default_rng(3)
    n, m = structures.n_structures, structures.n_atoms
    structures.energy, structures.forces = random.normal(size=n), random.normal(size=(m, 3))
    structures.w_energy, structures.w_forces = random.uniform(0.5, 2, n), random.uniform(0.5, 2, m)
    structures.stress = np.where(structures.volumes[:, None] > 0, random.normal(0, 0.01, (n, 6)), np.nan)
    structures.stress[0] = np.nan
    return potential, structures


def rows_of(evaluator, x, kind, *moving):
    """All pieces as one array (n_structures, n_rows, n_parameters)."""
    parts, end = [], 0
    for where, values in evaluator.rows(x, kind, *moving):
        assert where.start == end and len(values) == where.stop - where.start and values.flags.c_contiguous
        parts.append(values)
        end = where.stop
    assert end == evaluator.structures.n_structures
    return np.concatenate(parts)


@pytest.mark.parametrize("name", ROWS_BACKENDS)
def test_the_gradient_is_made_of_rows(case, name, fake_cupy):
    """With the residuals as directions, the rows of all structures add up to the gradient of the loss."""
    potential, s = case
    x = potential.parameters
    loss = LossWeights(kappa=KAPPA, stress=STRESS)
    expected = create_evaluator("reference", potential, s, loss).evaluate(x).gradient
    evaluator = create_evaluator(name, potential, s, loss)
    found = evaluator.predict(x)
    energies = np.add.reduceat(found.energies, s.atom_offsets[:-1])
    a = 2 * (1 - KAPPA) * s.w_energy * (energies - s.energy) / s.atoms_per_structure**2
    b = 2 * KAPPA * s.w_forces[:, None] * (found.forces - s.forces)
    xx, yy, zz, yz, xz, xy = s.stress.T * s.volumes
    virials = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]).transpose(2, 0, 1)
    strain = 2 * STRESS * (s.w_energy / s.atoms_per_structure**2)[:, None, None] * (found.virials - virials)
    strain[~np.isfinite(s.stress).all(axis=1)] = 0
    assert np.abs(strain).max() > 0 or not (s.volumes > 0).any()
    rows = rows_of(evaluator, x, "energy+forces", b[None], strain[None])
    gradient = a @ rows[:, 0] + rows[:, 1].sum(axis=0)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", ROWS_BACKENDS)
def test_rows_are_derivatives(case, name, fake_cupy):
    potential, s = case
    x, random = potential.parameters, np.random.default_rng(1)
    directions, strains = random.normal(size=(3, s.n_atoms, 3)), random.normal(size=(3, s.n_structures, 3, 3))
    step = random.normal(size=len(x)) * 1e-5 * np.abs(x).max()
    reference = create_evaluator("reference", potential, s, LossWeights())

    def quantities(parameters):
        found = reference.predict(parameters)
        forces = np.add.reduceat((directions * found.forces).sum(axis=2), s.atom_offsets[:-1], axis=1)
        return np.vstack(
            [
                np.add.reduceat(found.energies, s.atom_offsets[:-1])[None],
                forces + np.einsum("qsab,sab->qs", strains, found.virials),
            ]
        ).T

    expected = 8 * (quantities(x + step) - quantities(x - step)) - quantities(x + 2 * step) + quantities(x - 2 * step)
    evaluator = create_evaluator(name, potential, s, LossWeights(), EvaluatorOptions(virials=True))
    found = rows_of(evaluator, x, "energy+forces", directions, strains)
    assert found.shape == (s.n_structures, 4, len(x))
    np.testing.assert_allclose(found @ step, expected / 12, rtol=0, atol=1e-7 * np.abs(expected / 12).max())
    near = {"rtol": 0, "atol": 1e-12 * np.abs(found).max()}
    np.testing.assert_allclose(rows_of(evaluator, x, "energy"), found[:, :1], **near)
    np.testing.assert_allclose(rows_of(evaluator, x, "forces", directions, strains), found[:, 1:], **near)
    moved = rows_of(evaluator, x, "forces", directions)
    strained = rows_of(evaluator, x, "forces", 0 * directions, strains)
    np.testing.assert_allclose(moved + strained, found[:, 1:], **near)


def test_many_rows_are_those_of_few(case):
    """Eight rows of a structure share the state of its atoms, what is left and energies go with other structures."""
    potential, s = case
    x, random = potential.parameters, np.random.default_rng(2)
    directions, strains = random.normal(size=(19, s.n_atoms, 3)), random.normal(size=(19, s.n_structures, 3, 3))
    evaluator = create_evaluator("cpu", potential, s, LossWeights(), EvaluatorOptions(virials=True))
    reference = create_evaluator("reference", potential, s, LossWeights(), EvaluatorOptions(virials=True))
    expected = rows_of(reference, x, "energy+forces", directions, strains)
    near = {"rtol": 0, "atol": 1e-12 * np.abs(expected).max()}
    for q in (7, 8, 9, 19):
        found = rows_of(evaluator, x, "energy+forces", directions[:q], strains[:q])
        np.testing.assert_allclose(found, expected[:, : 1 + q], **near)


@pytest.mark.parametrize("name", ROWS_BACKENDS)
def test_atoms_of_a_piece(case, name, fake_cupy):
    """B values are the projections; with the densities' slopes they give the rows of the energy."""
    potential, s = case
    x = potential.parameters
    evaluator = create_evaluator(name, potential, s, LossWeights())
    reference = create_evaluator("reference", potential, s, LossWeights())
    expected = reference.projections(x)
    full = np.zeros((s.n_structures, len(x)))
    owner = np.repeat(np.arange(s.n_structures), s.atoms_per_structure)
    seen = np.zeros(s.n_atoms, int)
    n_radial = sum(c.size for c in potential.radcoefficients.values())
    for basis, slopes in zip(evaluator.atom_rows(x, "basis"), evaluator.atom_rows(x, "full"), strict=True):
        for e, element in enumerate(potential.elements):
            np.testing.assert_array_equal(basis.atoms[e], slopes.atoms[e])
            assert (s.species[basis.atoms[e]] == e).all()
            for i, row in zip(basis.atoms[e], basis.values[e], strict=True):
                seen[i] += 1
                np.testing.assert_allclose(
                    row, expected[i], rtol=1e-10, atol=1e-12 * np.abs(expected[i]).max(initial=1)
                )
            positions = np.concatenate(
                [
                    np.arange(w.start, w.stop).reshape(-1, potential.embeddings[element].ndensity)
                    for block, w in zip(potential.blocks, potential.block_slices, strict=True)
                    if block.elements[0] == element
                ]
                or [np.zeros((0, 1), int)]
            )
            for i, row in zip(slopes.atoms[e], slopes.values[e], strict=True):
                full[owner[i], positions.T.ravel()] += row
    assert (seen == 1).all()
    energies = rows_of(evaluator, x, "energy")[:, 0]
    np.testing.assert_allclose(full[:, n_radial:], energies[:, n_radial:], atol=1e-11 * np.abs(energies).max())


def test_projections_follow_the_blocks(golden):
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    atoms = read(golden / "potentials" / "alni_mixed.extxyz", 0)
    counts = {e: sum(len(b.functions) for b in potential.blocks if b.elements[0] == e) for e in potential.elements}
    assert [len(row) for row in projections(potential, atoms)] == [counts[e] for e in atoms.symbols]


@pytest.mark.parametrize("name", ROWS_BACKENDS)
def test_what_is_refused(case, name, fake_cupy):
    potential, s = case
    evaluator, x = create_evaluator(name, potential, s, LossWeights()), potential.parameters
    u = np.zeros((2, s.n_atoms, 3))
    for arguments in (
        ("projections",),
        ("forces",),
        ("energy", u),
        ("forces", u[:, 1:]),
        ("forces", u, np.zeros((1, s.n_structures, 3, 3))),
    ):
        with pytest.raises(ValueError):
            next(evaluator.rows(x, *arguments))
    with pytest.raises(ValueError, match="basis, full"):
        next(evaluator.atom_rows(x, "energy"))
    none = replace(s.select(slice(0, 0)))
    assert list(create_evaluator(name, potential, none, LossWeights()).rows(x, "energy")) == []
