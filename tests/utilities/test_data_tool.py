"""Conversions give back the same numbers, whatever the way through the formats."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.io import read

from pacehpc import cli
from pacehpc.dataset import Store, load_dataset, write_frame, write_store
from pacehpc.dataset.loading import read_raw
from pacehpc.errors import PacehpcError
from pacehpc.utilities import data as data_command

NAMES = ["a.pckl.gzip", "b.extxyz", "c.xyz.gz", "d.db", "e.h5", "f.pkl"]
FIELDS = ("numbers", "positions", "cells", "pbc", "energy", "flat_forces", "stress")


@pytest.fixture
def source(tmp_path):
    """A frame with all periodicities, some stresses, names and weights."""
    random = np.random.default_rng(3)
    rows = []
    for k in range(12):
        n = int(random.integers(1, 6))
        pbc = [True, True, k % 3 != 1] if k % 3 else [False] * 3
        grid = np.argwhere(np.ones((2, 2, 2)))[:n] * 2.1 + random.uniform(-0.1, 0.1, (n, 3))
        atoms = Atoms(random.choice(["Ni", "Al"], n), grid, cell=np.eye(3) * 5.3 if k % 3 else None, pbc=pbc)
        rows.append([atoms, random.normal(), random.normal(size=(n, 3)), random.normal(size=6) if k % 3 else None])
    frame = pd.DataFrame(rows, columns=["ase_atoms", "energy", "forces", "stress"])
    frame["name"] = [f"kind{k % 2}" for k in range(12)]
    frame["w_energy"] = random.uniform(size=12)
    frame["w_forces"] = [random.uniform(size=len(a)) for a in frame.ase_atoms]
    frame["w_factor"] = random.uniform(size=12)
    write_frame(frame, tmp_path / "source.pckl.gzip")
    return tmp_path / "source.pckl.gzip"


def assert_same(a, b):
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)
    assert a.names == b.names


def test_through_every_format(source, tmp_path, capsys):
    first = read_raw(source)
    before = source
    for name in NAMES:
        assert cli.main(["data", "convert", str(before), str(tmp_path / name)]) == 0
        assert "12 structures" in capsys.readouterr().out
        assert_same(read_raw(tmp_path / name), first)
        before = tmp_path / name
    assert cli.main(["data", "convert", str(tmp_path / "c.xyz.gz"), str(tmp_path / "g.h5")]) == 0
    for name in [*NAMES, "g.h5"]:
        for key in ("w_energy", "w_forces", "w_factor"):
            np.testing.assert_array_equal(read_raw(tmp_path / name).extra[key], first.extra[key])


@pytest.mark.parametrize("name", NAMES)
def test_energies_stay_what_they_are(source, tmp_path, name, capsys):
    """Total energies do not turn into energies without free atoms, nor the other way round."""
    frame = pd.read_pickle(source, compression="gzip")
    cli.main(["data", "convert", str(source), str(tmp_path / name)])
    with pytest.raises(PacehpcError, match="no column 'energy_corrected'"):
        load_dataset(tmp_path / name)
    frame["energy_corrected"] = frame["energy"] + 1.0
    write_frame(frame, tmp_path / "both.pckl.gzip")
    cli.main(["data", "convert", str(tmp_path / "both.pckl.gzip"), str(tmp_path / name)])
    back = load_dataset(tmp_path / name)
    np.testing.assert_array_equal(back.energy_corrected, frame["energy_corrected"])
    np.testing.assert_array_equal(back.energy, frame["energy"])
    cli.main(["data", "convert", str(tmp_path / "both.pckl.gzip"), str(source), str(tmp_path / name)])
    assert np.isnan(read_raw(tmp_path / name).energy_corrected).all()
    write_frame(frame.drop(columns="energy"), tmp_path / "corrected.pckl.gzip")
    capsys.readouterr()
    assert cli.main(["data", "convert", str(tmp_path / "corrected.pckl.gzip"), str(source), str(tmp_path / name)]) == 1
    assert "convert them one by one" in capsys.readouterr().err


def test_prepared_data_keep_their_weights(source, tmp_path):
    """As data of another fit: weights of a policy, or those of w_factor, which counts once."""
    frame = pd.read_pickle(source, compression="gzip").drop(columns=["w_energy", "w_forces"])
    write_frame(frame, tmp_path / "data.pckl.gzip")
    for weighting in (None, {"type": "EnergyBasedWeightingPolicy"}):
        data = load_dataset(tmp_path / "data.pckl.gzip", reference_energy=0.0, weighting=weighting)
        assert np.ptp(data.w_energy) > 0
        write_store(tmp_path / "prepared.h5", data, 4.0)
        again = load_dataset(tmp_path / "prepared.h5")
        np.testing.assert_allclose(again.w_energy, data.w_energy)
        np.testing.assert_allclose(again.flat_w_forces, data.flat_w_forces)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_on_the_disk_before_it_gets_its_name(source, tmp_path, name, monkeypatch):
    synced, renamed, fsync, rename = set(), [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (synced.add(os.fstat(file).st_ino), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (renamed.append(Path(a).stat().st_ino in synced), rename(a, b)))
    data_command.main(["convert", str(source), str(tmp_path / name)])
    assert renamed == [True] and sorted(p.name for p in tmp_path.iterdir()) == sorted([name, source.name])


def test_formats_can_be_mixed_and_are_known_by_content(source, tmp_path):
    for name in ("b.extxyz", "d.db", "e.h5"):
        cli.main(["data", "convert", str(source), str(tmp_path / name)])
    hidden = []
    for k, name in enumerate(["b.extxyz", "d.db", "e.h5", "source.pckl.gzip"]):
        hidden.append(tmp_path / f"file{k}.dat")
        (tmp_path / name).rename(hidden[-1])
    mixed = load_dataset(hidden, reference_energy=0.0)
    assert len(mixed) == 48 and mixed.index == list(range(48))
    np.testing.assert_array_equal(mixed.energy[:12], mixed.energy[36:])
    assert mixed.weighting == "columns"
    write_frame(pd.read_pickle(hidden[-1], compression="gzip").drop(columns="w_energy"), hidden[-1])
    assert load_dataset(hidden, reference_energy=0.0).weighting == "uniform"  # not all have weights


def test_units_of_stress_are_those_of_a_file_that_says_none(source, tmp_path):
    """A store is in eV/Angstrom^3, whatever the files beside it have."""
    cli.main(["data", "convert", "--stress-units", "GPa", str(source), str(tmp_path / "e.h5")])
    data = read_raw([source, tmp_path / "e.h5"], stress_units="GPa")
    np.testing.assert_array_equal(data.stress[:12], data.stress[12:])
    assert data.stress[1] == pytest.approx(read_raw(source).stress[1] / 160.21766208)


def test_ase_reads_our_extxyz(source, tmp_path):
    cli.main(["data", "convert", str(source), str(tmp_path / "b.extxyz")])
    data = read_raw(source)
    for k, atoms in enumerate(read(tmp_path / "b.extxyz", ":")):
        np.testing.assert_array_equal(atoms.positions, data.atoms[k].positions)
        np.testing.assert_array_equal(atoms.arrays["REF_forces"], data.forces[k])
        assert atoms.info["REF_energy"] == data.energy[k] and atoms.info["config_type"] == f"kind{k % 2}"


def test_configured_names(tmp_path):
    text = '1\nProperties=species:S:1:pos:R:3:f_dft:R:3 e_dft=-1.5 pbc="F F F" w=2.5\nAl 0 0 0 0.1 0.2 0.3\n'
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(PacehpcError, match="neither a column 'energy'"):
        load_dataset(tmp_path / "a.xyz")
    keys = {"energy": "e_dft", "forces": "f_dft", "w_factor": "w"}
    data = read_raw(tmp_path / "a.xyz", keys=keys)
    assert data.energy == [-1.5] and data.extra["w_factor"] == [2.5]
    np.testing.assert_array_equal(data.forces[0], [[0.1, 0.2, 0.3]])
    arguments = [f"{column}={name}" for column, name in keys.items()]
    assert cli.main(["data", "info", str(tmp_path / "a.xyz"), "--keys", *arguments]) == 0


def test_a_single_force_weight_counts_for_all_atoms(tmp_path):
    frame = '2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 w_energy=3 w_forces={} pbc="F F F"\n'
    atoms = "Al 0 0 0 0 0 0\nAl 0 0 2.5 0 0 0\n"
    (tmp_path / "a.xyz").write_text("".join(frame.format(w) + atoms for w in (1, 3)))
    data = load_dataset(tmp_path / "a.xyz", reference_energy=0.0)
    np.testing.assert_allclose(data.flat_w_forces, [1 / 8, 1 / 8, 3 / 8, 3 / 8])
    assert data.w_energy.tolist() == [0.5, 0.5]


def test_split_is_the_split_of_a_fit(source, tmp_path):
    from pacehpc.config import load_settings
    from pacehpc.fit.data import load_data

    train, test = tmp_path / "train.extxyz", tmp_path / "test.pckl.gzip"
    assert (
        cli.main(["data", "split", str(source), "--test-size", "0.25", "--seed", "7", "-o", str(train), str(test)]) == 0
    )
    overrides = {"data.filename": [str(source)], "data.test_size": 0.25, "data.seed": 7, "data.reference_energy": 0.0}
    fitted = load_data(load_settings(None, overrides), None, 0.0, None)
    np.testing.assert_array_equal(read_raw(train).energy, fitted[0].energy)
    np.testing.assert_array_equal(read_raw(test).energy, fitted[1].energy)
    with pytest.raises(PacehpcError, match="leaves no train"):
        data_command.split(read_raw(source), 12, 1)


def test_info(source, capsys):
    data = read_raw(source)
    assert cli.main(["data", "info", str(source)]) == 0
    shown = capsys.readouterr().out
    assert f"{data.n_atoms} (" in shown and "4 clusters" in shown and "kind0 6" in shown and "w_energy" in shown
    pairs = data_command.shortest_distances(data)
    smallest = min(a.get_all_distances(mic=True)[np.triu_indices(len(a), 1)].min() for a in data.atoms if len(a) > 1)
    assert min(pairs.values()) == pytest.approx(smallest, abs=1e-12)


def test_a_store_with_lists_is_written_and_serves(source, tmp_path):
    assert cli.main(["data", "convert", str(source), str(tmp_path / "e.h5"), "--cutoff", "4"]) == 0
    with Store(tmp_path / "e.h5") as store:
        assert store.serves(4.0) and not store.serves(4.1) and store.n_bonds > 0


def test_ingest_and_mistakes(source, tmp_path, capsys):
    base = str(tmp_path / "all.db")
    assert cli.main(["data", "ingest", base, str(source), "--calculator", "DFT"]) == 0
    assert cli.main(["data", "ingest", base, str(source), "--calculator", "DFT"]) == 0
    assert len(read_raw(base)) == 24
    for arguments, message in (
        (["data", "convert", str(source), "x.what"], "format is not known"),
        (["data", "convert", str(source), str(source)], "one of the inputs"),
        (["data", "convert", str(source), str(tmp_path / "no" / "x.xyz")], "cannot be written"),
        (["data", "convert", str(source), "x.h5", "--cutoff", "nan"], "--cutoff"),
        (["data", "info", str(source), "--keys", "energy"], "COLUMN=NAME"),
        (["data", "info", str(source), "--keys", "enrgy=x"], "unknown key"),
        (["data", "ingest", base, str(source), "--calculator", "a b"], "may hold"),
        (["data", "info", "absent.xyz"], "not found"),
    ):
        assert cli.main(arguments) == 1
        assert message in capsys.readouterr().err


def test_options_before_the_files(tmp_path, capsys):
    """`--keys COLUMN=NAME FILE` as the help shows it, several after one --keys, and a unit that begins with a minus."""
    text = '2\nLattice="4 0 0 0 4 0 0 0 5" Properties=species:S:1:pos:R:3:f_dft:R:3 e_dft=-1.5'
    text += ' stress="9 0 0 0 9 0 0 0 9"\n'
    path = tmp_path / "a.xyz"
    path.write_text(text + "Al 0 0 0 0.1 0 0\nAl 0 0 2.4 -0.1 0 0\n")
    for order in (["--stress-units", "-kbar", "--keys", "energy=e_dft", "forces=f_dft", str(path)],
                  [str(path), "--keys", "energy=e_dft", "--keys", "forces=f_dft", "--stress-units=-kbar"]):  # fmt: skip
        assert cli.main(["data", "info", *order]) == 0
        shown = capsys.readouterr().out
        assert (
            "-0.7500 to -0.7500 eV/atom" in shown and "up to 0.1000 eV/Å" in shown and "up to 0.005617 eV/Å³" in shown
        )
    assert cli.main(["data", "info", "--keys", "energy", str(path)]) == 1
    assert "is not COLUMN=NAME" in capsys.readouterr().err


def test_energies_alone_are_shown(tmp_path, capsys):
    (tmp_path / "a.xyz").write_text('2\nenergy=-1.5 pbc="F F F"\nAl 0 0 0\nAl 0 0 2.4\n')
    assert cli.main(["data", "info", str(tmp_path / "a.xyz")]) == 0
    shown = capsys.readouterr().out
    assert "-0.7500 to -0.7500 eV/atom" in shown and "forces" not in shown


@pytest.mark.parametrize("name", ["o.extxyz", "o.pckl.gzip", "o.db", "o.h5"])
def test_names_and_groups_are_kept(name, tmp_path):
    columns = "species:S:1:pos:R:3:REF_forces:R:3"
    text = f"1\nProperties={columns} REF_energy=-1.5 name=s{{}} config_type=kind{{}}\nAl 0 0 0 0 0 0\n"
    (tmp_path / "a.extxyz").write_text("".join(text.format(k, k % 2) for k in range(4)))
    assert cli.main(["data", "convert", str(tmp_path / "a.extxyz"), str(tmp_path / name)]) == 0
    data = read_raw(tmp_path / name)
    assert data.names == ["s0", "s1", "s2", "s3"]
    assert [one["config_type"] for one in data.info] == ["kind0", "kind1"] * 2
