"""Layouts that are made run by run, to need little memory, are those made at once."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from pacehpc.backends import layout
from pacehpc.structures import Structures


def random_structures(seed: int = 0) -> Structures:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, 40)
    atoms = np.r_[0, np.cumsum(sizes)]
    bonds = rng.integers(0, 12, atoms[-1])
    structure = np.repeat(np.arange(40), sizes)
    owner = np.repeat(structure, bonds)
    return Structures(
        atom_offsets=atoms,
        species=rng.integers(0, 3, atoms[-1]).astype(np.int32),
        bond_offsets=np.r_[0, np.cumsum(bonds)],
        bond_atom=(atoms[owner] + rng.integers(0, sizes[owner])).astype(np.int32),
        bond_vector=rng.normal(size=(bonds.sum(), 3)),
        volumes=np.zeros(40),
        shards=np.array([0, 7, 7, 15, 22, 31, 40]),
    )


@pytest.mark.parametrize("run", [1, 400, 2000])
def test_runs_give_the_same_layout(monkeypatch, run):
    structures = random_structures()
    needed = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    whole = layout.make_layout(structures, 3, 8, 50, needed)
    monkeypatch.setattr(layout, "RUN", run)
    by_runs = layout.make_layout(structures, 3, 8, 50, needed)
    for field in fields(layout.Layout):
        ours, theirs = getattr(by_runs, field.name), getattr(whole, field.name)
        assert ours.dtype == theirs.dtype, field.name
        np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
