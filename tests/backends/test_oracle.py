from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from pacehpc import Potential
from pacehpc.backends import oracle
from pacehpc.backends.interface import LossWeights
from pacehpc.backends.oracle import ReferenceEvaluator
from pacehpc.calculator import projections
from pacehpc.errors import PacehpcError


def test_projections(golden, golden_name):
    """B of every atom, function by function."""
    folder = golden / "potentials"
    potential = Potential.load(folder / f"{golden_name}.yaml")
    frames = read(folder / f"{golden_name}.extxyz", ":")
    arrays = np.load(folder / f"{golden_name}.npz")
    labels = [
        tuple(tuple(label[key]) for key in ("type", "nr", "nl", "lint")) for label in json.loads(str(arrays["labels"]))
    ]
    checked = 0
    for k, atoms in enumerate(frames):
        if f"projections_{k}" not in arrays:
            continue
        lengths = arrays[f"projections_len_{k}"]
        expected = np.split(arrays[f"projections_{k}"], np.cumsum(lengths)[:-1])
        for symbol, b, values in zip(atoms.symbols, projections(potential, atoms), expected, strict=True):
            mine = {}
            functions = [f for block in potential.blocks if block.elements[0] == symbol for f in block.functions]
            for f, value in zip(functions, b, strict=True):
                mine[f.elements, f.ns, f.ls, f.LS] = mine[f.elements, f.ns, f.ls, f.LS[:-1]] = value
            ordered = [mine[label] for label in labels if label[0][0] == symbol]
            np.testing.assert_allclose(ordered, values, rtol=0, atol=1e-12 * np.abs(values).max())
            checked += len(values)
    assert checked > 100


def test_projections_of_unknown_element(golden):
    potential = Potential.load(golden / "potentials" / "al_cheblinear.yaml")
    with pytest.raises(PacehpcError, match="Ni"):
        projections(potential, Atoms("AlNi", positions=[[0, 0, 0], [0, 0, 2.5]]))


def test_batches_do_not_matter(golden, brute_force, monkeypatch):
    """One structure at a time or all at once."""
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    frames = read(golden / "potentials" / "alni_mixed.extxyz", ":")
    structures = brute_force(potential, frames)
    rng = np.random.default_rng(0)
    structures.energy = rng.normal(size=structures.n_structures)
    structures.forces = rng.normal(size=(structures.n_atoms, 3))
    structures.w_energy = rng.random(structures.n_structures)
    structures.w_forces = rng.random(structures.n_atoms)
    sums = []
    for size in (1, 10**9):
        monkeypatch.setattr(oracle, "BONDS_PER_BATCH", size)
        sums.append(ReferenceEvaluator(potential, structures, LossWeights(kappa=0.4)).evaluate(potential.parameters))
    np.testing.assert_allclose(sums[0].terms, sums[1].terms, rtol=1e-12)
    np.testing.assert_array_equal(sums[0].maxima, sums[1].maxima)
    np.testing.assert_allclose(sums[0].gradient, sums[1].gradient, rtol=0, atol=1e-12 * np.abs(sums[1].gradient).max())
