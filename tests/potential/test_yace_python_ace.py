"""Our .yace files, evaluated by the library that LAMMPS runs, give the energies and forces of our calculator."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc100
from ase.data import covalent_radii
from ase.io import read, write

from pacehpc import PaceCalculator, Potential
from pacehpc.potential import build_potential, export_yace

pytestmark = pytest.mark.slow

EVALUATE = """
import json, sys
from ase.io import read
from pyace import PyACECalculator

results = []
for potential, structures, options in json.loads(sys.argv[1]):
    calculator = PyACECalculator(potential, **options)
    for atoms in read(structures, ":"):
        atoms.calc = calculator
        results.append((float(atoms.get_potential_energy()), atoms.get_forces().tolist()))
json.dump(results, open("results.json", "w"))
"""
RECURSIVE = {"recursive_evaluator": True, "recursive": True}
SPLINE_BIN = 2e-5  # Å; its error in the forces is below the tolerance

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


def test_same_energies_and_forces(python_ace, golden, section, tmp_path):
    potentials = {name: Potential.load(golden / "potentials" / f"{name}.yaml") for name in GOLDEN}
    potentials |= {f"built_{n}": built(section, n) for n in (1, 2, 3, 4, 5)}
    cases = []
    for name, potential in potentials.items():
        potential.delta_spline_bins = SPLINE_BIN
        export_yace(potential, tmp_path / f"{name}.yace")
        write(tmp_path / f"{name}.traj", structures(potential.elements))
        # the recursive evaluator gives wrong and changing energies where elements differ in ndensity
        alike = len({embedding.ndensity for embedding in potential.embeddings.values()}) == 1
        cases.append((name, RECURSIVE if alike else {}))
    command = [
        python_ace,
        "-c",
        EVALUATE,
        json.dumps([(f"{name}.yace", f"{name}.traj", options) for name, options in cases]),
    ]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    results = iter(json.loads((tmp_path / "results.json").read_text()))

    assert {len(options) for _, options in cases} == {0, 2}
    for name, potential in potentials.items():
        calculators = PaceCalculator(potential), PaceCalculator(tmp_path / f"{name}.yace", backend="reference")
        for atoms in read(tmp_path / f"{name}.traj", ":"):
            energy, forces = next(results)
            for calculator in calculators:
                atoms.calc = calculator
                where = f"{name}, {atoms.get_chemical_formula()}, {calculator.backend}"
                scale = max(1.0, abs(energy) / len(atoms))
                assert atoms.get_potential_energy() / len(atoms) == pytest.approx(
                    energy / len(atoms), rel=0, abs=1e-9 * scale
                ), where
                np.testing.assert_allclose(
                    atoms.get_forces(), forces, rtol=0, atol=1e-8 * max(1.0, abs(np.array(forces)).max()), err_msg=where
                )
                assert abs(np.array(forces)).max() > 1e-3, where
    assert next(results, None) is None
