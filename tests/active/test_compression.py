"""Compression of structures, with grades that are known functions of the distance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from vesin import ase_neighbor_list

from pacehpc.active.augmentation import Ranges, augmented, zbl
from pacehpc.active.compression import compressed, nearest_distance, shortest_reliable


def grades(structures: list[Atoms]) -> list[np.ndarray]:
    """1 down to a nearest distance of 2 Å, then rising steeply."""
    return [np.full(len(a), np.exp(50 * max(0.0, 2.0 - nearest_distance(a)))) for a in structures]


def test_nearest_distance() -> None:
    assert nearest_distance(bulk("Cu", "fcc", a=3.6)) == pytest.approx(3.6 / np.sqrt(2))
    assert nearest_distance(molecule("H2O")) == pytest.approx(0.9685, abs=1e-3)
    assert nearest_distance(bulk("Cs", "bcc", a=9.0)) == pytest.approx(9.0 * np.sqrt(3) / 2)
    assert nearest_distance(Atoms("H")) == np.inf


def test_compressed_series() -> None:
    series = list(compressed(bulk("Cu", "fcc", a=3.6), 1.5, 0.25, 2.25))
    assert [d for d, _ in series] == pytest.approx([2.25, 2.0, 1.75, 1.5])
    for distance, atoms in series:
        assert nearest_distance(atoms) == pytest.approx(distance)
    assert list(compressed(Atoms("H"), 1.0, 0.1)) == []


def test_shortest_reliable_distance_of_each_bond() -> None:
    ordered = bulk("NiAl", "cesiumchloride", a=2.9)
    found = shortest_reliable([ordered], grades, 10.0, step=0.02)
    nearest = 2.0 - np.log(10.0) / 50
    assert found["Al", "Ni"] == pytest.approx(nearest, abs=0.021)
    assert found["Al", "Al"] == pytest.approx(nearest * 2 / np.sqrt(3), abs=0.025)
    assert ("Ni", "Ni") in found
    assert shortest_reliable([ordered], lambda s: [np.full(len(a), 99.0) for a in s], 10.0) == {}


def test_zbl_forces_are_the_slope_of_the_energy() -> None:
    atoms = bulk("NiAl", "cesiumchloride", a=2.2)
    atoms.rattle(0.1, seed=1)
    _, forces = zbl(atoms, 2.5)
    for axis in range(3):
        moved = []
        for sign in (1, -1):
            other = atoms.copy()
            other.positions[0, axis] += sign * 1e-5
            moved.append(zbl(other, 2.5)[0])
        assert forces[0, axis] == pytest.approx((moved[1] - moved[0]) / 2e-5, rel=1e-6, abs=1e-7)


def test_augmented_structures() -> None:
    """A Morse crystal: near the reliable range the labels are its energies, far below they are ZBL's."""
    seed = bulk("Cu", "fcc", a=3.6)

    def energies(structures: list[Atoms]) -> np.ndarray:
        pairs = [ase_neighbor_list("d", atoms, 7.0)[0] for atoms in structures]
        return np.array([0.175 * ((1 - np.exp(-1.5 * (r - 2.6))) ** 2 - 1).sum() for r in pairs])

    labels = augmented(seed, energies, grades, Ranges(shortest=1.2, highest=1000.0))
    kinds = {label.kind for label in labels}
    assert kinds == {"zbl", "eos"}
    for label in labels:
        distance = nearest_distance(label.atoms)
        assert distance < 2.0
        assert label.energy <= 1000.0
        if label.kind == "zbl":
            assert label.energy == pytest.approx(zbl(label.atoms, nearest_distance(seed))[0])
            assert np.isfinite(label.forces).all()
        else:
            assert np.isnan(label.forces).all()
        if distance > 1.8:
            assert label.energy == pytest.approx(energies([label.atoms])[0], abs=0.5)
    by_distance = sorted(labels, key=lambda label: nearest_distance(label.atoms))
    assert all(a.energy > b.energy for a, b in pairwise(by_distance))
    fewer = augmented(seed, energies, grades, Ranges(shortest=1.2, highest=20.0))
    assert 0 < len(fewer) < len(labels)
    assert all(label.energy <= 20.0 for label in fewer)
