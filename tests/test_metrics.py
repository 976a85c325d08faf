"""Sums against the definitions written out with loops, and their additivity over parts."""

from __future__ import annotations

import numpy as np
import pytest

from pacehpc.fixed_point import decode
from pacehpc.metrics import GPA, MAXIMA, TERMS, finish, local_sums
from pacehpc.structures import Structures

COUNTS = [3, 1, 5, 2]


@pytest.fixture
def case():
    rng = np.random.default_rng(3)
    n, atoms = len(COUNTS), sum(COUNTS)
    structures = Structures(
        atom_offsets=np.concatenate([[0], np.cumsum(COUNTS)]),
        species=np.zeros(atoms, np.int32),
        bond_offsets=np.zeros(atoms + 1, np.int64),
        bond_atom=np.zeros(0, np.int32),
        bond_vector=np.zeros((0, 3)),
        volumes=np.array([30.0, 0.0, 50.0, 20.0]),
        energy=rng.normal(size=n),
        forces=rng.normal(size=(atoms, 3)),
        w_energy=rng.random(n),
        w_forces=rng.random(atoms),
        stress=rng.normal(size=(n, 6)),
        low=np.array([True, False, True, False]),
    )
    structures.stress[3] = np.nan
    virials = rng.normal(size=(n, 3, 3))
    virials += virials.transpose(0, 2, 1)
    return structures, rng.normal(size=n), rng.normal(size=(atoms, 3)), virials


def voigt_matrix(v):
    xx, yy, zz, yz, xz, xy = v
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def test_sums_are_the_definitions(case):
    structures, energies, forces, virials = case
    encoded, maxima = local_sums(structures, energies, forces, virials)
    terms = decode(encoded)
    got = dict(zip(TERMS, terms, strict=True))
    de, df, low_de, low_df = [], [], [], []
    e_loss = f_loss = s_loss = 0.0
    stress_errors = []
    for s, n in enumerate(COUNTS):
        first = structures.atom_offsets[s]
        error = (energies[s] - structures.energy[s]) / n
        e_loss += structures.w_energy[s] * error**2
        de.append(error)
        low_de += [error] if structures.low[s] else []
        for i in range(first, first + n):
            d = forces[i] - structures.forces[i]
            f_loss += structures.w_forces[i] * (d @ d)
            df += d.tolist()
            low_df += d.tolist() if structures.low[s] else []
        if s in (0, 2):  # 1 is not periodic, 3 has no reference
            v = structures.volumes[s]
            difference = virials[s] / v - voigt_matrix(structures.stress[s])
            s_loss += structures.w_energy[s] * (v / n) ** 2 * np.sum(difference**2)
            stress_errors += [difference[a, b] for a, b in [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]]
    assert got["e_loss"] == pytest.approx(e_loss)
    assert got["f_loss"] == pytest.approx(f_loss)
    assert got["s_loss"] == pytest.approx(s_loss)

    def rms(values):
        return np.sqrt(np.mean(np.square(values)))

    expected = {
        "rmse_epa": rms(de),
        "low_rmse_epa": rms(low_de),
        "rmse_f_comp": rms(df),
        "low_rmse_f_comp": rms(low_df),
        "mae_f_comp": np.mean(np.abs(df)),
        "low_mae_f_comp": np.mean(np.abs(low_df)),
        "mae_epa": np.mean(np.abs(de)),
        "low_mae_epa": np.mean(np.abs(low_de)),
        "max_ae_epa": np.max(np.abs(de)),
        "low_max_ae_epa": np.max(np.abs(low_de)),
        "max_ae_f": np.max(np.abs(df)),
        "low_max_ae_f": np.max(np.abs(low_df)),
        "rmse_stress": rms(stress_errors) * GPA,
    }
    assert finish(terms, maxima) == pytest.approx(expected, rel=1e-12)


def test_sums_of_parts_add_up(case):
    structures, energies, forces, virials = case
    whole = local_sums(structures, energies, forces, virials)
    parts = []
    for s in (slice(0, 1), slice(1, 4), slice(4, 4)):
        atoms = slice(structures.atom_offsets[s.start], structures.atom_offsets[s.stop])
        parts.append(local_sums(structures.select(s), energies[s], forces[atoms], virials[s]))
    np.testing.assert_allclose(decode(sum(p[0] for p in parts)), decode(whole[0]), rtol=1e-13)
    np.testing.assert_array_equal(np.max([p[1] for p in parts], axis=0), whole[1])


def test_without_stress_and_without_low_structures():
    terms = np.zeros(len(TERMS))
    terms[[TERMS.index("n_structures"), TERMS.index("n_atoms")]] = 2, 6
    found = finish(terms, np.zeros(len(MAXIMA)))
    assert found["rmse_epa"] == 0 and np.isnan(found["rmse_stress"]) and np.isnan(found["low_rmse_epa"])


def test_sums_by_shards_have_the_same_bits_however_the_shards_are_dealt(case):
    structures, energies, forces, virials = case
    structures.shards = np.arange(structures.n_structures + 1)
    whole = local_sums(structures, energies, forces, virials)[0]
    parts = 0
    for s in (slice(0, 1), slice(1, 4), slice(4, structures.n_structures)):
        atoms = slice(structures.atom_offsets[s.start], structures.atom_offsets[s.stop])
        part = structures.select(s)
        part.shards = np.arange(part.n_structures + 1)
        parts = parts + local_sums(part, energies[s], forces[atoms], virials[s])[0]
    np.testing.assert_array_equal(parts, whole)


def test_sums_that_are_not_finite_are_reported(case):
    structures, energies, forces, virials = case
    energies[1] = np.nan
    maxima = local_sums(structures, energies, forces, virials)[1]
    assert maxima[MAXIMA.index("too_large")] == 1
