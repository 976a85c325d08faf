"""The uncertainty of a small potential beside a dense computation with finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.dataset.groups import group_labels
from pacehpc.errors import PacehpcError
from pacehpc.parallel import Ranks
from pacehpc.shard import Shard, shard
from pacehpc.uncertainty import build as build_module
from pacehpc.uncertainty import parts
from pacehpc.uncertainty.build import build
from pacehpc.uncertainty.calibration import LeftOut, calibrate
from pacehpc.uncertainty.deviations import deviations
from pacehpc.uncertainty.rows import cluster_rows, evaluator_maker, is_large, run_rows

LOSS = LossWeights(0.3, 0.0)
STRESS = LossWeights(0.3, 2.0)


def labels_of(data):
    return group_labels(data.names, data.info)


def values_of(potential, structures, parameters):
    """Energies per atom, forces and virials of all structures in one vector each."""
    prediction = create_evaluator("reference", potential, structures, LossWeights(stress=1.0)).predict(parameters)
    energies = np.add.reduceat(prediction.energies, structures.atom_offsets[:-1]) / structures.atoms_per_structure
    return energies, prediction.forces.ravel(), prediction.virials.reshape(-1)


@pytest.fixture(scope="module")
def dense(data, potential):
    """(residuals, Jacobian) of energies per atom, forces and virials by finite differences."""
    s, x, h = data.structures(potential), potential.parameters, 1e-5
    columns = []
    for k in range(len(x)):
        step = h * np.eye(len(x))[k]
        both = values_of(potential, s, x + step), values_of(potential, s, x - step)
        columns.append([(a - b) / (2 * h) for a, b in zip(*both, strict=True)])
    values = values_of(potential, s, x)
    references = s.energy / s.atoms_per_structure, s.forces.ravel(), np.zeros(9 * s.n_structures)
    residuals = [a - b for a, b in zip(values, references, strict=True)]
    return residuals, [np.array(parts).T for parts in zip(*columns, strict=True)]


@pytest.fixture(params=[LOSS, STRESS], ids=["forces", "stress"])
def loss(request):
    return request.param


def expected(dense, s, loss, structure=None):
    """(errors, s) of energies per atom and forces by dense algebra; structure: its own alone, from a fit without it."""
    (r_e, r_f, r_v), (j_e, j_f, j_v) = dense
    owner_e = np.arange(s.n_structures)
    owner_f = np.repeat(owner_e, 3 * s.atoms_per_structure)
    owner_v = np.repeat(owner_e, 9)
    known = s.has_stress if s.stress is not None else np.zeros(s.n_structures, bool)
    w_v = loss.stress * (s.w_energy / s.atoms_per_structure**2 * known)[owner_v]
    w = np.concatenate([(1 - loss.kappa) * s.w_energy, loss.kappa * np.repeat(s.w_forces, 3), w_v])
    r, j = np.concatenate([r_e, r_f, r_v]), np.concatenate([j_e, j_f, j_v])
    owner = np.concatenate([owner_e, owner_f, owner_v])
    matrix = j.T @ (w[:, None] * j)
    diagonal = np.diag(matrix)
    matrix = matrix + np.diag(1e-6 * diagonal + 1e-14 * diagonal.max())
    n = len(r_e) + len(r_f)
    if structure is None:
        return r[:n], np.sqrt(np.einsum("rn,nr->r", j[:n], np.linalg.solve(matrix, j[:n].T)))
    own = owner == structure
    matrix = matrix - j[own].T @ (w[own, None] * j[own])
    shift = np.linalg.solve(matrix, j[own].T @ (w[own] * r[own]))
    own &= np.arange(len(owner)) < n
    return (r + j @ shift)[own], np.sqrt(np.einsum("rn,nr->r", j[own], np.linalg.solve(matrix, j[own].T)))


def test_deviations_are_those_of_dense_algebra(data, potential, dense, backend):
    """σ of the training data, and the calibration behind it, from errors of each structure left out."""
    s, ranks = data.structures(potential), Ranks()
    labels = labels_of(data)
    found = build(potential, shard(data, potential, ranks), ranks, backend, LOSS, labels)
    kinds = {"energies": ([], []), "forces": ([], [])}
    owners = {"energies": np.arange(len(data)), "forces": np.repeat(np.arange(len(data)), 3 * s.atoms_per_structure)}
    for k in range(len(data)):
        errors, spread = expected(dense, s, LOSS, k)
        for kind, part in (("energies", slice(0, 1)), ("forces", slice(1, None))):
            kinds[kind][0].append(errors[part])
            kinds[kind][1].append(spread[part])
    for kind, (errors, spread) in kinds.items():
        wanted = calibrate(LeftOut(np.concatenate(errors), np.concatenate(spread), owners[kind]), labels, found.groups)
        scale = getattr(found, kind)
        assert scale.alpha == pytest.approx(wanted.alpha, rel=1e-4)
        assert scale.rmse == pytest.approx(wanted.rmse, rel=1e-4)
        np.testing.assert_allclose(scale.quantiles, wanted.quantiles, rtol=2e-3)
    _, spread = expected(dense, s, LOSS)
    own = list(deviations(found, potential, backend, s))
    per_atom = np.array([one.energy for one in own]) / s.atoms_per_structure
    np.testing.assert_allclose(per_atom, found.energies.sigma(spread[: len(data)]), rtol=1e-4)
    forces = np.concatenate([one.forces.ravel() for one in own])
    np.testing.assert_allclose(forces, found.forces.sigma(spread[len(data) :]), rtol=1e-4)


def with_stress(data, potential):
    """This rank's structures with stresses, unknown in the first."""
    own = shard(data, potential, Ranks())
    own.structures.stress = 0.01 * np.random.default_rng(5).normal(size=(len(data), 6))
    own.structures.stress[0] = np.nan
    return own


