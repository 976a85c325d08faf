"""What holds for any potential, whatever the backend: derivatives, symmetries, continuity, special cases."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.io import read
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation

from pacehpc import Potential
from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.metrics import MAXIMA, TERMS
from pacehpc.physics.core import core_repulsion
from pacehpc.physics.cutoff import smooth_step
from pacehpc.potential import build_potential
from pacehpc.structures import Structures


@pytest.fixture
def load(golden):
    return lambda name: Potential.load(golden / "potentials" / f"{name}.yaml")


@pytest.fixture
def predict(backend, brute_force):
    """Prediction for a list of atoms."""

    def run(potential, frames):
        evaluator = create_evaluator(backend, potential, brute_force(potential, frames), LossWeights())
        return evaluator.predict(potential.parameters)

    return run


def with_references(structures: Structures) -> Structures:
    """Random reference values and weights; stress for every second structure."""
    rng = np.random.default_rng(11)
    n = structures.n_structures
    structures.energy = rng.normal(size=n)
    structures.forces = rng.normal(size=(structures.n_atoms, 3))
    structures.w_energy = rng.random(n)
    structures.w_forces = rng.random(structures.n_atoms)
    structures.stress = 0.01 * rng.normal(size=(n, 6))
    structures.stress[::2] = np.nan
    return structures


def rattled(name: str, golden) -> list[Atoms]:
    """The golden structures of a potential, shaken so that no symmetry hides a term."""
    frames = read(golden / "potentials" / f"{name}.extxyz", ":")
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
    return frames


# derivatives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, 0.0), (0.3, 0.7)], ids=["energy", "forces", "with stress"])
def test_gradient_along_random_directions(golden, golden_name, load, brute_force, backend, weights):
    """Central differences of the loss that `terms` makes, in fourth order."""
    kappa, stress = weights
    potential = load(golden_name)
    structures = with_references(brute_force(potential, rattled(golden_name, golden)))
    evaluator = create_evaluator(backend, potential, structures, LossWeights(kappa=kappa, stress=stress))

    def loss(x):
        terms = dict(zip(TERMS, evaluator.evaluate(x, gradient=False).terms, strict=True))
        return (1 - kappa) * terms["e_loss"] + kappa * terms["f_loss"] + stress * terms["s_loss"]

    x = potential.parameters
    gradient = evaluator.evaluate(x).gradient
    assert np.all(gradient != 0)
    rng = np.random.default_rng(4)
    for _ in range(3):
        direction = rng.normal(size=len(x)) / np.sqrt(len(x))
        h = 1e-5  # small against the least density of an atom, where the embedding is steep
        a, b, c, d = (loss(x + s * h * direction) for s in (-2, -1, 1, 2))
        expected = (a - 8 * b + 8 * c - d) / (12 * h)
        assert gradient @ direction == pytest.approx(expected, rel=1e-6, abs=1e-14 * b / h)


@pytest.mark.parametrize("name", ["alni_mixed", "cuozr_zbl"])
def test_gradient_component_by_component(golden, load, brute_force, backend, name):
    potential = load(name)
    structures = with_references(brute_force(potential, rattled(name, golden)[3:7]))
    evaluator = create_evaluator(backend, potential, structures, LossWeights(kappa=0.5, stress=0.2))

    def loss(x):
        terms = dict(zip(TERMS, evaluator.evaluate(x, gradient=False).terms, strict=True))
        return 0.5 * terms["e_loss"] + 0.5 * terms["f_loss"] + 0.2 * terms["s_loss"]

    x = potential.parameters
    gradient = evaluator.evaluate(x).gradient
    for index in range(0, len(x), 13):
        h = 2e-5
        step = h * np.eye(1, len(x), index)[0]
        a, b, c, d = (loss(x + s * step) for s in (-2, -1, 1, 2))
        assert gradient[index] == pytest.approx((a - 8 * b + 8 * c - d) / (12 * h), rel=1e-6, abs=1e-14 * b / h), index


def test_forces_are_derivatives(golden, golden_name, load, predict):
    potential = load(golden_name)
    h = 1e-5
    for atoms in rattled(golden_name, golden)[3:8:2]:
        forces = predict(potential, [atoms]).forces
        rng = np.random.default_rng(2)
        for _ in range(2):
            direction = rng.normal(size=(len(atoms), 3))
            moved = []
            for s in (-1, 1):
                moved.append(atoms.copy())
                moved[-1].positions += s * h * direction
            energies = predict(potential, moved).energies
            difference = (energies[len(atoms) :].sum() - energies[: len(atoms)].sum()) / (2 * h)
            assert -(forces * direction).sum() == pytest.approx(difference, rel=1e-6, abs=1e-7)


def test_virial_is_the_derivative_by_strain(golden, golden_name, load, predict):
    potential = load(golden_name)
    atoms = rattled(golden_name, golden)[3]
    assert atoms.pbc.all()
    virial = predict(potential, [atoms]).virials[0]
    h = 1e-5
    for a, b in ((0, 0), (1, 2), (2, 0)):
        strain = np.zeros((3, 3))
        strain[a, b] = h
        energies = []
        for s in (-1, 1):
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + s * strain).T, scale_atoms=True)
            energies.append(predict(potential, [strained]).energies.sum())
        assert virial[a, b] == pytest.approx((energies[1] - energies[0]) / (2 * h), rel=1e-6, abs=1e-6)


# symmetries -----------------------------------------------------------------------------------------------------------


def test_rotation(golden, golden_name, load, predict):
    potential = load(golden_name)
    frames = rattled(golden_name, golden)
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    turned = []
    for atoms in frames:
        turned.append(atoms.copy())
        turned[-1].set_cell(atoms.cell.array @ turn.T)
        turned[-1].positions = atoms.positions @ turn.T
    before, after = predict(potential, frames), predict(potential, turned)
    np.testing.assert_allclose(after.energies, before.energies, rtol=1e-11, atol=1e-12)
    scale = np.abs(before.forces).max()
    np.testing.assert_allclose(after.forces, before.forces @ turn.T, rtol=0, atol=1e-11 * scale)
    expected = np.einsum("ab,sbc,dc->sad", turn, before.virials, turn)
    np.testing.assert_allclose(after.virials, expected, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize(
    "orders",
    [([1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]), ([2, 2, 1], [0, 7, 6])],
    ids=["seven neighbours", "large l"],
)
def test_beyond_the_golden_bases(predict, orders):
    """Invariance, and forces as derivatives, where no reference program helps."""
    nradmax, lmax = orders
    potential = build_potential(
        {
            "elements": ["Cu"],
            "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1], "ndensity": 1}},
            "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 5.0, "dcut": 0.01}},
            "functions": {"ALL": {"nradmax_by_orders": nradmax, "lmax_by_orders": lmax}},
        }
    )
    functions = potential.blocks[0].functions
    assert max(len(f.ls) for f in functions) == len(nradmax) and max(max(f.ls) for f in functions) == max(lmax)
    rng = np.random.default_rng(6)
    potential.parameters = rng.normal(size=potential.n_parameters)
    atoms = Atoms("Cu9", positions=rng.uniform(0, 4.5, size=(9, 3)))
    turned = atoms.copy()
    turned.positions = atoms.positions @ Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix().T
    shifts = 1e-5 * rng.normal(size=atoms.positions.shape)
    moved = [atoms.copy(), atoms.copy()]
    for s, other in zip((-1, 1), moved, strict=True):
        other.positions += s * shifts
    prediction = predict(potential, [atoms, turned, *moved])
    energies = prediction.energies.reshape(4, -1)
    np.testing.assert_allclose(energies[1], energies[0], rtol=0, atol=1e-11 * np.abs(energies[0]).max())
    difference = (energies[3].sum() - energies[2].sum()) / 2
    assert -(prediction.forces[:9] * shifts).sum() == pytest.approx(difference, rel=1e-6)


def test_mirror(golden, golden_name, load, predict):
    """Functions of odd parity are not in the basis."""
    potential = load(golden_name)
    frames = rattled(golden_name, golden)
    mirrored = []
    for atoms in frames:
        mirrored.append(atoms.copy())
        mirrored[-1].set_cell(-atoms.cell.array)
        mirrored[-1].positions = -atoms.positions
    before, after = predict(potential, frames), predict(potential, mirrored)
    np.testing.assert_allclose(after.energies, before.energies, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(after.forces, -before.forces, rtol=0, atol=1e-11 * np.abs(before.forces).max())


def test_permutation(golden, golden_name, load, predict):
    potential = load(golden_name)
    atoms = rattled(golden_name, golden)[6]
    order = np.random.default_rng(1).permutation(len(atoms))
    before, after = predict(potential, [atoms]), predict(potential, [atoms[order]])
    np.testing.assert_allclose(after.energies, before.energies[order], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(after.forces, before.forces[order], rtol=0, atol=1e-11 * np.abs(before.forces).max())


def test_supercell(golden, golden_name, load, predict):
    potential = load(golden_name)
    atoms = rattled(golden_name, golden)[2]
    assert atoms.pbc.all()
    large = make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [0, -1, 2]], order="cell-major")
    one, two = predict(potential, [atoms]), predict(potential, [large])
    np.testing.assert_allclose(two.energies.reshape(2, -1), np.tile(one.energies, (2, 1)), rtol=1e-11)
    np.testing.assert_allclose(two.forces.reshape(2, -1, 3), np.tile(one.forces, (2, 1, 1)), rtol=0, atol=1e-10)
    np.testing.assert_allclose(two.virials, 2 * one.virials, rtol=0, atol=1e-9)


def test_no_net_force(golden, golden_name, load, predict):
    potential = load(golden_name)
    for atoms in rattled(golden_name, golden):
        forces = predict(potential, [atoms]).forces
        np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-11 * max(1, np.abs(forces).max()))


# continuity -----------------------------------------------------------------------------------------------------------


def repulsion(bond, numbers, r):
    """rho_core that one neighbour at r makes."""
    return core_repulsion(bond, numbers, np.array([r]))[0][0]


def edges(potential, a, b):
    """Distances of a pair where some factor sets in or ends."""
    bond = potential.bonds[a, b]
    found = {bond.rcut}
    if bond.dcut > 0:
        found.add(bond.rcut - bond.dcut)
    if bond.r_in > 0:
        found |= {bond.r_in, bond.r_in - bond.delta_in}
    embedding = potential.embeddings[a]
    if bond.inner_cutoff_type == "density" and bond.core_repulsion[0] > 0:
        for cut in (embedding.rho_core_cut, embedding.rho_core_cut - embedding.drho_core_cut):
            if cut < 100:
                found.add(brentq(lambda r, cut=cut: repulsion(bond, (1, 1), r) - cut, 0.1, bond.rcut))
    return sorted(found)


def test_continuity(golden_name, load, predict):
    """Energy and forces of pairs, with a third atom at hand, on both sides of every edge."""
    if golden_name == "al_cheblinear":
        pytest.skip("ChebLinear itself jumps at rcut")
    potential = load(golden_name)
    h = 1e-8
    n_edges = 0
    for a, b in potential.bonds:
        for edge in edges(potential, a, b):
            pairs = [Atoms([a, b, a], positions=[[0, 0, 0], [edge + s * h, 0, 0], [0.3, 2.9, 0.4]]) for s in (-1, 1)]
            prediction = predict(potential, pairs)
            energies, forces = prediction.energies.reshape(2, -1), prediction.forces.reshape(2, 3, 3)
            scale = 1 + np.abs(forces).max()
            np.testing.assert_allclose(energies[1], energies[0], rtol=0, atol=1e-6 * scale, err_msg=f"{a}{b} {edge}")
            np.testing.assert_allclose(forces[1], forces[0], rtol=0, atol=1e-4 * scale, err_msg=f"{a}{b} {edge}")
            n_edges += 1
    assert n_edges >= 2 * len(potential.bonds)


def test_core_density_switches_the_energy_off(load, predict):
    """Beyond rho_core_cut only the core repulsion is left, below it both."""
    potential = load("al_density_core")
    bond, embedding = potential.bonds["Al", "Al"], potential.embeddings["Al"]
    repulsion_only = potential.copy()
    repulsion_only.parameters = np.zeros(potential.n_parameters)
    for r in (1.3, 1.7, 1.9, 2.1, 2.6, 3.0):
        pair = Atoms("Al2", positions=[[0, 0, 0], [r, 0, 0]])
        rho = repulsion(bond, (13, 13), r)
        bare = predict(with_cut(potential, 1e9), [pair]).energies[0] - rho
        switch = smooth_step(rho, embedding.rho_core_cut, embedding.drho_core_cut)[0]
        assert abs(bare) > 1e-3
        assert predict(repulsion_only, [pair]).energies[0] == pytest.approx(rho, rel=1e-12)
        assert predict(potential, [pair]).energies[0] == pytest.approx(bare * switch + rho, rel=1e-10)


def with_cut(potential, cut):
    other = potential.copy()
    other.embeddings = {e: replace(v, rho_core_cut=cut) for e, v in potential.embeddings.items()}
    return other


# special cases --------------------------------------------------------------------------------------------------------


def test_zbl_follows_the_smallest_gap(load, predict):
    """Not the nearest neighbour but the one deepest in its own inner cutoff switches; forces act on that bond alone."""
    potential = load("cuozr_zbl")
    potential.parameters = np.zeros(potential.n_parameters)  # F = 0: E_i = rho_core (1 - f_c)
    near, deep = potential.bonds["O", "O"], potential.bonds["O", "Cu"]
    r_near, r_deep = 1.45, 1.6
    gaps = [r - (bond.r_in - bond.delta_in) for r, bond in ((r_near, near), (r_deep, deep))]
    assert gaps[1] < gaps[0] and r_near < r_deep
    atoms = Atoms("OOCu", positions=[[0, 0, 0], [r_near, 0, 0], [0, r_deep, 0]])
    rho = repulsion(near, (8, 8), r_near) + repulsion(deep, (8, 29), r_deep)
    x = 1 - 2 * gaps[1] / deep.delta_in
    f_c = 0.5 - 3.75 * (x / 4 - x**3 / 6 + x**5 / 20)
    assert 0.05 < f_c < 0.95
    assert predict(potential, [atoms]).energies[0] == pytest.approx(rho * (1 - f_c), rel=1e-12)


def test_zbl_hands_over_completely(load, predict):
    potential = load("cuozr_zbl")
    bond = potential.bonds["Cu", "Cu"]
    close = bond.r_in - bond.delta_in - 0.05
    energies = predict(potential, [Atoms("Cu2", positions=[[0, 0, 0], [close, 0, 0]])]).energies
    expected = repulsion(bond, (29, 29), close)
    np.testing.assert_allclose(energies, expected, rtol=1e-12)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_all_zero_coefficients(golden, golden_name, load, brute_force, backend, kappa):
    """A normal start of a fit: functions with zero coefficients, whatever the embedding does at rho = 0."""
    potential = load(golden_name)
    structures = with_references(brute_force(potential, rattled(golden_name, golden)))
    x = potential.parameters
    x[min(where.start for where in potential.block_slices) :] = 0
    evaluator = create_evaluator(backend, potential, structures, LossWeights(kappa=kappa))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sums = evaluator.evaluate(x)
        everything = evaluator.evaluate(np.zeros_like(x))
    for found in (sums, everything):
        assert np.isfinite(found.terms).all() and np.isfinite(found.gradient).all()
    for where in potential.block_slices:
        assert np.any(sums.gradient[where] != 0)


def test_isolated_atoms(load, predict):
    """Without bonds: no energy, no force; also beside structures that have bonds."""
    potential = load("alni_mixed")
    alone = Atoms("Al", positions=[[1, 2, 3]])
    apart = Atoms("AlNi", positions=[[0, 0, 0], [9, 0, 0]])
    prediction = predict(potential, [alone, bulk("Al"), apart])
    np.testing.assert_allclose(prediction.energies[[0, 2, 3]], 0, atol=1e-14)
    np.testing.assert_array_equal(prediction.forces[[0, 2, 3]], 0)
    assert prediction.energies[1] != 0
    np.testing.assert_allclose(predict(potential, [alone]).energies, 0, atol=1e-14)


def test_no_structures_at_all(load, backend):
    """A rank may own nothing."""
    potential = load("alni_mixed")
    empty = Structures(
        atom_offsets=np.zeros(1, dtype=np.int64),
        species=np.zeros(0, dtype=np.int32),
        bond_offsets=np.zeros(1, dtype=np.int64),
        bond_atom=np.zeros(0, dtype=np.int32),
        bond_vector=np.zeros((0, 3)),
        volumes=np.zeros(0),
    )
    evaluator = create_evaluator(backend, potential, with_references(empty), LossWeights(kappa=0.5, stress=1.0))
    sums = evaluator.evaluate(potential.parameters)
    assert sums.terms.shape == (len(TERMS),) and sums.maxima.shape == (len(MAXIMA),)
    assert not sums.terms.any() and not sums.gradient.any()
    prediction = evaluator.predict(potential.parameters)
    assert prediction.energies.shape == (0,)
    assert prediction.forces.shape == (0, 3) and prediction.virials.shape == (0, 3, 3)


def test_without_gradient(golden, load, brute_force, backend):
    potential = load("alni_mixed")
    structures = with_references(brute_force(potential, rattled("alni_mixed", golden)))
    evaluator = create_evaluator(backend, potential, structures, LossWeights(kappa=0.5))
    with_it, without = (evaluator.evaluate(potential.parameters, gradient=g) for g in (True, False))
    assert without.gradient is None
    np.testing.assert_allclose(without.terms, with_it.terms, rtol=1e-13)
    np.testing.assert_allclose(without.maxima, with_it.maxima, rtol=1e-13)


def test_structures_share_nothing(golden, load, predict):
    """Each structure alone gives what it gives among others."""
    potential = load("cuozr_zbl")
    frames = rattled("cuozr_zbl", golden)
    together = predict(potential, frames)
    apart = [predict(potential, [atoms]) for atoms in frames]
    for name in ("energies", "forces", "virials"):
        alone = np.concatenate([getattr(prediction, name) for prediction in apart])
        np.testing.assert_allclose(getattr(together, name), alone, rtol=1e-12, atol=1e-12)
