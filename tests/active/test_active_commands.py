"""activeset, select and predict as commands, on one rank and several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk

from pacehpc import PaceCalculator, Potential
from pacehpc.active.active_set import ActiveSet

Command = Callable[..., str]


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_same_file_on_any_ranks(alni: Path, command: Command, ranks: int) -> None:
    command("activeset", "pot.yaml", "-d", "data.pckl.gzip", "-a", "-o", f"r{ranks}.asi", ranks=ranks, folder=alni)
    assert (alni / f"r{ranks}.asi").read_bytes() == (alni / "pot.asi").read_bytes()


def test_grades_of_the_data(alni: Path, command: Command) -> None:
    command("predict", "pot.yaml", "data.pckl.gzip", "-a", "pot.asi", "-o", "pred.pckl.gzip", ranks=2, folder=alni)
    frame = pd.read_pickle(alni / "pred.pckl.gzip", compression="gzip")
    assert len(frame) == 174
    assert frame.gamma_max.max() <= 1.01
    calculator = PaceCalculator(alni / "pot.yaml")
    for k in (0, 50, 173):
        atoms = frame.ase_atoms[k]
        atoms.calc = calculator
        assert frame.energy_pred[k] == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(frame.forces_pred[k], atoms.get_forces(), atol=1e-12)
        if atoms.pbc.all():
            np.testing.assert_allclose(frame.stress_pred[k], atoms.get_stress(), atol=1e-12)


def test_grades_in_data_and_report(alni: Path, command: Command) -> None:
    """Grades by group for a data file, and the figure of errors against grades in a fit's folder."""
    text = command("data", "info", "data.pckl.gzip", "--potential", "pot.yaml", folder=alni)
    assert "above 10" in text
    command("predict", "pot.yaml", "data.pckl.gzip", "-o", "test_pred.pckl.gzip", folder=alni)
    command("activeset", "pot.yaml", "-d", "data.pckl.gzip", "-a", "-o", "again.asi", ranks=2, folder=alni)
    assert (alni / "report" / "test_F-grade.png").stat().st_size > 5000
    (alni / "test_pred.pckl.gzip").unlink()


def test_full_active_set(alni: Path, command: Command) -> None:
    text = command("activeset", "pot.yaml", "-d", "data.pckl.gzip", "-a", "-f", ranks=2, folder=alni)
    assert "Al: 231 atoms, 84 functions" in text
    full = ActiveSet.load(alni / "pot.asi.nonlinear", Potential.load(alni / "pot.yaml"))
    assert full.full
    assert all(np.abs(inverse).max() > 0 for inverse in full.inverses.values())
    output = "full.extxyz"
    command("predict", "pot.yaml", "data.pckl.gzip", "-a", "pot.asi.nonlinear", "-o", output, folder=alni)
    assert max(atoms.arrays["gamma"].max() for atoms in ase.io.read(alni / output, ":")) <= 1.01


def test_selection(alni: Path, command: Command) -> None:
    """Of the data and some far structures, the far ones are selected once the data are known."""
    pool = [bulk("NiAl", "cesiumchloride", a=a) for a in (2.0, 2.2)] + [Atoms("AlNi", [[0, 0, 0], [0, 0, 1.7]])]
    ase.io.write(alni / "pool.extxyz", pool)
    names = ["data.pckl.gzip", "pool.extxyz"]
    command("select", *names, "-p", "pot.yaml", "-a", "pot.asi", "-o", "one.pkl.gz", folder=alni)
    command("select", *names, "-p", "pot.yaml", "-a", "pot.asi", "-o", "two.pkl.gz", ranks=2, folder=alni)
    one, two = (pd.read_pickle(alni / f"{name}.pkl.gz", compression="gzip") for name in ("one", "two"))
    assert one.origin.tolist() == two.origin.tolist()
    assert all("pool.extxyz" in origin for origin in one.origin)
    command("select", *names, "-p", "pot.yaml", "-m", "20", "-o", "many/POSCAR", folder=alni)
    assert len(list((alni / "many").iterdir())) == 20


