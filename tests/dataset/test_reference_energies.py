"""`auto`: free atoms where the data have them, least squares where not, and warnings where energies cannot be right."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pacehpc.dataset import load_dataset

FREE = {"Al": -1300.5, "Ni": -900.25}
BOUND = (
    "2\n{lattice}Properties=species:S:1:pos:R:3:forces:R:3 energy={energy}\n"
    "{one} 0 0 0 0.1 0 0\n{two} 0 0 2.4 -0.1 0 0\n"
)


def write_data(path, free=(), pairs=("AlAl", "NiNi", "AlNi"), forces=True):
    columns = ":forces:R:3" if forces else ""
    zero = " 0 0 0" if forces else ""
    atoms = [f"1\nProperties=species:S:1:pos:R:3{columns} energy={FREE[e]}\n{e} 0 0 0{zero}\n" for e in free]
    bound = []
    for k, pair in enumerate(pairs):
        one, two = pair[:2], pair[2:]
        lattice = f'Lattice="{4 + k} 0 0 0 4 0 0 0 5" '
        bound.append(BOUND.format(lattice=lattice, energy=FREE[one] + FREE[two] - 3.0 - k, one=one, two=two))
    path.write_text("".join(atoms + bound))
    return path


@pytest.mark.parametrize("forces", [True, False])
def test_auto_takes_free_atoms(tmp_path, forces, caplog):
    data = load_dataset(write_data(tmp_path / "a.xyz", ("Al", "Ni"), forces=forces), reference_energy="auto")
    assert data.reference_energy == {**FREE, "shift": 0.0} and data.energy_corrected[:2].tolist() == [0, 0]
    np.testing.assert_allclose(data.energy_corrected[2:], [-3, -4, -5], atol=1e-9)
    np.testing.assert_array_equal(data.flat_forces[:2], 0)  # of one atom, whether the file has them or not
    assert data.flat_w_forces.all() and not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_auto_without_free_atoms_says_what_it_did(tmp_path, caplog):
    data = load_dataset(write_data(tmp_path / "a.xyz"), reference_energy="auto")
    assert "no free atoms in the data" in caplog.text and "a.xyz, row 2" in caplog.text and "60.0 Å³" in caplog.text
    assert data.energy_corrected[2] == pytest.approx(0)


def test_auto_with_one_free_atom(tmp_path, caplog):
    data = load_dataset(write_data(tmp_path / "a.xyz", ("Al",)), reference_energy="auto")
    assert data.reference_energy["Al"] == FREE["Al"] and data.reference_energy["shift"] == 0
    assert "no free atom of Ni" in caplog.text and data.energy_corrected[0] == 0


def test_compositions_that_do_not_determine_the_energies(tmp_path, caplog):
    load_dataset(write_data(tmp_path / "a.xyz", pairs=("AlNi", "NiAl")), reference_energy="auto")
    assert "do not determine the energies of Al, Ni one by one (1 independent of 2)" in caplog.text
