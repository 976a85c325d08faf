from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.io import read

from pacehpc import Potential
from pacehpc.backends import create_evaluator, prepare_kernels, resolve
from pacehpc.backends.interface import LossWeights
from pacehpc.errors import PacehpcError


@pytest.fixture
def potential(golden):
    return Potential.load(golden / "potentials" / "alni_mixed.yaml")


@pytest.fixture
def structures(golden, potential, brute_force):
    return brute_force(potential, read(golden / "potentials" / "alni_mixed.extxyz", ":"))


def test_counts(structures):
    assert structures.n_structures == 12
    assert structures.n_atoms == structures.atom_offsets[-1] == structures.atoms_per_structure.sum()
    assert structures.n_bonds == structures.bond_offsets[-1] == len(structures.bond_vector)


@pytest.mark.parametrize("run", [slice(0, 4), slice(3, 9), slice(-2, None), slice(None), slice(5, 5), slice(9, 3)])
def test_select(structures, potential, golden, brute_force, run):
    """A run of structures is what one gets from these structures alone."""
    structures.energy = np.arange(12.0)
    structures.forces = np.arange(3.0 * structures.n_atoms).reshape(-1, 3)
    structures.w_energy, structures.w_forces = structures.energy + 0.5, structures.forces[:, 0] + 0.5
    structures.stress, structures.low = np.outer(structures.energy, np.ones(6)), structures.energy > 5
    part = structures.select(run)
    frames = read(golden / "potentials" / "alni_mixed.extxyz", ":")[run]
    assert part.n_structures == len(frames)
    assert part.atom_offsets[0] == 0 == part.bond_offsets[0]
    if frames:
        alone = brute_force(potential, frames)
        for name in ("atom_offsets", "species", "bond_offsets", "bond_atom", "bond_vector", "volumes"):
            np.testing.assert_array_equal(getattr(part, name), getattr(alone, name))
            assert getattr(part, name).dtype == getattr(structures, name).dtype
    chosen = np.arange(12.0)[run]
    np.testing.assert_array_equal(part.energy, chosen)
    np.testing.assert_array_equal(part.w_energy, chosen + 0.5)
    np.testing.assert_array_equal(part.stress[:, 2], chosen)
    np.testing.assert_array_equal(part.low, chosen > 5)
    assert len(part.forces) == len(part.w_forces) == part.n_atoms
    if frames:
        assert part.forces[0, 0] == 3 * structures.atom_offsets[int(chosen[0])]


def test_select_takes_runs_only(structures):
    with pytest.raises(ValueError, match="contiguous"):
        structures.select(slice(0, 6, 2))


def test_names(potential, structures):
    assert resolve("reference") == "reference"
    assert resolve("auto") in ("cpu", "cuda")
    assert create_evaluator("reference", potential, structures, LossWeights()).name == "reference"
    prepare_kernels("reference", potential, LossWeights())  # nothing to compile
    with pytest.raises(PacehpcError, match=r"'gpu'.*cpu.*reference"):
        create_evaluator("gpu", potential, structures, LossWeights())


def test_cuda_is_refused_not_replaced(potential, structures):
    with pytest.raises(PacehpcError, match="cuda"):
        create_evaluator("cuda", potential, structures, LossWeights())


def test_update_takes_new_vectors_and_leaves_out_long_bonds(potential, structures, backend):
    """After an update an evaluator is what one would create for these vectors, and the old ones come back."""
    evaluator, x = create_evaluator(backend, potential, structures, LossWeights()), potential.parameters
    before = evaluator.predict(x)
    vectors = 1.05 * structures.bond_vector
    species, centre = structures.species, np.repeat(np.arange(structures.n_atoms), np.diff(structures.bond_offsets))
    rcut = np.array([[potential.bonds[a, b].rcut for b in potential.elements] for a in potential.elements])
    seen = np.linalg.norm(vectors, axis=1) < rcut[species[centre], species[structures.bond_atom]]
    assert 0 < seen.sum() < len(seen)
    short = replace(
        structures,
        bond_offsets=np.r_[0, np.cumsum(np.bincount(centre[seen], minlength=structures.n_atoms))],
        bond_atom=structures.bond_atom[seen],
        bond_vector=vectors[seen],
    )
    expected = create_evaluator("reference", potential, short, LossWeights()).predict(x)
    evaluator.update(vectors)
    found = evaluator.predict(x)
    for name in ("energies", "forces", "virials"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9)
    evaluator.update(structures.bond_vector)
    np.testing.assert_array_equal(evaluator.predict(x).forces, before.forces)


def test_every_backend_has_a_report_and_stages(potential, structures, backend):
    s = replace(structures, energy=np.zeros(structures.n_structures), forces=np.zeros((structures.n_atoms, 3)))
    s.w_energy, s.w_forces = np.ones(s.n_structures), np.ones(s.n_atoms)
    fit = create_evaluator(backend, potential, s, LossWeights(kappa=0.5))
    assert isinstance(fit.report, str) and sum(fit.stage_seconds(potential.parameters).values()) > 0
