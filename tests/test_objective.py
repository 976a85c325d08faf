"""The whole loss against golden values and finite differences; masks, kappa: auto, order of predictions."""

from __future__ import annotations

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.objective import Objective, kappa_auto
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential
from pacehpc.shard import Shard
from pacehpc.structures import Structures

FULL_LOSS = {
    "kappa": 0.4,
    "stress": 0.3,
    "L1_coeffs": 1e-3,
    "L2_coeffs": 2e-3,
    "w0_rad": 1e-3,
    "w1_rad": 2e-3,
    "w2_rad": 3e-3,
    "w_orth": 1e-2,
}


def with_references(structures: Structures, seed: int = 0) -> Structures:
    rng = np.random.default_rng(seed)
    n, atoms = structures.n_structures, structures.n_atoms
    structures.energy, structures.forces = rng.normal(size=n), rng.normal(size=(atoms, 3))
    structures.w_energy, structures.w_forces = np.full(n, 1 / n), np.full(atoms, 1 / atoms)
    structures.stress, structures.low = 0.01 * rng.normal(size=(n, 6)), rng.random(n) < 0.5
    return structures


@pytest.fixture
def case(golden, brute_force):
    import ase.io

    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    frames = sorted(ase.io.read(golden / "potentials" / "alni_mixed.extxyz", ":"), key=len)[:4]
    return potential, with_references(brute_force(potential, frames))


def test_gradient_of_the_whole_loss(case):
    potential, structures = case
    objective = Objective(potential, structures, FULL_LOSS, backend="reference")
    x = objective.x + 1e-3
    _, gradient = objective(x)
    rng = np.random.default_rng(1)
    for _ in range(3):
        d = rng.normal(size=len(x))
        d /= np.linalg.norm(d)
        h = 1e-5
        values = [objective(x + k * h * d, gradient=False)[0] for k in (1, -1, 2, -2)]
        slope = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * h)
        assert gradient @ d == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_contributions_add_up_and_metrics_have_their_names(case):
    potential, structures = case
    objective = Objective(potential, structures, FULL_LOSS, backend="reference")
    value, _ = objective(objective.x)
    m = objective.metrics
    parts = ["l1_reg_contrib", "l2_reg_contrib", "smooth_orth", "smooth_w1", "smooth_w2", "smooth_w3"]
    assert all(m[name] > 0 for name in parts)
    assert m["reg_loss"] == pytest.approx(sum(m[name] for name in parts))
    data = m["e_loss_contrib"] + m["f_loss_contrib"] + m["s_loss_contrib"]
    assert m["loss"] == value == pytest.approx(data + m["reg_loss"])
    # uniform weights: the contributions follow from the errors
    assert m["e_loss_contrib"] == pytest.approx(0.6 * m["rmse_epa"] ** 2)
    assert m["f_loss_contrib"] == pytest.approx(0.4 * 3 * m["rmse_f_comp"] ** 2)
    assert (m["nfuncs"], m["ncoefs"]) == (potential.n_functions, potential.n_parameters)


def test_masked_parameters_stay_and_leave_the_vector(case):
    potential, structures = case
    whole = Objective(potential, structures, FULL_LOSS, backend="reference")
    mask = np.random.default_rng(2).random(potential.n_parameters) < 0.3
    part = Objective(potential, structures, FULL_LOSS, backend="reference", trainable=mask)
    np.testing.assert_array_equal(part.x, potential.parameters[mask])
    x = part.x + 0.01
    full = part.full(x)
    np.testing.assert_array_equal(full[~mask], potential.parameters[~mask])
    value, gradient = part(x)
    expected, slope = whole(full)
    assert value == expected
    np.testing.assert_array_equal(gradient, slope[mask])


def test_fixed_radial_coefficients_get_no_gradient(case):
    """The other components keep their values, on the backend that saves the work."""
    potential, structures = case
    n_radial = sum(c.size for c in potential.radcoefficients.values())
    mask = np.arange(potential.n_parameters) >= n_radial
    whole = Objective(potential, structures, FULL_LOSS, backend="cpu")
    part = Objective(potential, structures, FULL_LOSS, backend="cpu", trainable=mask)
    value, gradient = part(part.x)
    expected, slope = whole(whole.x)
    assert value == expected and np.abs(slope[~mask]).max() > 0
    np.testing.assert_array_equal(gradient, slope[mask])


def test_kappa_auto_is_the_ratio_of_variances(case):
    potential, structures = case
    energies = structures.energy / structures.atoms_per_structure
    forces = np.linalg.norm(structures.forces, axis=1)
    expected = np.var(energies, ddof=1) / (np.var(energies, ddof=1) + np.var(forces))
    assert kappa_auto(structures, Ranks()) == pytest.approx(expected, rel=1e-12)
    objective = Objective(potential, structures, {"kappa": "auto"}, backend="reference")
    assert objective.kappa == pytest.approx(expected, rel=1e-12)


def test_predictions_come_in_the_order_of_the_rows(case):
    potential, structures = case
    objective = Objective(potential, structures, backend="reference")
    straight = objective.predict(objective.x)
    rows = np.array([2, 0, 3, 1])
    mixed = Objective(potential, Shard(structures, rows), backend="reference").predict(objective.x)
    offsets = structures.atom_offsets
    position = 0
    for row in range(4):
        s = int(np.flatnonzero(rows == row)[0])
        n = offsets[s + 1] - offsets[s]
        np.testing.assert_array_equal(
            mixed.energies[position : position + n], straight.energies[offsets[s] : offsets[s + 1]]
        )
        np.testing.assert_array_equal(
            mixed.forces[position : position + n], straight.forces[offsets[s] : offsets[s + 1]]
        )
        np.testing.assert_array_equal(mixed.virials[row], straight.virials[s])
        position += n


def test_test_set_has_metrics_of_its_own(case):
    potential, structures = case
    train, test = structures.select(slice(0, 2)), structures.select(slice(2, 4))
    objective = Objective(potential, train, {"kappa": 0.3}, backend="reference", test=test)
    alone = Objective(potential, test, {"kappa": 0.3}, backend="reference")
    objective(objective.x)
    before = dict(objective.metrics)
    alone(objective.x)
    found = objective.evaluate_test(objective.x)
    assert found == pytest.approx(alone.metrics, nan_ok=True)
    assert objective.metrics == before


def test_each_evaluation_asks_whether_to_stop(case):
    potential, structures = case
    answers = [False, True]
    objective = Objective(potential, structures, backend="reference", stop=lambda: answers.pop(0))
    objective(objective.x, gradient=False)
    assert not objective.stop_requested
    objective(objective.x, gradient=False)
    assert objective.stop_requested and not answers


@pytest.mark.parametrize("loss", [{"kapa": 0.3}, {"kappa": 1.5}, {"kappa": "automatic"}])
def test_wrong_losses_are_named(case, loss):
    potential, structures = case
    with pytest.raises(PacehpcError, match=r"kapa|kappa"):
        Objective(potential, structures, loss, backend="reference")
