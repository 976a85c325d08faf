"""The sketched Jacobian against gradients of the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pacehpc import Objective, load_dataset
from pacehpc.backends.interface import LossWeights
from pacehpc.potential import build_potential
from pacehpc.sketch import RowPlan, Sizes, Sketcher, random_signs

EXAMPLE = Path(__file__).parents[1] / "examples" / "al_ni" / "al_ni.pckl.gzip"
POTENTIAL = {
    "elements": ["Al", "Ni"],
    "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}},
    "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 4.0, "dcut": 0.01}},
    "functions": {"ALL": {"nradmax_by_orders": [3, 1], "lmax_by_orders": [0, 1]}},
}
LOSSES = [{"kappa": 0.0}, {"kappa": 0.4}, {"kappa": 1.0}, {"kappa": 0.4, "stress": 2.0}, {"kappa": 0.0, "stress": 2.0}]
HUBER = {"energy": {"type": "huber", "delta": 0.02}, "forces": {"type": "huber", "delta": 0.2}}
LOSSES.append({"kappa": 0.4, "stress": 2.0, **HUBER})


@pytest.fixture(scope="module")
def data():
    found = load_dataset(EXAMPLE, elements=["Al", "Ni"], reference_energy={"Al": 3.28, "Ni": 4.44})
    forces = np.add.reduceat(np.abs(found.flat_forces).sum(axis=1), found.atom_offsets[:-1])
    small = np.flatnonzero((found.atoms_per_structure <= 8) & (forces > 1e-3))[:8]
    still = np.flatnonzero((found.atoms_per_structure == 1) & (forces < 1e-3))[:2]
    return found.subset(np.sort(np.concatenate([small, still])))


def with_stress(structures):
    """Stresses of all structures but the first, made up."""
    structures.stress = 0.01 * np.random.default_rng(5).normal(size=(structures.n_structures, 6))
    structures.stress[0] = np.nan
    structures.volumes = np.where(structures.volumes > 0, structures.volumes, 0.0)
    structures.stress[structures.volumes == 0] = np.nan
    return structures


def objective(data, loss, backend="reference", trainable=None, shards=None):
    potential = build_potential(POTENTIAL)
    rng = np.random.default_rng(2)
    potential.parameters = potential.parameters + 0.05 * rng.normal(size=len(potential.parameters))
    structures = data.structures(potential)
    structures.shards = shards
    if loss.get("stress"):
        structures = with_stress(structures)
    return Objective(potential, structures, loss=loss, backend=backend, trainable=trainable)


def rows_of(found, plan, seed, renewal):
    """Rows of a sketch on this rank alone."""
    structures, evaluator = found.shards["train"].structures, found._evaluators["train"]
    return Sketcher(evaluator, structures, found._weights, 0, found.trainable).rows(
        found.full(found.x), plan, seed, renewal
    )


def residuals(found, x, every):
    """Weighted residuals in the order of the rows of a sketch that has each of them once.

    With Huber's loss the weights are those of iteratively reweighted least squares.
    """

    def factor(r, kind):
        delta = found.loss[kind]["delta"] if found.loss[kind] else np.inf
        return np.minimum(1, delta / np.maximum(r, 1e-300))

    s, kappa, stress = found.shards["train"].structures, found.kappa, found.loss["stress"]
    predicted = found.predict(x)
    values = []
    for k in range(s.n_structures):
        atoms = slice(s.atom_offsets[k], s.atom_offsets[k + 1])
        n = atoms.stop - atoms.start
        if every.energies:
            energy = predicted.energies[atoms].sum() - s.energy[k]
            weight = (1 - kappa) * s.w_energy[k] * factor(abs(energy) / n, "energy")
            values.append(np.sqrt(weight) / n * energy)
        if every.combinations:
            forces = predicted.forces[atoms] - s.forces[atoms]
            weight = kappa * s.w_forces[atoms] * factor(np.linalg.norm(forces, axis=1), "forces")
            values += (np.sqrt(weight)[:, None] * forces).ravel().tolist()
            if stress:
                xx, yy, zz, yz, xz, xy = s.stress[k] * s.volumes[k]
                reference = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
                difference = np.nan_to_num(predicted.virials[k] - reference)
                values += (np.sqrt(stress * s.w_energy[k]) / n * difference).ravel().tolist()
    return np.array(values)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_whole_jacobian_gives_the_gradient_of_the_loss(data, loss, backend):
    found = objective(data, loss, backend)
    forces = loss["kappa"] > 0 or "stress" in loss
    every = RowPlan(int(found.sizes.residuals.max()) if forces else 0, 1, loss["kappa"] < 1)
    rows = rows_of(found, every, 1, 0)
    assert len(rows) == every.energies * found.sizes.n_structures + found.sizes.rows(every.combinations)
    _, gradient = found(found.x)
    np.testing.assert_allclose(
        2 * rows.T @ residuals(found, found.x, every), gradient, rtol=1e-9, atol=1e-10 * np.abs(gradient).max()
    )


class Linear:
    """An evaluator of a model that is linear in n parameters."""

    def __init__(self, structures, n):
        rng = np.random.default_rng(3)
        self.structures = structures
        self.energies = rng.normal(size=(structures.n_structures, n))
        self.forces = rng.normal(size=(structures.n_atoms, 3, n))
        self.virials = rng.normal(size=(structures.n_structures, 3, 3, n))
        self.virials += self.virials.swapaxes(1, 2)

    def rows(self, parameters, kind, directions=None, strains=None):
        s = self.structures
        for k in range(s.n_structures):
            atoms = slice(s.atom_offsets[k], s.atom_offsets[k + 1])
            found = [self.energies[k]] if "energy" in kind else []
            for q in range(0 if directions is None else len(directions)):
                row = np.tensordot(directions[q, atoms], self.forces[atoms], 2)
                found.append(row if strains is None else row + np.tensordot(strains[q, k], self.virials[k], 2))
            yield slice(k, k + 1), np.array([found])


@pytest.mark.parametrize("plan", [RowPlan(2, 1, True), RowPlan(1, 3, True), RowPlan(3, 1, False)], ids=str)
def test_random_rows_are_right_on_average(data, plan):
    """Of separate and of added structures, beside the whole Jacobian."""
    s = with_stress(data.structures(build_potential(POTENTIAL)))
    s.shards = np.array([0, 4, s.n_structures])
    sketcher = Sketcher(Linear(s, 12), s, LossWeights(0.4, 2.0), 0, np.ones(12, bool))
    whole = sketcher.rows(np.zeros(12), RowPlan(int(sketcher.residuals.max()), 1, plan.energies), 1, 0)
    expected = whole.T @ whole
    products = [(rows := sketcher.rows(np.zeros(12), plan, 1, k)).T @ rows for k in range(400)]
    deviations = [np.linalg.norm(product - expected) for product in products]
    assert np.linalg.norm(np.mean(products, axis=0) - expected) < 2 * np.median(deviations) / np.sqrt(400)
    assert len(sketcher.rows(np.zeros(12), plan, 1, 0)) == sum(sketcher.groups(plan)[1])


def test_rows_of_the_trainable_parameters_alone(data):
    whole = objective(data, {"kappa": 0.4})
    trainable = np.arange(len(whole.x)) % 3 == 0
    part = objective(data, {"kappa": 0.4}, trainable=trainable)
    plan = RowPlan(2, 1, True)
    np.testing.assert_array_equal(rows_of(part, plan, 7, 3), rows_of(whole, plan, 7, 3)[:, trainable])


@pytest.mark.parametrize("plan", [RowPlan(2, 1, True), RowPlan(1, 3, True), RowPlan(4, 1, False)], ids=str)
def test_the_same_rows_however_virtual_shards_are_spread(data, plan, backend):
    """Two evaluators of parts of the data, as on two ranks."""
    found = objective(data, {"kappa": 0.4}, backend, shards=np.array([0, 3, 4, 7, len(data)]))
    potential, s = found.potential, found.shards["train"].structures
    whole = rows_of(found, plan, 5, 2)
    parts = []
    for first, last in ((0, 2), (2, 4)):
        part = s.select(slice(s.shards[first], s.shards[last]))
        part.shards = s.shards[first : last + 1] - s.shards[first]
        evaluator = objective_of(potential, part, backend)
        weights, columns = found._weights, np.ones(len(found.x), bool)
        parts.append(Sketcher(evaluator, part, weights, int(s.shards[first]), columns).rows(found.x, plan, 5, 2))
    if backend == "reference":
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-10, atol=1e-13)
    else:
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def objective_of(potential, structures, backend):
    return Objective(potential, structures, loss={"kappa": 0.4}, backend=backend)._evaluators["train"]


def test_a_rank_without_structures_has_no_rows(data):
    found = objective(data, {"kappa": 0.4})
    none = found.shards["train"].structures.select(slice(0, 0))
    sketcher = Sketcher(Linear(none, len(found.x)), none, found._weights, 10, found.trainable)
    for plan in (RowPlan(2, 1, True), RowPlan(1, 3, True)):
        assert sketcher.rows(found.x, plan, 1, 0).shape == (0, len(found.x))


def test_sizes_are_added():
    a = Sizes(np.array([3, 6]), np.array([2, 1]), np.array([4, 0]), 10)
    b = Sizes(np.array([6, 9]), np.array([1, 5]), np.array([1, 16]), 20)
    both = Sizes.added([a, b])
    assert both.residuals.tolist() == [3, 6, 9] and both.counts.tolist() == [2, 2, 5]
    assert both.species.tolist() == [5, 16] and both.n_bonds == 30 and both.n_structures == 9
    assert both.rows(4) == 2 * 3 + 7 * 4


def test_signs_are_fair_and_follow_the_key():
    signs = random_signs((1, 2, 3), 10_000)
    assert set(signs.tolist()) == {-1.0, 1.0} and abs(signs.mean()) < 0.04
    np.testing.assert_array_equal(signs[:100], random_signs((1, 2, 3), 100))
    assert not np.array_equal(signs[:100], random_signs((1, 2, 4), 100))
    # the first bits of a stream that numpy keeps
    assert random_signs((1, 2, 3), 8).tolist() == random_signs((1, 2, 3), 64).tolist()[:8]
