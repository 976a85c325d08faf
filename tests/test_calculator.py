from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import read
from ase.stress import voigt_6_to_full_3x3_stress

import pacehpc.calculator
from pacehpc import PaceCalculator, Potential
from pacehpc.errors import PacehpcError


@pytest.fixture
def path(golden):
    return golden / "potentials" / "alni_mixed.yaml"


@pytest.fixture
def builds(monkeypatch):
    """The cutoffs that neighbour searches were called with."""
    calls = []
    search = pacehpc.calculator.find_neighbours

    def counting(*args):
        calls.append(args[-1])
        return search(*args)

    monkeypatch.setattr(pacehpc.calculator, "find_neighbours", counting)
    return calls


def test_golden(golden, golden_name, backend):
    folder = golden / "potentials"
    reference = np.load(folder / f"{golden_name}.npz")
    calculator = PaceCalculator(folder / f"{golden_name}.yaml", backend=backend)
    for k, atoms in enumerate(read(folder / f"{golden_name}.extxyz", ":")):
        atoms.calc = calculator
        energies = reference[f"energies_{k}"]
        np.testing.assert_allclose(atoms.get_potential_energy(), energies.sum(), rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(atoms.get_potential_energy(force_consistent=True), energies.sum(), atol=1e-9)
        np.testing.assert_allclose(atoms.get_potential_energies(), energies, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(atoms.get_forces(), reference[f"forces_{k}"], rtol=0, atol=5e-9)
        if atoms.pbc.all():
            np.testing.assert_allclose(atoms.get_stress(), reference[f"stress_{k}"], rtol=0, atol=5e-10)


def test_stress_is_the_derivative_by_strain(path):
    atoms = bulk("Al", a=4.0, cubic=True)
    atoms.symbols[0] = "Ni"
    atoms.rattle(0.1, seed=1)
    atoms.calc = PaceCalculator(path, backend="reference")
    stress = voigt_6_to_full_3x3_stress(atoms.get_stress())
    cell, volume, h = atoms.cell.array, atoms.get_volume(), 1e-5
    for a, b in ((0, 0), (1, 2), (0, 1)):
        energies = []
        for s in (-1, 1):
            strain = np.eye(3)
            strain[a, b] += s * h
            strained = atoms.copy()
            strained.calc = atoms.calc
            strained.set_cell(cell @ strain.T, scale_atoms=True)
            energies.append(strained.get_potential_energy())
        assert stress[a, b] == pytest.approx((energies[1] - energies[0]) / (2 * h) / volume, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("kind", ["core repulsion", "coefficients"])
def test_potential_that_changes_later(path, kind, backend):
    """A calculator keeps the potential it was made with; a new one has what was changed."""
    potential = Potential.load(path)
    atoms = bulk("Ni", a=3.3, cubic=True)
    atoms.rattle(0.05, seed=2)
    atoms.calc = PaceCalculator(potential, backend=backend)
    before = atoms.get_potential_energy()
    if kind == "core repulsion":
        potential.set_core_repulsion("ALL", r_in=2.5, delta_in=0.3, core_repulsion=(100.0, 1.0))
    else:
        potential.parameters = 2.0 * potential.parameters
    atoms.positions += 1.0  # as a whole, so that results are not those that ASE keeps
    assert atoms.get_potential_energy() == pytest.approx(before, rel=1e-10)
    atoms.calc = PaceCalculator(potential, backend=backend)
    assert abs(atoms.get_potential_energy() - before) > 0.1


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_no_stress_without_three_periodic_directions(path, pbc):
    atoms = bulk("Al", cubic=True)
    atoms.pbc = pbc
    atoms.calc = PaceCalculator(path, backend="reference")
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert np.isfinite(atoms.get_potential_energy())


def test_list_is_used_again_while_atoms_move_little(path, builds):
    """A walk of small steps: fewer searches than steps, and always the result of a fresh list."""
    rng = np.random.default_rng(8)
    atoms = bulk("Ni", a=3.6, cubic=True) * (2, 1, 1)
    atoms.symbols[3] = "Al"
    with_skin = PaceCalculator(path, backend="reference", skin=0.6)
    for _ in range(20):
        atoms.positions += rng.normal(scale=0.03, size=(len(atoms), 3))
        fresh = PaceCalculator(path, backend="reference", skin=0.0)
        before = len(builds)
        atoms.calc = fresh
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        assert len(builds) == before + 1
        del builds[before:]
        atoms.calc = with_skin
        assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-11)
    assert 2 <= len(builds) < 10
    np.testing.assert_allclose(builds[0], [[5.6, 6.1], [6.1, 5.6]])


def test_half_the_skin_is_the_limit(path, builds):
    atoms = bulk("Al", cubic=True)
    atoms.calc = PaceCalculator(path, backend="reference", skin=0.4)
    start = atoms.positions.copy()
    for shift, expected in ((0.0, 1), (0.19, 1), (0.21, 2), (0.05, 2), (0.0, 3)):
        atoms.positions[2] = start[2] + [0, shift, 0]
        atoms.get_potential_energy()
        assert len(builds) == expected, shift


@pytest.mark.parametrize("change", ["cell", "pbc", "species", "more atoms"])
def test_list_is_made_anew(path, builds, change):
    atoms = bulk("Al", cubic=True)
    calculator = PaceCalculator(path, backend="reference")
    atoms.calc = calculator
    first = atoms.get_potential_energy()
    if change == "cell":
        atoms.set_cell(atoms.cell.array * 0.8)
    elif change == "pbc":
        atoms.pbc = (True, True, False)
    elif change == "species":
        atoms.symbols[1] = "Ni"
    else:
        atoms = atoms * (1, 1, 2)
        atoms.calc = calculator
    energy = atoms.get_potential_energy()
    assert len(builds) == 2
    atoms.calc = PaceCalculator(path, backend="reference")
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    assert energy != first


@pytest.mark.parametrize("name", ["alni_mixed", "al_density_core", "cuozr_zbl"])
def test_walk_of_atoms_and_cell(golden, name, backend, builds):
    """Atoms move in and out of cutoffs, and the cell is strained, without new lists: as with a list made each time."""
    path = golden / "potentials" / f"{name}.yaml"
    potential = Potential.load(path)
    rng = np.random.default_rng(3)
    atoms = bulk(potential.elements[0], "fcc", a=3.9, cubic=True)
    atoms.symbols[0] = potential.elements[-1]
    atoms.rattle(0.1, seed=5)
    with_skin = PaceCalculator(potential, backend=backend, skin=1.5)
    rebuilt = 0
    for _ in range(8):
        atoms.positions += rng.normal(scale=0.03, size=(len(atoms), 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.01 * rng.normal(size=(3, 3))), scale_atoms=True)
        fresh = atoms.copy()
        fresh.calc = PaceCalculator(potential, backend="reference", skin=0.0)
        energy, forces, stress = fresh.get_potential_energy(), fresh.get_forces(), fresh.get_stress()
        before = len(builds)
        atoms.calc = with_skin
        assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-11)
        np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-10 * abs(forces).max())
        np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=1e-10 * abs(stress).max())
        rebuilt += len(builds) - before
    assert rebuilt < 5


