"""Extended xyz files and ASE databases hold the same data as the calculators that wrote them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from pacehpc.dataset import load_dataset
from pacehpc.errors import PacehpcError


def calculated(n=4):
    frames = []
    random = np.random.default_rng(2)
    for k in range(n):
        atoms = Atoms("AlCu", [[0, 0, 0], [2.0, 2.0, 2.1]], cell=[4, 4, 4.2], pbc=[True, True, k != 2])
        atoms.positions += random.normal(0, 0.1, (2, 3))
        model = atoms.copy()
        model.calc = EMT()
        results = {"energy": model.get_potential_energy(), "forces": model.get_forces()}
        if k != 2:
            results["stress"] = model.get_stress()
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["config_type"] = f"kind{k}"
        frames.append(atoms)
    return frames


def compare(data, frames, tolerance):
    assert len(data) == len(frames) and data.names == [a.info["config_type"] for a in frames]
    for k, atoms in enumerate(frames):
        assert data.atoms[k].get_chemical_symbols() == atoms.get_chemical_symbols()
        assert (data.pbc[k] == atoms.pbc).all()
        np.testing.assert_allclose(data.atoms[k].positions, atoms.positions, rtol=0, atol=tolerance)
        np.testing.assert_allclose(data.atoms[k].cell, atoms.cell, rtol=0, atol=tolerance)
        np.testing.assert_allclose(data.energy[k], atoms.get_potential_energy(), rtol=0, atol=tolerance)
        np.testing.assert_allclose(data.forces[k], atoms.get_forces(), rtol=0, atol=tolerance)
        stress = atoms.get_stress() if "stress" in atoms.calc.results else np.full(6, np.nan)
        np.testing.assert_allclose(data.stress[k], stress, rtol=0, atol=tolerance)


@pytest.mark.parametrize("packed", [False, True])
def test_extxyz(tmp_path, packed):
    frames = calculated()
    write(tmp_path / "a.xyz", frames, format="extxyz")
    if packed:
        (tmp_path / "a.xyz").write_bytes(gzip.compress((tmp_path / "a.xyz").read_bytes()))
    compare(load_dataset(tmp_path / "a.xyz", reference_energy=0), frames, 2e-8)


def test_extxyz_with_ref_keys(tmp_path):
    frames = calculated()
    for atoms in frames:
        atoms.info["REF_energy"] = atoms.get_potential_energy() + 1
        atoms.arrays["REF_forces"] = 2 * atoms.get_forces()
        if "stress" in atoms.calc.results:
            atoms.info["REF_stress"] = 3 * atoms.get_stress(voigt=False)
    write(tmp_path / "a.xyz", frames, format="extxyz")
    data = load_dataset(tmp_path / "a.xyz", reference_energy=0)
    np.testing.assert_allclose(data.energy, [a.get_potential_energy() + 1 for a in frames], atol=1e-7)
    np.testing.assert_allclose(data.forces[1], 2 * frames[1].get_forces(), atol=1e-7)
    np.testing.assert_allclose(data.stress[1], 3 * frames[1].get_stress(), atol=1e-7)
    assert np.isnan(data.stress[2]).all()


def test_ase_database(tmp_path):
    frames = calculated()
    with connect(tmp_path / "a.db", type="db") as database:
        for atoms in frames:
            database.write(atoms, config_type=atoms.info["config_type"])
    data = load_dataset(tmp_path / "a.db", reference_energy=0)
    compare(data, frames, 1e-14)
    assert data.index == [1, 2, 3, 4]


def test_formats_mix(tmp_path):
    frames = calculated()
    write(tmp_path / "a.xyz", frames[:2], format="extxyz")
    with connect(tmp_path / "b", type="db") as database:
        for atoms in frames[2:]:
            database.write(atoms, config_type=atoms.info["config_type"])
    compare(load_dataset([tmp_path / "a.xyz", tmp_path / "b"], reference_energy=0), frames, 2e-8)


@pytest.mark.parametrize(
    "text, message",
    [
        ("2\nx\nAl 0 0 0\n", "frame 0: not an extended xyz"),
        ("1\nProperties=species:S:1:pos:R:3:f:R:900000000\nAl 0 0 0 1\n", "more than 1000 columns"),
        ("2\nenergy=1\nAl 0 0 0\nAl 0 0 2\n", "no column 'forces'"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nAl 0 0 x 0 0 0\n", "frame 0"),
        ("99999999999\nenergy=1\nAl 0 0 0\n", "99999999999 atoms in a file of 4 lines"),
    ],
)
def test_bad_extxyz(tmp_path, text, message):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(PacehpcError, match=message):
        load_dataset(tmp_path / "a.xyz", reference_energy=0)


def test_a_row_without_forces_has_no_weight(tmp_path, caplog):
    frames = calculated(3)
    del frames[1].calc.results["forces"]
    write(tmp_path / "a.xyz", frames, format="extxyz")
    with caplog.at_level("INFO"):
        data = load_dataset(tmp_path / "a.xyz", reference_energy=0)
    assert not data.w_forces[1].any() and data.w_forces[0].all() and data.w_forces[2].all() and data.w_energy.all()
    assert data.flat_w_forces.sum() == pytest.approx(1.0) and "(1 structures without any)" in caplog.text


def test_broken_database(tmp_path):
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\0" + b"\1" * 5000)
    with pytest.raises(PacehpcError, match="not an ASE database"):
        load_dataset(tmp_path / "a.db")


TENSOR, ATOMS = "0.8 0 0 0 0.8 0 0 0 0.8", "Al 0 0 0 0.1 0 0\nAl 0 0 2.4 -0.1 0 0\n"
LATTICE, FORCES = 'Lattice="4 0 0 0 4 0 0 0 5"', "Properties=species:S:1:pos:R:3:forces:R:3"
PROGRAMS = {
    "mace": (f'{LATTICE} {FORCES.replace(":f", ":REF_f")} REF_energy=-1.5 head=Default pbc="T T T"', {}),
    "nequip": (f'{LATTICE} {FORCES} energy=-1.5 free_energy=-1.5 pbc="T T T"', {}),
    "vasp through ase": (f'{LATTICE} {FORCES} energy=-1.6 free_energy=-1.5 magmom=0.0 pbc="T T T"', {}),
    "gap": (
        f'dft_energy=-1.5 dft_virial="{TENSOR}" {LATTICE} {FORCES.replace("forces", "dft_force")} nneightol=1.2',
        {"energy": "dft_energy", "forces": "dft_force", "virial": "dft_virial"},
    ),
    "dpdata": (f'virial="{TENSOR}" energy=-1.5 {LATTICE} {FORCES.replace("forces", "force")}', {"forces": "force"}),
    "gpumd": (f'energy=-1.5 {LATTICE.lower()} virial="{TENSOR}" {FORCES.replace("P", "p", 1)}', {}),
    "maml": (f"pbc=[T, T, T] energy=-1.5 {LATTICE} {FORCES} virial=None", {}),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_files_as_other_programs_write_them(tmp_path, program, ends):
    header, keys = PROGRAMS[program]
    text = f"\ufeff2\n{header}\n{ATOMS}".replace("\n", ends)
    (tmp_path / "a.xyz").write_bytes(text.encode())
    data = load_dataset(tmp_path / "a.xyz", reference_energy=0.0, keys=keys)
    assert data.energy.tolist() == [-1.5] and data.flat_forces[:, 0].tolist() == [0.1, -0.1]
    assert data.pbc.all() and data.volumes.tolist() == pytest.approx([80])
    if "virial" in header and "None" not in header:
        np.testing.assert_allclose(data.stress, [[-0.01, -0.01, -0.01, 0, 0, 0]])
