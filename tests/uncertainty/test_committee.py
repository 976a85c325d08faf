"""Committees of potentials, against the linearised standard deviations and as the command writes them."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from pacehpc import PaceCalculator, Potential
from pacehpc.backends.interface import LossWeights
from pacehpc.errors import PacehpcError
from pacehpc.parallel import Ranks
from pacehpc.shard import shard
from pacehpc.uncertainty.build import build
from pacehpc.uncertainty.committee import Committee, typical_sizes


@pytest.fixture(scope="module")
def uncertainty(potential, data):
    ranks = Ranks.world()
    return build(potential, shard(data, potential, ranks), ranks, "cpu", LossWeights(0.3, 0.0), np.array(data.names))


def smaller(uncertainty, factor):
    """With scales smaller by a factor and no floor."""
    scales = {
        kind: dataclasses.replace(
            getattr(uncertainty, kind), alpha=getattr(uncertainty, kind).alpha * factor, floor=0.0
        )
        for kind in ("energies", "forces")
    }
    return dataclasses.replace(uncertainty, **scales)


def values(potential, frames):
    """Energies, then force components, of all frames."""
    calculator = PaceCalculator(potential, backend="cpu")
    found = []
    for atoms in frames:
        atoms = atoms.copy()
        atoms.calc = calculator
        found.append(np.append(atoms.get_potential_energy(), atoms.get_forces()))
    return np.concatenate(found)


def forces(potential, frames):
    """Force components of all frames."""
    starts = np.cumsum([0, *(1 + 3 * len(atoms) for atoms in frames)])[:-1]
    return np.delete(values(potential, frames), starts)


def test_spread_is_that_of_the_linearised_model(uncertainty, potential, data):
    """With small steps and no prior, over 200 members: each ratio of variances is chi-squared, relative width 0.1."""
    frames, small = data.atoms[:3], smaller(uncertainty, 1e-7)
    calculator = PaceCalculator(potential, backend="cpu", uq=small)
    expected = []
    for atoms in frames:
        atoms = atoms.copy()
        atoms.calc = calculator
        atoms.get_potential_energy()
        factor = small.forces.alpha / small.energies.alpha  # the committee is scaled by forces
        expected.append(np.append(factor * calculator.results["energy_std"], calculator.results["forces_std"]))
    expected = np.concatenate(expected)
    committee = Committee.of(small, potential, "forces", np.inf)
    assert committee.share == pytest.approx(1)
    found = np.array([values(committee.member(k), frames) for k in range(200)])
    used = expected > 1e-3 * expected.max()  # not the zeros by symmetry
    ratios = found.std(axis=0)[used] / expected[used]
    assert used.sum() > 50
    assert ratios.min() > 0.75 and ratios.max() < 1.3
    centre = (found.mean(axis=0) - values(potential, frames))[used] / expected[used]
    assert np.abs(centre).max() < 5 / np.sqrt(200)


def test_the_prior_keeps_members_near_the_potential(uncertainty, potential, data):
    """At their real size: the spread over the data is the share of the calibrated one that the committee names."""
    frames = data.atoms
    calculator = PaceCalculator(potential, backend="cpu", uq=smaller(uncertainty, 1.0))
    expected = []
    for atoms in frames:
        atoms = atoms.copy()
        atoms.calc = calculator
        atoms.get_potential_energy()
        expected.append(calculator.results["forces_std"].ravel())
    committee = Committee.of(uncertainty, potential, "forces")
    assert 0.05 < committee.share < 0.9
    found = np.array([forces(committee.member(k), frames) for k in range(40)])
    ratio = np.sqrt(found.var(axis=0).sum() / (np.concatenate(expected) ** 2).sum())
    assert ratio == pytest.approx(committee.share, rel=0.25)


def test_members_do_not_depend_on_each_other(uncertainty, potential):
    committee = Committee.of(uncertainty, potential, "forces")
    first, second = committee.member(0).parameters, committee.member(1).parameters
    assert (Committee.of(uncertainty, potential, "forces").member(1).parameters == second).all()
    assert (first != second).any() and (committee.member(1, seed=6).parameters != second).any()


def test_coefficients_that_are_zero_have_a_size(potential):
    other = potential.copy()
    parameters = other.parameters
    where = other.block_slices[0]
    parameters[where] = 0
    other.parameters = parameters
    sizes = typical_sizes(other)
    assert sizes[where] == pytest.approx(np.sqrt(np.mean(parameters**2)))
    pair = next(iter(other.radial_slices.values()))
    assert sizes[pair] == pytest.approx(np.sqrt(np.mean(parameters[pair] ** 2)))


def test_what_was_not_fitted_stays(uncertainty, potential):
    trainable = np.ones(potential.n_parameters, bool)
    trainable[::3] = False
    n = int(trainable.sum())
    partial = dataclasses.replace(
        uncertainty, trainable=trainable, factor=np.asfortranarray(uncertainty.factor[:n, :n]),
        scales=uncertainty.scales[:n],
    )  # fmt: skip
    moved = Committee.of(partial, potential, "forces").member(0).parameters != potential.parameters
    assert (moved == trainable).all()


def test_without_such_data_there_is_no_committee(uncertainty, potential):
    without = dataclasses.replace(uncertainty, energies=None)
    with pytest.raises(PacehpcError, match="the data have no energies that could scale a committee"):
        Committee.of(without, potential, "energies")
    exact = dataclasses.replace(uncertainty, energies=dataclasses.replace(uncertainty.energies, alpha=0.0))
    with pytest.raises(PacehpcError, match="errors of energies are all zero"):
        Committee.of(exact, potential, "energies")


def test_the_command(uncertainty, potential, data, tmp_path, command):
    """Files load, LAMMPS' too, have the same bits on two ranks, and nothing is overwritten."""
    potential = potential.copy()
    potential.metadata["final_rmse_epa"] = "1.0"
    potential.save(tmp_path / "pot.yaml")
    uncertainty.save(tmp_path / "pot.uq.npz")
    text = command(tmp_path, "uq", "sample", "pot.yaml", "-n", 2)
    assert "pot_committee: 2 potentials written" in text
    command(tmp_path, "uq", "sample", "pot.yaml", "-n", 3, "-o", "again", ranks=2)
    for name in ("member_001.yaml", "member_002.yaml", "member_002.yace"):
        one, two = (
            hashlib.sha256((tmp_path / folder / name).read_bytes()).digest() for folder in ("pot_committee", "again")
        )
        assert one == two
    committee = Committee.of(uncertainty, potential, "forces")
    expected = [committee.member(k).parameters for k in range(3)]
    for k, own in enumerate(expected, 1):
        member = Potential.load(tmp_path / "again" / f"member_{k:03d}.yaml")
        np.testing.assert_allclose(member.parameters, own, rtol=1e-14)
        assert member.metadata["committee"].startswith(f"member {k}, ") and "final_rmse_epa" not in member.metadata
        frames = data.atoms[:2]
        lammps = Potential.load(tmp_path / "again" / f"member_{k:03d}.yace")
        np.testing.assert_allclose(values(lammps, frames), values(member, frames), rtol=1e-9, atol=1e-9)
    said = command(tmp_path, "uq", "sample", "pot.yaml", "-n", 2, fails=True)
    assert "pot_committee: is not empty; delete it, or name another folder with -o" in said
    assert "-n: a number 1 or larger" in command(tmp_path, "uq", "sample", "pot.yaml", "-n", 0, "-o", "x", fails=True)
