"""Many structures in one call, threads, and lists that are used again, on the kernels that LAMMPS runs as well."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read

from pacehpc import PaceCalculator
from pacehpc.errors import PacehpcError


@pytest.fixture
def path(golden):
    return golden / "potentials" / "alni_mixed.yaml"


@pytest.mark.parametrize("threads", [1, 3])
def test_many_structures_in_one_call(path, golden, backend, threads):
    """Crystals, slabs, clusters, dimers, single atoms and no atoms at all: golden values, in any order."""
    folder = golden / "potentials"
    reference = np.load(folder / "alni_mixed.npz")
    frames = read(folder / "alni_mixed.extxyz", ":")
    order = np.random.default_rng(1).permutation(len(frames))
    calculator = PaceCalculator(path, backend=backend, threads=threads)
    mixed = [frames[k] for k in order]
    if backend == "cpu":
        mixed.insert(3, Atoms(pbc=True, cell=[5, 5, 5]))
        order = np.insert(order, 3, -1)
    found = calculator.calculate_many(mixed)
    assert len(found) == len(order)
    for k, atoms, results in zip(order, mixed, found, strict=True):
        if k < 0:
            assert results["energy"] == 0 and results["forces"].shape == (0, 3)
            continue
        np.testing.assert_allclose(results["energies"], reference[f"energies_{k}"], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(results["forces"], reference[f"forces_{k}"], rtol=0, atol=5e-9)
        if atoms.pbc.all():
            np.testing.assert_allclose(results["stress"], reference[f"stress_{k}"], rtol=0, atol=5e-10)
        assert ("stress" in results) == atoms.pbc.all()
    assert calculator.calculate_many([]) == []


def test_atoms_outside_of_a_skewed_cell(path):
    """Bins, images and unwrapped atoms of a large structure: as the reference backend has them."""
    atoms = bulk("Al", a=3.9) * (5, 5, 5)
    atoms.symbols[::3] = "Ni"
    atoms.rattle(0.1, seed=2)
    rng = np.random.default_rng(5)
    atoms.positions += rng.integers(-3, 4, size=(len(atoms), 3)) @ atoms.cell.array
    cluster = atoms.copy()
    cluster.wrap()
    cluster.pbc, cluster.cell = False, None
    for frame in (atoms, cluster):
        results = []
        for backend in ("cpu", "reference"):
            frame.calc = PaceCalculator(path, backend=backend, skin=0.3)
            results.append((frame.get_potential_energy(), frame.get_forces()))
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-11)
        np.testing.assert_allclose(results[0][1], results[1][1], rtol=0, atol=1e-10 * abs(results[1][1]).max())


def test_lists_are_used_again(path):
    """Moves of less than half the skin need no new list; larger ones, other elements and other cells do."""
    atoms = bulk("Al", cubic=True) * (2, 2, 2)
    calculator = atoms.calc = PaceCalculator(path, backend="cpu", skin=0.4)
    for move, builds in ((0.0, 1), (0.15, 1), (-0.1, 1), (0.25, 2), (0.1, 2)):
        atoms.positions[3, 1] += move
        atoms.get_potential_energy()
        assert calculator._moving.builds == builds
    atoms.symbols[0] = "Ni"
    atoms.get_potential_energy()
    assert calculator._moving.builds == 3
    atoms.get_potential_energy()
    assert calculator._moving.builds == 3


def test_mistakes(path):
    calculator = PaceCalculator(path, backend="cpu")
    with pytest.raises(PacehpcError, match=r"Cu2 contains Cu; the potential knows Al, Ni only"):
        calculator.calculate_many([bulk("Al"), bulk("Cu") * (1, 1, 2)])
    atoms = bulk("Al", cubic=True)
    atoms.positions[1, 2] = np.nan
    with pytest.raises(PacehpcError, match="not a number"):
        calculator.calculate_many([atoms])


def test_tables_of_another_interface_are_refused(path, monkeypatch):
    monkeypatch.setattr("pacehpc.backends.program.INTERFACE", 0)
    with pytest.raises(PacehpcError, match="install pacehpc again"):
        PaceCalculator(path, backend="cpu")