@pytest.mark.parametrize(
    ("program", "output"), [("predict", "out.extxyz"), ("select", "out.extxyz"), ("select", "poscars/POSCAR")]
)
@pytest.mark.parametrize("source", ["pool.extxyz", "cell.cif"])
def test_files_of_ase_on_two_ranks(alni: Path, command: Command, program: str, output: str, source: str) -> None:
    """ASE would read and write by all ranks together, where the first one does it alone."""
    ase.io.write(alni / source, bulk("NiAl", "cesiumchloride", a=2.1) * (2, 1, 1))
    options = [] if program == "predict" else ["-p", "pot.yaml", "-a", "pot.asi"]
    written = []
    for ranks in (1, 2):
        name = f"{program}{ranks}/{output}"
        (alni / name).parent.mkdir(parents=True, exist_ok=True)
        words = ["pot.yaml", source] if program == "predict" else [source]
        command(program, *words, *options, "-o", name, ranks=ranks, folder=alni)
        found = sorted(path for path in (alni / name).parent.iterdir() if path.is_file())
        written.append([path.read_bytes() for path in found])
        for path in found:
            path.unlink()
    assert written[0] and written[0] == written[1]


def test_selection_from_a_lammps_dump(alni: Path, command: Command) -> None:
    cell = bulk("NiAl", "cesiumchloride", a=2.1) * (2, 2, 2)
    lines = ["ITEM: TIMESTEP", "0", "ITEM: NUMBER OF ATOMS", str(len(cell)), "ITEM: BOX BOUNDS pp pp pp"]
    lines += ["0 4.2"] * 3 + ["ITEM: ATOMS id type x y z"]
    lines += [
        f"{k + 1} {1 if s == 'Al' else 2} {x:.6f} {y:.6f} {z:.6f}"
        for k, (s, (x, y, z)) in enumerate(zip(cell.symbols, cell.positions, strict=True))
    ]
    (alni / "extrapolative_structures.dat").write_text("\n".join(lines) + "\n")
    arguments = ["select", "extrapolative_structures.dat", "-p", "pot.yaml", "-a", "pot.asi"]
    assert "name the elements" in command(*arguments, folder=alni, fails=True)
    command(*arguments, "-e", "Al Ni", "-o", "dump.pkl.gz", ranks=2, folder=alni)
    frame = pd.read_pickle(alni / "dump.pkl.gz", compression="gzip")
    assert sorted(frame.ase_atoms[0].symbols) == sorted(cell.symbols)
    assert frame.ase_atoms[0].pbc.all()


def test_outliers_are_left_out_unless_told(alni: Path, command: Command) -> None:
    text = command("activeset", "pot.yaml", "-d", "data.pckl.gzip", "-o", "fewer.asi", folder=alni)
    assert "Left out: 68 of 449 atoms whose force errors are outliers of their element" in text
    text = command("activeset", "pot.yaml", "-d", "data.pckl.gzip", "-o", "limit.asi", "-e", "1e9", folder=alni)
    assert "Left out: 0 of 449 atoms" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["activeset", "pot.yaml", "-d", "missing.pckl.gzip"], "missing.pckl.gzip"),
        (["activeset", "pot.yaml", "-d", "data.pckl.gzip", "-g", "1.0"], "must be above 1"),
        (["activeset", "pot.yaml", "-d", "data.pckl.gzip", "-q", "nonsense > 1"], "the columns are"),
        (["predict", "pot.yaml", "data.pckl.gzip", "-a", "pot.yaml"], "not an active set"),
        (["predict", "pot.yaml", "data.pckl.gzip", "-o", "x.csv"], "must end in"),
        (["select", "data.pckl.gzip", "-p", "pot.yaml", "-a", "none.asi"], "there is no such file"),
    ],
)
def test_mistakes(alni: Path, command: Command, arguments: list[str], expected: str) -> None:
    assert expected in command(*arguments, folder=alni, fails=True, ranks=2)
