"""Reference energies that the file of a potential holds, and the calculator that adds them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk

from pacehpc import PaceCalculator, Potential
from pacehpc.errors import PacehpcError
from pacehpc.potential import export_yace
from pacehpc.potential.reference import atomic_references


@pytest.fixture
def potential(golden):
    found = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    found.metadata["reference_energy"] = json.dumps({"Al": -1.5, "Ni": 2.25, "shift": 0.125})
    return found


def alloy():
    atoms = bulk("Al", a=4.0, cubic=True)
    atoms.symbols[0] = "Ni"
    return atoms


def test_energies_are_those_of_the_data(potential, tmp_path):
    """After a journey through the file; also of many structures in one call, and after a vacancy."""
    potential.save(tmp_path / "pot.yaml")
    plain, whole = PaceCalculator(potential), PaceCalculator(tmp_path / "pot.yaml", reference_energies=True)
    vacancy = alloy()
    del vacancy[1]
    for atoms, added in ((alloy(), -1.375 * 3 + 2.375), (vacancy, -1.375 * 2 + 2.375)):
        for calculator in (plain, whole):
            calculator.calculate(atoms)
        assert whole.results["energy"] - plain.results["energy"] == pytest.approx(added, abs=1e-12)
        assert whole.results["free_energy"] == whole.results["energy"]
        assert whole.results["energies"].sum() == pytest.approx(whole.results["energy"], abs=1e-12)
        np.testing.assert_array_equal(whole.results["forces"], plain.results["forces"])
        assert whole.calculate_many([atoms])[0]["energy"] == pytest.approx(whole.results["energy"], abs=1e-12)


def test_a_potential_without_them_is_refused(potential, tmp_path):
    export_yace(potential, tmp_path / "pot.yace")
    with pytest.raises(PacehpcError, match="reference energies: the potential does not hold them"):
        PaceCalculator(tmp_path / "pot.yace", reference_energies=True)
    potential.metadata["reference_energy"] = json.dumps({"Al": 1.0})
    with pytest.raises(PacehpcError, match="reference energies"):
        atomic_references(potential)