def test_stress_takes_part_in_the_matrix(data, potential, backend):
    """Rows of the virial, beside half the Hessian that finite differences of the gradient's rows give."""
    own = with_stress(data, potential)
    found = np.concatenate([p.rows for p in parts.every_part(potential, own, backend, STRESS, all_of(potential))])
    without = np.concatenate([p.rows for p in parts.every_part(potential, own, backend, LOSS, all_of(potential))])
    s = own.structures
    x, h, weights = potential.parameters, 1e-5, STRESS.stress * s.w_energy / s.atoms_per_structure**2 * s.has_stress
    jacobian = [
        (values_of(potential, s, x + h * e)[2] - values_of(potential, s, x - h * e)[2]) / (2 * h)
        for e in np.eye(len(x))
    ]
    jacobian = np.sqrt(np.repeat(weights, 9))[:, None] * np.array(jacobian).T
    added = found.T @ found - without.T @ without
    np.testing.assert_allclose(added, jacobian.T @ jacobian, rtol=1e-5, atol=1e-7 * np.abs(added).max())


def all_of(potential):
    return np.ones(potential.n_parameters, bool)


def test_gradients_of_parts_are_those_of_the_loss(data, potential, backend, loss):
    """With all rows and with combined ones, stress included."""
    own = with_stress(data, potential)
    evaluator = create_evaluator(backend, potential, own.structures, loss)
    gradient = evaluator.evaluate(potential.parameters).gradient
    for made in (
        parts.every_part(potential, own, backend, loss, all_of(potential)),
        parts.combined_parts(potential, own, backend, loss, all_of(potential), 5, 0),
    ):
        total = sum(2 * part.gradient @ part.derivatives for part in made)
        np.testing.assert_allclose(total, gradient, rtol=1e-8, atol=1e-10 * np.abs(gradient).max())


def test_combined_rows_give_about_the_same(data, potential, monkeypatch):
    """Deviations from random combinations rank as those from all rows, and the calibration holds."""
    own = shard(data, potential, Ranks())
    labels = labels_of(data)
    every = build(potential, own, Ranks(), "cpu", LOSS, labels)
    monkeypatch.setattr(parts, "MOST_ENTRIES", 0)
    few = build(potential, own, Ranks(), "cpu", LOSS, labels)
    assert every.origin["matrix"] == "all force components"
    assert "random combinations" in few.origin["matrix"]
    s = data.structures(potential)
    a, b = (np.concatenate([d.forces.ravel() for d in deviations(u, potential, "cpu", s)]) for u in (every, few))
    seen = every.forces.sigma(np.zeros(1))[0] * 2 < a
    assert np.corrcoef(np.log(a[seen]), np.log(b[seen]))[0, 1] > 0.9
    assert np.exp(np.median(np.log(b[seen] / a[seen]))) == pytest.approx(1.0, abs=0.35)


def test_sampled_components_depend_on_the_structure_alone():
    assert parts.sampled(3, 4).tolist() == [0, 1, 2, 3]
    for number in range(20):
        found = parts.sampled(number, 300)
        assert len(found) == parts.SAMPLED == len(set(found.tolist())) and found.max() < 300
        np.testing.assert_array_equal(found, parts.sampled(number, 300))
    assert parts.sampled(1, 300).tolist() != parts.sampled(2, 300).tolist()


def test_only_fitted_parameters_count(data, potential):
    trainable = np.arange(potential.n_parameters) >= 12
    own = shard(data, potential, Ranks())
    found = build(potential, own, Ranks(), "cpu", LOSS, labels_of(data), trainable)
    assert found.factor.shape == (trainable.sum(), trainable.sum())
    rows = np.random.default_rng(1).normal(size=(2, potential.n_parameters))
    rows[1] = np.where(trainable, rows[0], -7.0)
    first, second = found.s(rows)
    assert first == second


def test_rows_of_clusters_are_those_of_the_structure(potential, backend):
    from ase.build import bulk

    from pacehpc.dataset import structures_of

    atoms = bulk("Ni", cubic=True).repeat((2, 2, 2))
    atoms.symbols[::3] = "Al"
    atoms.rattle(0.1, seed=3)
    structure = structures_of([atoms], potential)
    assert not is_large(structure) and is_large(structures_of([atoms.repeat(3)], potential))
    make = evaluator_maker(potential, backend)
    whole = next(run_rows(make(structure), structure, potential.parameters, stress=False))[1:]
    found = np.concatenate(list(cluster_rows(make, structure, potential.parameters)))
    np.testing.assert_allclose(found, whole, rtol=1e-10, atol=1e-12 * np.abs(whole).max())


def test_too_much_memory_is_refused_before_it_is_allocated(data, potential, monkeypatch):
    monkeypatch.setattr(build_module, "available_memory", lambda: 10_000)
    with pytest.raises(PacehpcError, match=r"uncertainty: \d+ parameters and \d+ rows .* GiB on rank 0, more than"):
        build(potential, shard(data, potential, Ranks()), Ranks(), "cpu", LOSS, labels_of(data))


def test_parameters_that_no_value_depends_on_have_no_say(data, potential):
    """Without Ni in the data its functions have zero columns; they get a finite factor and change nothing."""
    rows = [k for k, atoms in enumerate(data.atoms) if set(atoms.symbols) == {"Al"}]
    if len(rows) < 3:
        rows = list(range(5))
    own = Shard(data.subset(rows).structures(potential))
    found = build(potential, own, Ranks(), "cpu", LOSS, np.full(len(rows), "all"))
    assert np.isfinite(found.factor).all()
    assert all(np.isfinite(d.energy) for d in deviations(found, potential, "cpu", own.structures))
