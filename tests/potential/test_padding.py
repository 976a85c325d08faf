"""Densities that are added for LAMMPS: they change no energy, and are left out when a file is read back."""

import numpy as np
import pytest
from ase.build import bulk

from pacehpc import PaceCalculator
from pacehpc.potential import Potential, build_potential, export_bbasis, export_yace
from pacehpc.potential.padding import padded, unpadded


@pytest.fixture
def mixed(golden):
    return Potential.load(golden / "potentials" / "alni_mixed.yaml")


def b2_energy(potential):
    atoms = bulk("AlNi", "cesiumchloride", a=2.9)
    atoms.calc = PaceCalculator(potential, backend="reference")
    return atoms.get_potential_energy()


def test_every_element_gets_the_largest_number(mixed):
    full = padded(mixed)
    assert [e.ndensity for e in full.embeddings.values()] == [2, 2]
    assert full.embeddings["Ni"].fs_parameters == (1.0, 1.0, 0.0, 1.0)
    assert full.embeddings["Al"] == mixed.embeddings["Al"]
    for block, before in zip(full.blocks, mixed.blocks, strict=True):
        added = block.coefficients[:, before.coefficients.shape[1] :]
        assert block.coefficients.shape[1] == 2 and not added.any()
        assert added.shape[1] == (1 if block.elements[0] == "Ni" else 0)
    full.check("padded")
    assert b2_energy(full) == pytest.approx(b2_energy(mixed), abs=1e-12)
    assert b2_energy(mixed) == pytest.approx(6.14500, abs=5e-6)
    assert [e.ndensity for e in mixed.embeddings.values()] == [2, 1]


def test_files_for_lammps_read_back(mixed, tmp_path):
    export_yace(mixed, tmp_path / "m.yace")
    again = Potential.load(tmp_path / "m.yace")
    assert again.embeddings == mixed.embeddings
    assert b2_energy(again) == pytest.approx(b2_energy(mixed), abs=1e-11)
    export_yace(again, tmp_path / "again.yace")
    assert (tmp_path / "again.yace").read_text().count("ndensity: 2") == (tmp_path / "m.yace").read_text().count(
        "ndensity: 2"
    )
    export_bbasis(mixed, tmp_path / "m.yaml")
    kept = Potential.load(tmp_path / "m.yaml")
    assert kept.embeddings["Ni"].ndensity == 2
    assert b2_energy(kept) == pytest.approx(b2_energy(mixed), abs=1e-12)
    assert np.array_equal(unpadded(kept).parameters, mixed.parameters)


def test_densities_of_the_user_stay(section, mixed):
    """Weight 0 alone is no padding: the user's own last density for all elements, or one with coefficients."""
    data = section(["Al", "Ni"])
    data["embeddings"]["ALL"] = {"npot": "FinnisSinclair", "fs_parameters": [1, 1, 0, 1], "ndensity": 2}
    assert unpadded(build_potential(data)).embeddings["Al"].ndensity == 2
    full = padded(mixed)
    next(block for block in full.blocks if block.elements == ("Ni",)).coefficients[0, 1] = 1e-3
    assert unpadded(full).embeddings["Ni"].ndensity == 2
