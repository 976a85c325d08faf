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
        atoms.set_cell(atoms.cell.array * 1.001)
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
