"""yaml2yace, corerep, compile and timing through their main functions, and the command that leads to them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from pacehpc import cli
from pacehpc.backends.compile import compile_library
from pacehpc.backends.shape import make_shape
from pacehpc.machine import processor
from pacehpc.potential import Potential, build_potential, export_yace
from pacehpc.utilities import compile as compile_ahead
from pacehpc.utilities import corerep, timing, yaml2yace

INPUT = """\
potential:
  elements: [Al]
  embeddings: {ALL: {npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1], ndensity: 1}}
  bonds: {ALL: {radbase: ChebExpCos, radparameters: [5.25], rcut: 4.0, dcut: 0.01}}
  functions: {ALL: {nradmax_by_orders: [3, 2], lmax_by_orders: [0, 1]}}
data: absent.pckl.gzip
fit: {loss: {kappa: 0.3}}
backend: {evaluator: cpu}
"""


@pytest.fixture
def folder(golden, tmp_path, monkeypatch):
    for name in ("al_chebexpcos", "alni_mixed"):
        (tmp_path / f"{name}.yaml").write_bytes((golden / "potentials" / f"{name}.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_yaml2yace(folder, capsys):
    assert yaml2yace.main(["al_chebexpcos.yaml", "alni_mixed.yaml"]) == 0
    assert capsys.readouterr().out == "al_chebexpcos.yaml -> al_chebexpcos.yace\nalni_mixed.yaml -> alni_mixed.yace\n"
    for name in ("al_chebexpcos", "alni_mixed"):
        export_yace(Potential.load(f"{name}.yaml"), "expected")
        assert (folder / f"{name}.yace").read_bytes() == (folder / "expected").read_bytes()
    assert yaml2yace.main(["-o", "other.yace", "al_chebexpcos.yaml"]) == 0
    assert (folder / "other.yace").read_bytes() == (folder / "al_chebexpcos.yace").read_bytes()


def test_yaml2yace_writes_a_bbasis_file_for_lammps(folder):
    assert yaml2yace.main(["--yaml", "alni_mixed.yaml"]) == 0
    written = Potential.load("alni_mixed_lammps.yaml")
    assert {embedding.ndensity for embedding in written.embeddings.values()} == {2}
    assert yaml2yace.main(["--yaml", "alni_mixed.yaml", "-o", "other.yaml", "--spline-bin", "0.002"]) == 0
    assert Potential.load("other.yaml").delta_spline_bins == 0.002


@pytest.mark.parametrize(
    "argv, message",
    [
        (["absent.yaml"], "absent.yaml"),
        (["-o", "x.yace", "al_chebexpcos.yaml", "alni_mixed.yaml"], "one file for 2"),
        (["x.yace"], "is a .yace file already"),
        (["-o", "x.yaml", "al_chebexpcos.yaml"], "means a B-basis file; end it with .yace, or add --yaml"),
        (["--yaml", "-o", "x.yace", "al_chebexpcos.yaml"], "--yaml writes a B-basis file; end its name with .yaml"),
        (
            ["--yaml", "-o", "al_chebexpcos.yaml", "al_chebexpcos.yaml"],
            "is the input itself; give another",
        ),
        (["--spline-bin", "-1", "al_chebexpcos.yaml"], "deltaSplineBins is -1.0; it must be a positive number"),
    ],
)
def test_yaml2yace_mistakes(folder, capsys, argv, message):
    assert yaml2yace.main(argv) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "x.yace").exists() and not (folder / "x.yaml").exists()


def test_nothing_can_be_written_nor_removed(folder, capsys, monkeypatch):
    """On a file system that is mounted read-only."""

    def refused(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    assert yaml2yace.main(["alni_mixed.yaml"]) == 1
    assert "alni_mixed.yace: cannot be written: Read-only file system" in capsys.readouterr().err


def test_corerep(folder):
    options = (
        "--r-in 1.8 --delta-in 0.1 --core-repulsion 1 1 --inner-cutoff-type zbl --rho-core-cut 1 --drho-core-cut 1"
    )
    assert corerep.main(["alni_mixed.yaml", "-o", "out.yaml", *options.split()]) == 0
    before, after = Potential.load("alni_mixed.yaml"), Potential.load("out.yaml")
    before.set_core_repulsion("ALL", 1.8, 0.1, (1.0, 1.0), 1.0, 1.0, "zbl")
    assert after.bonds == before.bonds and after.embeddings == before.embeddings
    assert {bond.r_in for bond in after.bonds.values()} == {1.8}
    np.testing.assert_array_equal(after.parameters, before.parameters)
    assert corerep.main(["alni_mixed.yaml", "-o", "out.yace", *options.split()]) == 0
    export_yace(after, "expected.yace")
    assert (folder / "out.yace").read_bytes() == (folder / "expected.yace").read_bytes()


def test_corerep_of_one_bond(folder, capsys):
    assert corerep.main(["alni_mixed.yaml", "-o", "out.yaml", "--bond", "AlNi", "--r-in", "1.1"]) == 0
    assert {pair: bond.r_in for pair, bond in Potential.load("out.yaml").bonds.items()} == {
        ("Al", "Al"): 1.5, ("Al", "Ni"): 1.1, ("Ni", "Al"): 1.1, ("Ni", "Ni"): 1.5,
    }  # fmt: skip
    assert corerep.main(["alni_mixed.yaml", "-o", "two.yaml"]) == 1
    assert corerep.main(["alni_mixed.yaml", "-o", "two.yaml", "--bond", "AlNi", "--inner-cutoff-type", "zbl"]) == 1
    assert "same inner_cutoff_type" in capsys.readouterr().err
    assert not (folder / "two.yaml").exists()


@pytest.mark.parametrize("ladder", ["", "  ladder_step: 2\n  ladder_type: power_order\n"])
def test_compile_fills_the_cache(folder, capsys, monkeypatch, ladder):
    """Every potential of the fit is prepared, for the fit and for predictions with stresses."""
    (folder / "input.yaml").write_text(
        INPUT.replace("fit: {loss: {kappa: 0.3}}\n", "fit:\n  loss: {kappa: 0.3}\n" + ladder)
    )
    prepared, prepared_for_ase = [], []
    monkeypatch.setattr(compile_ahead, "prepare_kernels", lambda *args: prepared.append(args))
    monkeypatch.setattr(compile_ahead, "prepare_program", lambda potential: prepared_for_ase.append(potential))
    assert compile_ahead.main([]) == 0
    target = build_potential(compile_ahead.load_settings("input.yaml").potential)
    assert [name for name, *_ in prepared] == ["cpu"] * len(prepared)
    assert prepared[-1][1].n_functions == target.n_functions == 9
    fitted = [potential.n_functions for _, potential, _, *virials in prepared if not virials]
    predicted = [potential.n_functions for _, potential, _, *virials in prepared if virials == [True]]
    assert (len(fitted) > 1) == bool(ladder)
    assert fitted == predicted == sorted(set(fitted))
    assert [potential.n_functions for potential in prepared_for_ase] == [9]
    assert "for cpu" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("repulsion", ["", "  repulsion: auto\n"])
def test_fit_needs_no_compiler_after_compile(folder, tmp_path, monkeypatch, repulsion):
    """On data with stresses, up to the last line: renewals, predictions, uncertainties, a repulsion are part of it. Nor
    does the calculator need one."""
    data = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"
    text = INPUT.replace("[Al]", "[Al, Ni]").replace("absent.pckl.gzip", str(data))
    keys = "  loss: {kappa: 0.3}\n  maxiter: 3\n  optimizer: GN-BFGS\n  options: {start: 1, renew: 2}\n"
    keys += "  uncertainty: true\n"
    text = text.replace("fit: {loss: {kappa: 0.3}}\n", f"fit:\n{keys}{repulsion}")
    text = text.replace(f"data: {data}", f"data: {{filename: {data}, reference_energy: auto}}")
    (folder / "input.yaml").write_text(text)
    environment = {**os.environ, "PACEHPC_CACHE": str(tmp_path / "cache")}

    def run(*command: str, **more: str) -> str:
        command = [sys.executable, "-m", "pacehpc", *command]
        done = subprocess.run(command, cwd=folder, text=True, capture_output=True, env={**environment, **more})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("compile")
    assert "Stress (train): RMSE" in run("input.yaml", CXX="/absent")
    assert "renewed" in (folder / "log.txt").read_text() and (folder / "output_potential.uq.npz").exists()

    monkeypatch.setenv("PACEHPC_CACHE", environment["PACEHPC_CACHE"])
    shape = make_shape(Potential.load(folder / "output_potential.yaml"))
    assert compile_library(shape.header(stress=False), "program")[1] == 0.0


def test_timing(folder, capsys, monkeypatch):
    monkeypatch.setattr(timing, "ATOMS", 16)
    monkeypatch.setattr(timing, "seconds", lambda work: (work(), 1e-3)[1])
    assert timing.main(["-n", "2", "alni_mixed.yaml"]) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines() if line.endswith("cpu")]
    assert [row[0] for row in rows] == ["fcc", "bcc"]
    for row in rows:
        assert float(row[3]) == float(row[4]) == pytest.approx(1e3 / int(row[1]), abs=0.01)
    assert processor() in text
    assert timing.main(["-n", "0", "alni_mixed.yaml"]) == 1


def test_crystals_are_solids(golden):
    """Distances and densities of the timed structures are those of solids, packed as their lattice says."""
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    for lattice, filling in (("fcc", np.pi / 18**0.5), ("bcc", np.pi * 3**0.5 / 8)):
        atoms = timing.crystal(potential, lattice, np.random.default_rng(0))
        assert set(atoms.get_chemical_symbols()) == {"Al", "Ni"} and len(atoms) > 150
        distances = atoms.get_all_distances(mic=True) + 100 * np.eye(len(atoms))
        neighbours = np.sort(distances, axis=1)[:, : 12 if lattice == "fcc" else 8].mean()
        assert np.pi / 6 * neighbours**3 * len(atoms) / atoms.get_volume() == pytest.approx(filling, rel=0.1)
        assert 8 < atoms.get_volume() / len(atoms) < 20


def test_subcommands(folder, capsys):
    """A subcommand wins over a file of its name, which remains available as ./info."""
    (folder / "info").write_text("not: [yaml")
    assert cli.main(["info", "alni_mixed.yaml"]) == 0
    assert "Functions:   326" in capsys.readouterr().out
    assert cli.main(["yaml2yace", "absent.yaml"]) == 1
    assert "absent.yaml" in capsys.readouterr().err
    assert cli.main(["./info"]) == 1
    assert "not valid YAML" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.SUBCOMMANDS)
def test_every_subcommand_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as end:
        import_module(cli.SUBCOMMANDS[name]).main(["-h"])
    assert end.value.code == 0
    assert "usage: pace" in capsys.readouterr().out
