"""Our files, evaluated by the library that LAMMPS runs, give the energies and forces of our calculator.

Both of its evaluators are compared: the recursive one of `pair_style pace`, and that of `pair_style pace product`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc100
from ase.data import covalent_radii
from ase.io import read, write

from pacehpc import PaceCalculator, Potential
from pacehpc.backends.oracle import ReferenceEvaluator
from pacehpc.dataset import structures_of
from pacehpc.potential import build_potential, export_bbasis, export_yace
from pacehpc.utilities.splines import SplinedEvaluator, crystals

pytestmark = pytest.mark.slow

EVALUATE = """
import json, sys
from ase.io import read
from pyace import ACEBBasisSet, PyACECalculator

results = []
for potential, structures, recursive in json.loads(sys.argv[1]):
    if potential.endswith(".yaml"):  # as LAMMPS does with such a file
        ACEBBasisSet(potential).to_ACECTildeBasisSet().save_yaml(potential + ".yace")
        potential += ".yace"
    calculator = PyACECalculator(potential, recursive_evaluator=True, recursive=recursive)
    for atoms in read(structures, ":"):
        atoms.calc = calculator
        results.append((float(atoms.get_potential_energy()), atoms.get_forces().tolist()))
json.dump(results, open("results.json", "w"))
"""
SPLINE_BIN = 1e-4  # Å; its error in the forces is below the tolerance

GOLDEN = (
    "al_chebexpcos", "al_cheblinear", "al_density_core", "alni_mixed", "cu_chebpow_dcut", "cu_expcos_dcut", "cuozr_zbl",
    "ni_sbessel",
)  # fmt: skip
ELEMENTS = ("Co", "Cr", "Fe", "Mn", "Ni")


def built(section, n_elements: int) -> Potential:
    """A potential of rank 4 for several elements with random coefficients."""
    functions = {
        "UNARY": {"nradmax_by_orders": [6, 3, 2, 1], "lmax_by_orders": [0, 3, 2, 1]},
        "BINARY": {"nradmax_by_orders": [4, 2, 1], "lmax_by_orders": [0, 2, 1]},
        "TERNARY": {"nradmax_by_orders": [0, 1, 1], "lmax_by_orders": [0, 1, 1]},
    }
    potential = build_potential(section(ELEMENTS[:n_elements], functions))
    rng = np.random.default_rng(n_elements)
    for c in potential.radcoefficients.values():
        c += 0.1 * rng.normal(size=c.shape)
    for block in potential.blocks:
        block.coefficients = 0.02 * rng.normal(size=block.coefficients.shape)
    return potential


def structures(elements: tuple[str, ...]) -> list[Atoms]:
    """A crystal, a slab in a periodic cell, a cluster and a dimer of all elements."""
    rng = np.random.default_rng(len(elements))
    a = 2**0.5 * 2.1 * np.mean([covalent_radii[Atoms(element).numbers[0]] for element in elements])
    crystal = bulk("Cu", "fcc", a=a, cubic=True) * (2, 1, 1)
    slab = fcc100("Cu", (2, 2, 3), a=a, vacuum=6.0)
    slab.pbc = True
    cluster = bulk("Cu", "fcc", a=a, cubic=True) * (2, 2, 1)
    cluster.pbc, cluster.cell = False, None
    dimer = Atoms("Cu2", positions=[[0, 0, 0], [0.6 * a, 0.1, 0.2]])
    frames = [crystal, slab, cluster, dimer]
    for atoms in frames:
        atoms.symbols = np.resize(elements, len(atoms))
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.info.clear()
    return [Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc) for atoms in frames]


def evaluated(python_ace, folder, cases) -> list[tuple[float, np.ndarray]]:
    """Energies and forces of cases (file, file with structures, whether recursively), structure by structure."""
    command = [python_ace, "-c", EVALUATE, json.dumps(cases)]
    subprocess.run(command, cwd=folder, text=True, check=True)
    return [(energy, np.array(forces)) for energy, forces in json.loads((folder / "results.json").read_text())]


def test_same_energies_and_forces(python_ace, golden, section, tmp_path):
    potentials = {name: Potential.load(golden / "potentials" / f"{name}.yaml") for name in GOLDEN}
    potentials |= {f"built_{n}": built(section, n) for n in (1, 2, 3, 4, 5)}
    cases = []
    for name, potential in potentials.items():
        potential.delta_spline_bins = SPLINE_BIN
        export_yace(potential, tmp_path / f"{name}.yace")
        write(tmp_path / f"{name}.traj", structures(potential.elements))
        cases += [(f"{name}.yace", f"{name}.traj", recursive) for recursive in (True, False)]
    results = iter(evaluated(python_ace, tmp_path, cases))
    for name, potential in potentials.items():
        frames = read(tmp_path / f"{name}.traj", ":")
        calculators = PaceCalculator(potential), PaceCalculator(tmp_path / f"{name}.yace", backend="reference")
        expected = [
            [(e.get_potential_energy(), e.get_forces()) for e in with_calculator(frames, c)] for c in calculators
        ]
        for recursive in (True, False):
            for k, atoms in enumerate(frames):
                energy, forces = next(results)
                for own, calculator in zip(expected, calculators, strict=True):
                    where = f"{name}, {atoms.get_chemical_formula()}, {calculator.backend}, recursive: {recursive}"
                    scale = max(1.0, abs(energy) / len(atoms))
                    assert own[k][0] / len(atoms) == pytest.approx(energy / len(atoms), rel=0, abs=1e-9 * scale), where
                    np.testing.assert_allclose(
                        own[k][1], forces, rtol=0, atol=1e-8 * max(1.0, abs(forces).max()), err_msg=where
                    )
                    assert abs(forces).max() > 1e-3, where
    assert next(results, None) is None


def with_calculator(frames: list[Atoms], calculator: PaceCalculator) -> Iterator[Atoms]:
    for atoms in frames:
        atoms.calc = calculator
        yield atoms


def test_elements_that_differ_in_ndensity(python_ace, golden, tmp_path):
    """B2 NiAl: right from .yace and from B-basis files that are written for LAMMPS, wrong from others."""
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    potential.delta_spline_bins = 0.001
    export_yace(potential, tmp_path / "a.yace")
    export_bbasis(potential, tmp_path / "b.yaml")
    potential.save(tmp_path / "unequal.yaml")
    write(tmp_path / "b2.traj", bulk("AlNi", "cesiumchloride", a=2.9))
    cases = [(file, "b2.traj", recursive) for file in ("a.yace", "b.yaml") for recursive in (True, False)]
    energies = [energy for energy, _ in evaluated(python_ace, tmp_path, cases)]
    assert energies == pytest.approx([6.14500] * 4, abs=5e-6)
    for recursive in (True, False):
        try:
            [(energy, _)] = evaluated(python_ace, tmp_path, [("unequal.yaml", "b2.traj", recursive)])
        except subprocess.CalledProcessError as error:
            assert error.returncode < 0  # the library writes past its arrays, and sometimes crashes
        else:
            assert abs(energy - 6.145) > 1  # if this fails, padding is needed no more


def test_change_of_forces_by_splines(python_ace, golden, tmp_path):
    """Our splines are those of the library, whether or not a whole number of bins makes up rcut."""
    cases, expected = [], []
    for name, width in {"alni_mixed": 1e-3, "cu_expcos_dcut": 7e-4, "al_chebexpcos": 1e-3}.items():
        potential = Potential.load(golden / "potentials" / f"{name}.yaml")
        potential.delta_spline_bins = width
        frames = crystals(potential)
        export_yace(potential, tmp_path / f"{name}.yace")
        write(tmp_path / f"{name}.traj", frames)
        cases.append((f"{name}.yace", f"{name}.traj", True))
        data = structures_of(frames, potential)
        evaluators = SplinedEvaluator(potential, data, width), ReferenceEvaluator(potential, data)
        both = [np.split(e.predict(potential.parameters).forces, data.atom_offsets[1:-1]) for e in evaluators]
        expected += zip(*both, strict=True)
    found = evaluated(python_ace, tmp_path, cases)
    for (splined, exact), (_, forces) in zip(expected, found, strict=True):
        change = abs(splined - exact).max()
        assert change > 1e-9 and abs(forces - splined).max() < 0.01 * change + 1e-10