def test_lists_stay_complete_under_strain(path):
    """No pair within its cutoff is missing from a list that is used again."""
    rng = np.random.default_rng(0)
    potential = Potential.load(path)
    neighbourhood = pacehpc.calculator.Neighbourhood(potential, 1.0)
    atoms = bulk("Al", a=4.0) * (2, 1, 1)
    assert neighbourhood.follow(atoms)
    used_again = 0
    for _ in range(200):
        strained = atoms.copy()
        strain = np.eye(3) + rng.normal(scale=0.06, size=(3, 3))
        strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        strained.positions += rng.uniform(-0.2, 0.2, size=(2, 3))
        if not neighbourhood._holds(strained):
            continue
        used_again += 1
        neighbourhood.follow(strained)
        fresh = pacehpc.calculator.Neighbourhood(potential, 0.0)
        fresh.follow(strained)
        assert neighbourhood.structures().n_bonds == fresh.structures().n_bonds
    assert 20 < used_again < 180


def test_several_calculators_take_turns(golden):
    """Two potentials and two structures in one process, called in turn."""
    folder = golden / "potentials"
    cases = []
    for name in ("alni_mixed", "cuozr_zbl"):
        potential = Potential.load(folder / f"{name}.yaml")
        atoms = bulk(potential.elements[0], "fcc", a=4.0, cubic=True)
        atoms.rattle(0.05, seed=1)
        other = atoms.copy()
        atoms.calc, other.calc = PaceCalculator(potential), PaceCalculator(potential, backend="reference")
        cases.append((atoms, other))
    for step in range(3):
        for atoms, other in cases:
            for a in (atoms, other):
                a.positions[0, 0] += 0.01 * (step + 1)
            assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy(), rel=1e-11)
            np.testing.assert_allclose(atoms.get_forces(), other.get_forces(), rtol=0, atol=1e-9)


def test_lammps_file_is_the_same_potential(golden, golden_name):
    folder = golden / "potentials"
    atoms = read(folder / f"{golden_name}.extxyz", "0")
    results = []
    for kind in ("yaml", "yace"):
        atoms.calc = PaceCalculator(folder / f"{golden_name}.{kind}", backend="reference")
        results.append((atoms.get_potential_energy(), atoms.get_forces()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-11)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=0, atol=1e-10)


def test_takes_a_potential(path):
    atoms = bulk("Al")
    energies = []
    for potential in (path, str(path), Potential.load(path)):
        atoms.calc = PaceCalculator(potential, backend="reference")
        energies.append(atoms.get_potential_energy())
    assert energies[0] == energies[1] == energies[2]


def test_mistakes(path):
    copper = bulk("Cu")
    copper.calc = PaceCalculator(path, backend="reference")
    with pytest.raises(PacehpcError, match=r"Cu.*Al, Ni"):
        copper.get_potential_energy()
    with pytest.raises(PacehpcError, match="unknown backend 'gpu'"):
        PaceCalculator(path, backend="gpu")
    with pytest.raises(PacehpcError, match="skin"):
        PaceCalculator(path, backend="reference", skin=-1)


def test_isolated_atom(path):
    atoms = Atoms("Ni", positions=[[0, 0, 0]])
    atoms.calc = PaceCalculator(path, backend="reference")
    assert atoms.get_potential_energy() == pytest.approx(0, abs=1e-14)
    assert not atoms.get_forces().any()
