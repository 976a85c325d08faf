"""Outputs of every program give the one structure that they were made of."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from calculations import (
    CELL,
    ENERGY,
    FORCES,
    STRESS,
    cp2k,
    espresso,
    gpaw_text,
    structure,
    vasp_outcar,
    vasp_xml,
    write_gpw,
)

from pacehpc import cli
from pacehpc.dataset import load_dataset
from pacehpc.dataset.loading import read_raw
from pacehpc.errors import PacehpcError
from pacehpc.utilities.collect import collect, find_calculations, free_atom_energies, main

WRITERS = {
    "vasprun.xml": vasp_xml,
    "OUTCAR": vasp_outcar,
    "gpaw.txt": gpaw_text,
    "pw.out": espresso,
    "cp2k.out": cp2k,
}


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def assert_is_the_structure(data, row=0):
    atoms = data.atoms[row]
    assert atoms.get_chemical_symbols() == ["Al", "Ni"] and atoms.pbc.all()
    np.testing.assert_allclose(atoms.cell, CELL, atol=2e-6)
    np.testing.assert_allclose(atoms.positions, structure().positions, atol=2e-6)
    np.testing.assert_allclose(data.energy[row], ENERGY, atol=2e-7)
    np.testing.assert_allclose(data.forces[row], FORCES, atol=1e-6)
    np.testing.assert_allclose(data.stress[row], STRESS, atol=2e-6)


@pytest.mark.parametrize("name", WRITERS)
def test_formats(tmp_path, name):
    put(tmp_path / "a" / name, WRITERS[name]())
    data, skipped = collect(tmp_path)
    assert skipped == [] and data.names == [f"a/{name}#0"]
    assert_is_the_structure(data)


def test_packed_and_binary_formats(tmp_path):
    put(tmp_path / "a" / "OUTCAR.gz", vasp_outcar())
    put(tmp_path / "b" / "vasprun.xml.gz", vasp_xml())
    (tmp_path / "c").mkdir()
    write_gpw(tmp_path / "c" / "calc.gpw")
    atoms = structure()
    atoms.info |= {"REF_energy": ENERGY, "REF_stress": STRESS[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)}
    atoms.arrays["REF_forces"] = FORCES
    write(tmp_path / "d.extxyz", [atoms] * 3, format="extxyz")
    data, skipped = collect(tmp_path)
    assert skipped == [] and len(data) == 6
    for row in range(6):
        assert_is_the_structure(data, row)


def test_unconverged_and_broken_ones_are_listed(tmp_path):
    put(tmp_path / "good" / "OUTCAR", vasp_outcar())
    bad = {
        "outcar": ("OUTCAR", vasp_outcar(used=60)),
        "xml": ("vasprun.xml", vasp_xml(used=60)),
        "gpaw": ("calc.txt", gpaw_text(converged=False)),
        "qe": ("pw.out", espresso(converged=False)),
        "cp2k": ("run.out", cp2k(converged=False)),
    }
    for folder, (name, text) in bad.items():
        put(tmp_path / folder / name, text)
    (tmp_path / "gpw").mkdir()
    write_gpw(tmp_path / "gpw" / "calc.gpw", converged=False)
    broken = {"b1": ("OUTCAR", "nothing"), "b2": ("vasprun.xml", vasp_xml()[:300]), "b3": ("x.xyz", "2\n\nAl 0 0"),
              "b4": ("OUTCAR.gz", ""), "b5": ("pw.out", "Program PWSCF\n"), "b6": ("nan.xyz", "1\nenergy=nan "
              "Properties=species:S:1:pos:R:3:forces:R:3\nAl 0 0 0 0 0 0\n")}  # fmt: skip
    for folder, (name, text) in broken.items():
        put(tmp_path / folder / name, text)
    (tmp_path / "b4" / "OUTCAR.gz").write_bytes(b"\x1f\x8b broken")
    data, skipped = collect(tmp_path)
    assert data.names == ["good/OUTCAR#0"]
    for folder in (*bad, "gpw"):
        assert any(f"/{folder}/" in line and "not converged" in line for line in skipped), (folder, skipped)
    for folder in broken:
        assert any(f"/{folder}/" in line for line in skipped), (folder, skipped)


def test_a_cut_off_run_gives_its_complete_steps(tmp_path):
    put(tmp_path / "vasprun.xml", vasp_xml(steps=3, finished=False))
    data, skipped = collect(tmp_path, "all")
    assert len(data) == 3 and "cut off; 3 complete steps" in skipped[0]


@pytest.mark.parametrize(
    "selection, steps", [("first", [0]), ("last", [3]), ("all", [0, 1, 2, 3]), ("first_and_last", [0, 3])]
)
@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR"])
def test_selection(tmp_path, selection, steps, name):
    put(tmp_path / name, WRITERS[name](steps=4))
    data, _ = collect(tmp_path, selection)
    np.testing.assert_allclose(data.energy, [ENERGY + k for k in steps], atol=1e-6)


def test_a_calculation_counts_once_and_a_broken_file_gives_way(tmp_path):
    put(tmp_path / "a" / "vasprun.xml", vasp_xml())
    put(tmp_path / "a" / "OUTCAR", vasp_outcar())
    put(tmp_path / "b" / "vasprun.xml", "broken")
    put(tmp_path / "b" / "OUTCAR", vasp_outcar())
    write_gpw(tmp_path / "calc.gpw")
    put(tmp_path / "calc.txt", gpaw_text())
    assert len(find_calculations(tmp_path)) == 3
    data, skipped = collect(tmp_path)
    assert data.names == ["calc.gpw#0", "a/vasprun.xml#0", "b/OUTCAR#0"]
    assert len(skipped) == 1 and "b/vasprun.xml: broken" in skipped[0]


def test_many_processes_give_the_same(tmp_path):
    for k in range(7):
        put(tmp_path / f"{k}" / "vasprun.xml", vasp_xml(energy=ENERGY - k))
    one, two = collect(tmp_path)[0], collect(tmp_path, jobs=2)[0]
    assert one.names == two.names and one.energy.tolist() == two.energy.tolist()


def free_atoms(folder, energies):
    for element, energy in energies.items():
        atoms = Atoms(element, [[0, 0, 0]], cell=[12, 12, 12], pbc=True)
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, np.zeros((1, 3))
        write(folder / f"{element}.xyz", atoms, format="extxyz")


def test_free_atoms(tmp_path):
    put(tmp_path / "a" / "OUTCAR", vasp_outcar())
    free_atoms(tmp_path, {"Al": -0.5, "Ni": -1.0})
    data, _ = collect(tmp_path)
    assert free_atom_energies([], data) == {"Al": 0.0, "Ni": 0.0}
    assert free_atom_energies(["auto"], data) == {"Al": -0.5, "Ni": -1.0}
    assert free_atom_energies(["Al:-0.25", "Ni:auto"], data) == {"Al": -0.25, "Ni": -1.0}
    fitted = free_atom_energies(["lsq"], data)
    expected = np.linalg.lstsq([[1, 1], [1, 0], [0, 1]], [ENERGY, -0.5, -1.0], rcond=None)[0]
    np.testing.assert_allclose([fitted["Al"], fitted["Ni"]], expected, atol=1e-6)
    for words, message in (
        (["Xx:1"], "none of"),
        (["Al"], "none of"),
        (["Al:x"], "no number"),
        (["Al:nan"], "no number"),
    ):
        with pytest.raises(PacehpcError, match=message):
            free_atom_energies(words, data)
    with pytest.raises(PacehpcError, match="no isolated atom of Al, Ni"):
        free_atom_energies(["auto"], data.subset([k for k, n in enumerate(data.atoms_per_structure) if n == 2]))


def test_command(tmp_path, capsys, monkeypatch):
    work = tmp_path / "work"
    put(work / "a" / "OUTCAR", vasp_outcar())
    put(work / "b" / "OUTCAR", vasp_outcar(used=60))
    free_atoms(work, {"Al": -0.5, "Ni": -1.0})
    monkeypatch.chdir(tmp_path)
    arguments = ["-wd", "work", "--free-atom-energy", "Al:auto", "Ni:-1.25", "--selection", "last"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "3 structures, 4 atoms; 1 skipped" in shown and "b/OUTCAR: step 0: not converged" in shown
    data = load_dataset("collected.pckl.gzip")
    np.testing.assert_allclose(data.energy_corrected[-1], ENERGY + 0.5 + 1.25, atol=1e-7)
    assert cli.main(["collect", *arguments, "--output-dataset-filename", "b.extxyz"]) == 0
    np.testing.assert_array_equal(read_raw("b.extxyz").energy_corrected, data.energy_corrected)
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    for wrong, message in (
        (["-wd", "absent"], "no such folder"),
        (["-wd", "empty"], "no calculations"),
        (["-wd", "work/b"], "no converged calculation"),
        (["-wd", "work", "-o", "x.what"], "format is not known"),
    ):
        assert main(wrong) == 1 and message in capsys.readouterr().err


def test_groups_of_collected_frames_are_kept(tmp_path, capsys):
    text = "1\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-1.5 config_type=kind{}\nAl 0 0 0 0 0 0\n"
    put(tmp_path / "a" / "all.extxyz", "".join(text.format(k) for k in range(2)))
    output = tmp_path / "out.pckl.gzip"
    assert main(["-wd", str(tmp_path / "a"), "-o", str(output)]) == 0
    data = read_raw(output)
    assert [one["config_type"] for one in data.info] == ["kind0", "kind1"]
    assert data.names == ["all.extxyz#0", "all.extxyz#1"]
    assert "none given, taken as 0 eV" in capsys.readouterr().out  # else energy_corrected looks like what it is not
    assert main(["-wd", str(tmp_path / "a"), "-o", str(output), "--free-atom-energy", "Al:-1"]) == 0
    assert "none given" not in capsys.readouterr().out
