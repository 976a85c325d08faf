"""Neighbour lists against a sum over images that tries everything."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms

from pacehpc.dataset import structures_of
from pacehpc.dataset.neighbours import _by_tree, complete_cells, find_neighbours, raw_lists


def images(positions, cell, pbc, cutoff):
    """Set of (i, j, S1, S2, S3) with 0 < r < cutoff."""
    periodic = [d for d in range(3) if pbc[d]]
    reach = [0, 0, 0]
    if periodic:
        dual = np.linalg.pinv(cell[periodic])
        longest = cutoff + np.ptp(positions, axis=0).sum()
        for column, d in enumerate(periodic):
            reach[d] = int(np.ceil(longest * np.linalg.norm(dual[:, column]))) + 1
    shifts = np.array(list(itertools.product(*[range(-n, n + 1) for n in reach])))
    found = set()
    for i, j in itertools.product(range(len(positions)), repeat=2):
        r = np.linalg.norm(positions[j] - positions[i] + shifts @ cell, axis=1)
        for k in np.nonzero((r < cutoff) & (r > 0))[0]:
            found.add((i, j, *map(int, shifts[k])))
    return found


def cases():
    random = np.random.default_rng(3)
    for number in range(80):
        pbc = np.array([number & 1, number & 2, number & 4], bool)
        cell = np.diag(random.uniform(1.5, 8, 3))
        kind = (number // 8) % 5
        if kind == 1:
            cell += random.normal(0, 1.0, (3, 3))
        elif kind == 2:
            cell = np.diag(random.uniform(0.9, 1.6, 3))  # far smaller than the cutoff
        elif kind == 3:
            cell[1] += 2.3 * cell[0]  # skewed
            cell[2] -= 0.7 * cell[1]
        elif kind == 4:
            cell[~pbc] = 0  # open directions without a cell vector
        n_atoms = int(random.integers(1, 5))
        positions = random.uniform(-1, 1, (n_atoms, 3)) * random.choice([1, 4, 15])  # many far outside the cell
        yield positions, cell, pbc, float(random.uniform(1.5, 4.5))


def as_set(i, j, shift):
    found = list(zip(i.tolist(), j.tolist(), *np.asarray(shift).T.tolist(), strict=True))
    assert len(set(found)) == len(found), "a bond twice"
    return set(found)


def test_all_images_within_the_cutoff():
    largest = 0
    for positions, cell, pbc, cutoff in cases():
        expected = images(positions, cell, pbc, cutoff)
        by_tree = _by_tree(positions, complete_cells(cell[None], pbc[None])[0], pbc, cutoff)
        (found,) = raw_lists(np.array([0, len(positions)]), positions, cell[None], pbc[None], cutoff)
        assert as_set(*found) == expected, (cell, pbc, cutoff)
        assert as_set(*by_tree) == expected, (cell, pbc, cutoff)
        largest = max(largest, len(expected))
    assert largest > 300


@pytest.mark.parametrize("pbc", [(1, 0, 0), (1, 1, 0), (1, 1, 1), (0, 0, 0)])
@pytest.mark.parametrize("length", [1e3, 1e6])
def test_huge_extents_are_harmless(pbc, length):
    cell = np.diag([3.0, 3.0 if pbc[1] else 0.0, length if pbc[2] else 0.0])
    positions = np.array([[0, 0, 0], [0.5, 0, 0], [0.0, 0.0 if pbc[1] else length, length / 2]])
    (found,) = raw_lists(np.array([0, 3]), positions, cell[None], np.array([pbc], bool), 4.0)
    near = images(positions[:2], cell, np.array(pbc, bool) & (np.diag(cell) < 10), 4.0)
    lone = {(2, 2, *s[2:]) for s in near if s[0] == s[1] == 0}
    assert as_set(*found) == near | lone


def test_each_bond_has_its_own_cutoff():
    random = np.random.default_rng(5)
    offsets = np.array([0, 5, 6, 12])
    positions, species = random.uniform(0, 4, (12, 3)), random.integers(0, 2, 12).astype(np.int32)
    cells = np.array([np.eye(3) * 4.1, np.eye(3) * 2.0, np.eye(3) * 5.0])
    pbc = np.array([[True] * 3, [True] * 3, [True, True, False]])
    cutoffs = np.array([[3.0, 3.7], [2.4, 4.2]])
    found, vectors = find_neighbours(offsets, positions, cells, pbc, species, cutoffs)
    expected, got = set(), set()
    for s in range(3):
        first, last = offsets[s : s + 2]
        for i, j, *shift in images(positions[first:last], cells[s], pbc[s], 4.2):
            r = np.linalg.norm(positions[first + j] - positions[first + i] + np.array(shift) @ cells[s])
            if r < cutoffs[species[first + i], species[first + j]]:
                expected.add((first + i, first + j, *shift))
    for i in range(12):
        for b in range(found.offsets[i], found.offsets[i + 1]):
            s = np.searchsorted(offsets, i, side="right") - 1
            got.add((i, int(found.atom[b]), *found.shift[b].tolist()))
            r = positions[found.atom[b]] - positions[i] + found.shift[b] @ cells[s]
            assert np.abs(r - vectors[b]).max() < 1e-12
    assert got == expected and len(found.atom) == len(expected)


def test_a_bond_at_the_cutoff_is_outside():
    potential = SimpleNamespace(elements=("Al",), bonds={("Al", "Al"): SimpleNamespace(rcut=2.0)})
    structures = structures_of(
        [Atoms("Al2", [[0, 0, 0], [0, 0, 2.0]]), Atoms("Al2", [[0, 0, 0], [0, 0, 1.999]])], potential
    )
    assert np.diff(structures.bond_offsets).tolist() == [0, 0, 1, 1]
    assert structures.volumes.tolist() == [0, 0]


def test_many_structures_in_chunks(monkeypatch):
    random = np.random.default_rng(8)
    sizes = random.integers(1, 6, 40)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    positions, cells = random.uniform(0, 5, (offsets[-1], 3)), np.tile(np.eye(3) * 5, (40, 1, 1))
    args = (offsets, positions, cells, np.ones((40, 3), bool), np.zeros(offsets[-1], np.int32), np.array([[3.0]]))
    whole, vectors = find_neighbours(*args)
    monkeypatch.setattr("pacehpc.dataset.neighbours._CHUNK_ATOMS", 7)
    cut, cut_vectors = find_neighbours(*args)
    assert len(whole.atom) > 50
    for a, b in (
        (whole.offsets, cut.offsets),
        (whole.atom, cut.atom),
        (whole.shift, cut.shift),
        (vectors, cut_vectors),
    ):
        np.testing.assert_array_equal(a, b)


def test_golden_structures(golden, golden_name, brute_force):
    """The same bonds as a sum over all images finds, with the cutoffs of each golden potential."""
    from ase.io import read

    from pacehpc.potential import Potential

    potential = Potential.load(golden / "potentials" / f"{golden_name}.yaml")
    frames = read(golden / "potentials" / f"{golden_name}.extxyz", ":")
    got, expected = structures_of(frames, potential), brute_force(potential, frames)
    np.testing.assert_array_equal(got.bond_offsets, expected.bond_offsets)
    np.testing.assert_allclose(got.volumes, expected.volumes, rtol=1e-12)

    def bonds(s):
        centre = np.repeat(np.arange(s.n_atoms), np.diff(s.bond_offsets))
        table = np.column_stack([centre, s.bond_atom, s.bond_vector])
        return table[np.lexsort(np.round(table, 6).T[::-1])]

    np.testing.assert_allclose(bonds(got), bonds(expected), rtol=0, atol=1e-10)
