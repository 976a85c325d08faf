"""Properties of a Lennard-Jones crystal, for which theory gives the answers."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from pacehpc.validate import properties
from pacehpc.validate.crystals import crystals, supercell
from pacehpc.validate.tasks import validate

EPSILON, SIGMA = 0.5, 2.5


def calculator() -> LennardJones:
    """Cut off smoothly far away, so that lattice sums are those of the infinite crystal to 2 %."""
    return LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=4.0 * SIGMA, ro=3.6 * SIGMA, smooth=True)


@pytest.fixture(scope="module")
def argon() -> Atoms:
    atoms, _ = properties.equilibrium(bulk("Cu", "fcc", a=1.55 * SIGMA), calculator())
    return atoms


def test_equilibrium_of_fcc(argon: Atoms) -> None:
    """a = (2 A12/A6)^(1/6) √2 σ and E = -ε A6²/(2 A12), lattice sums A12 = 12.13188, A6 = 14.45392 (Kittel)."""
    a = np.sqrt(2) * argon.cell.lengths()[0]
    assert a == pytest.approx(np.sqrt(2) * (2 * 12.13188 / 14.45392) ** (1 / 6) * SIGMA, rel=2e-3)
    assert argon.get_potential_energy() == pytest.approx(-EPSILON * 14.45392**2 / (2 * 12.13188), rel=0.02)


def test_elastic_constants_of_pair_forces(argon: Atoms) -> None:
    """Cauchy's relation C12 = C44, and the bulk modulus of the equation of state."""
    cubic = bulk("Cu", "fcc", a=np.sqrt(2) * argon.cell.lengths()[0], cubic=True)
    found = properties.elastic_constants(cubic, calculator())
    assert set(found) == {"C11", "C12", "C44", "bulk_modulus", "shear_modulus"}
    assert found["C12"] == pytest.approx(found["C44"], rel=5e-3)
    assert found["bulk_modulus"] == pytest.approx((found["C11"] + 2 * found["C12"]) / 3, rel=1e-6)
    state, curve = properties.equation_of_state(cubic, calculator())
    assert state["B0"] == pytest.approx(found["bulk_modulus"], rel=5e-3)
    assert state["V0"] == pytest.approx(cubic.get_volume() / 4, rel=1e-3)
    exact = 75.2 * EPSILON / SIGMA**3 / units.GPa  # Kittel, chapter 3
    assert found["bulk_modulus"] == pytest.approx(exact, rel=0.03)
    assert min(curve["energy"]) == pytest.approx(argon.get_potential_energy(), rel=1e-3)


def test_elastic_constants_of_a_hexagonal_crystal() -> None:
    atoms, _ = properties.equilibrium(bulk("Cu", "hcp", a=1.1 * SIGMA), calculator())
    c = properties.stiffness(atoms, calculator())
    assert c[5, 5] == pytest.approx((c[0, 0] - c[0, 1]) / 2, rel=0.02)
    assert c[0, 0] == pytest.approx(c[1, 1], rel=0.01)
    assert {"C33", "C13", "C66"} < set(properties.elastic_constants(atoms, calculator()))


def test_dimer() -> None:
    found, curve = properties.dimer(("Cu", "Cu"), calculator(), 8.0)
    assert found["dimer_length"] == pytest.approx(2 ** (1 / 6) * SIGMA, abs=0.03)
    assert found["dimer_energy"] == pytest.approx(-EPSILON, rel=1e-2)
    assert found["dimer_shortest_repulsive"] == pytest.approx(0.5)
    assert len(curve["distance"]) == len(curve["energy"])


def test_a_dimer_that_falls_together_is_seen() -> None:
    class Falls(EMT):
        def get_potential_energy(self, atoms: Atoms, force_consistent: bool = False) -> float:
            r = atoms.get_distance(0, 1)
            return (r - 2.5) ** 2 if r > 1.2 else 1.69 - 3 * (1.2 - r)

    found, _ = properties.dimer(("Cu", "Cu"), Falls(), 4.0)
    assert found["dimer_shortest_repulsive"] == pytest.approx(1.2, abs=0.06)


def test_vacancy_of_pair_forces_costs_the_cohesive_energy(argon: Atoms) -> None:
    """Unrelaxed it is -E per atom with pair forces; relaxing gains a few per cent."""
    energy = -argon.get_potential_energy()
    found = properties.vacancy(argon, calculator(), length=7.0)["vacancy"]
    assert 0.9 * energy < found < energy


def test_surfaces_in_the_order_of_their_density(argon: Atoms) -> None:
    cubic, _ = properties.equilibrium(bulk("Cu", "fcc", a=np.sqrt(2) * argon.cell.lengths()[0], cubic=True), EMT())
    found = properties.surfaces(cubic, EMT(), thickness=10.0)
    assert found["(111)"] < found["(100)"] < found["(110)"]
    assert 0.4 < found["(111)"] < 1.5


def test_dynamics_keep_the_energy() -> None:
    found = properties.dynamics(bulk("Cu", cubic=True), EMT(), picoseconds=0.3)
    assert abs(found["drift"]) < 2e-3
    assert 150 < found["temperature"] < 450


def test_phonons_of_a_stable_crystal() -> None:
    pytest.importorskip("phonopy")
    atoms, _ = properties.equilibrium(bulk("Cu", cubic=True), EMT())
    found = properties.phonons(atoms, EMT(), length=7.0, mesh=10.0)
    assert found["lowest_frequency"] > -0.05
    assert 6 < found["highest_frequency"] < 9  # 7.4 THz in experiment


def test_supercells_are_thick_enough() -> None:
    cell = supercell(bulk("Cu", "fcc", a=3.6), 8.0)
    heights = cell.cell.volume / np.array([np.linalg.norm(np.cross(cell.cell[1], cell.cell[2]))])
    assert heights.min() >= 8.0


def test_a_failure_does_not_end_the_rest() -> None:
    class Fails(EMT):
        def calculate(self, *args: object, **kwargs: object) -> None:
            raise RuntimeError("no energy here")

    found = validate(crystals(["Cu"]), ["Cu"], Fails, 4.0, ["elastic", "dimers"])
    assert found.failures["Cu fcc"] == {"equilibrium": "no energy here"}
    assert found.failures["Cu-Cu"] == {"dimer": "no energy here"}
    assert not found.values
