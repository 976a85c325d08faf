"""What both compiled backends upload: tables of potentials and targets of structures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.io import read

from pacehpc import Potential
from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.backends.records import record
from pacehpc.backends.tables import targets
from pacehpc.errors import PacehpcError


@pytest.fixture
def case(golden, brute_force):
    """(potential, structures with targets; the stress of two of them is partly or wholly unknown)"""
    potential = Potential.load(golden / "potentials" / "ni_sbessel.yaml")
    s = brute_force(potential, read(golden / "potentials" / "ni_sbessel.extxyz", ":6"))
    random = np.random.default_rng(2)
    s.energy, s.forces = random.normal(size=s.n_structures), random.normal(size=(s.n_atoms, 3))
    s.w_energy, s.w_forces = random.uniform(1, 2, s.n_structures), random.uniform(1, 2, s.n_atoms)
    s.volumes = np.where(s.volumes > 0, s.volumes, 100.0)
    s.volumes[2] = 0
    s.stress = random.normal(0, 0.1, (s.n_structures, 6))
    s.stress[1, 3], s.stress[4] = np.nan, np.nan
    return potential, s


def test_stress_counts_whole_or_not_at_all(case):
    _, s = case
    found = targets(s)["stress"]
    assert np.isnan(found[[1, 2, 4]]).all()
    np.testing.assert_array_equal(found[[0, 3, 5]], s.stress[[0, 3, 5]])
    assert np.isnan(targets(replace(s, stress=None))["stress"]).all()


@pytest.mark.parametrize("name", ["reference", "cpu", "cuda"])
def test_partly_unknown_stress_is_left_out_by_every_backend(case, name, fake_cupy):
    """A row with one NaN is as good as none, in the loss and in the gradient."""
    potential, s = case
    x, loss = potential.parameters, LossWeights(kappa=0.3, stress=0.5)
    without = s.stress.copy()
    without[1] = np.nan
    found = create_evaluator(name, potential, s, loss).evaluate(x)
    expected = create_evaluator(name, potential, replace(s, stress=without), loss).evaluate(x)
    np.testing.assert_array_equal(found.encoded_terms, expected.encoded_terms)
    np.testing.assert_array_equal(found.gradient, expected.gradient)
    reference = create_evaluator("reference", potential, s, loss).evaluate(x)
    np.testing.assert_allclose(found.gradient, reference.gradient, atol=1e-9 * np.abs(reference.gradient).max())
    assert found.terms[5] == 3  # structures with a stress


def test_records_are_those_of_the_sources():
    problem, element = record("Problem"), record("ElementTable")
    assert problem.fields["kappa"][0] == np.float64 and problem.fields["bonds"][0] == np.uint64
    assert element.fields["n_nodes"][0] == np.int64 and element.itemsize % 8 == 0
    assert record("Work").fields["result"][0] == np.uint64
    with pytest.raises(PacehpcError, match=r"no struct Nothing.*install pacehpc again"):
        record("Nothing")
