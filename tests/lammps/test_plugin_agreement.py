"""Energies, forces and pressures of the plugin in LAMMPS are those of the calculator, on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import read
from lammps_runs import BAR, read_dump, standard, write_data

from pacehpc import PaceCalculator

FIELD_NAMES = (("activeset/cu", "cu"), ("activeset/alni", "alni"), ("activeset/eth", "eth"), ("loss/cu_forces", "cu"))
FIELD = {f"golden/{name}": f"golden/activeset/{frames}" for name, frames in FIELD_NAMES}
"""Potential file and its structures."""

FRAME = """
clear
units metal
boundary {boundary}
box tilt large
atom_modify map array
read_data {data}
pair_style pacehpc
pair_coeff * * {elements}
neighbor 0.4 bin
compute e all pe/atom
compute s all stress/atom NULL pair
compute sum all reduce sum c_s[*]
thermo_style custom step pe pxx pyy pzz pxy pxz pyz c_sum[*]
dump d all custom 1 {dump} id fx fy fz c_e
dump_modify d format float %.17g
run 0
print "RESULT $(pe:%.17g) $(pxx:%.17g) $(pyy:%.17g) $(pzz:%.17g) $(pyz:%.17g) $(pxz:%.17g) $(pxy:%.17g) $(vol:%.17g) &
$(c_sum[1]:%.17g) $(c_sum[2]:%.17g) $(c_sum[3]:%.17g) $(c_sum[6]:%.17g) $(c_sum[5]:%.17g) $(c_sum[4]:%.17g)"
"""


def golden_cases(golden, shared):
    """(name, potential file, structures): every shape of potential."""
    paths = sorted((golden / "potentials").glob("*.extxyz"))
    return [(path.stem, path.with_suffix(".yaml"), read(path, ":")) for path in paths]


def field_cases(golden, shared):
    """The same of potentials as fits write them."""
    cases = []
    for name, frames in FIELD.items():
        path = shared(f"{name}.yaml")
        cases.append((path.stem, path, read(shared(f"{frames}.extxyz"), ":6")))
    return cases


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("make_cases", [golden_cases, field_cases])
def test_same_as_the_calculator(make_cases, ranks, golden, shared, plugin, lammps, tmp_path):
    """Every structure of every potential in one run of LAMMPS, which loads and unloads a plugin after the other."""
    cases = make_cases(golden, shared)
    if ranks > 1:  # crystals and a slab; with cores for two, four ranks are slow
        count = 4 if ranks == 2 else 2
        cases = [(n, path, frames[3 : 3 + count] if len(frames) > 7 else frames[:count]) for n, path, frames in cases]
    commands, expected = ["atom_modify map array"], []
    for number, (name, path, frames) in enumerate(cases):
        calculator = PaceCalculator(path)
        elements = calculator.potential.elements
        commands += ["plugin unload pair pacehpc"] if number else []
        commands.append(f"plugin load {plugin(path)}")
        for k, atoms in enumerate(map(standard, frames)):
            types = np.array([elements.index(symbol) + 1 for symbol in atoms.symbols])
            write_data(tmp_path / f"{name}_{k}.data", atoms, types, len(elements))
            boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
            where = {"data": f"{name}_{k}.data", "dump": f"{name}_{k}.dump"}
            commands.append(FRAME.format(boundary=boundary, elements=" ".join(elements), **where))
            atoms.calc = calculator
            stress = atoms.get_stress() if atoms.pbc.all() else None
            expected.append((f"{name}_{k}", atoms.get_potential_energies(), atoms.get_forces(), stress))
    done = lammps.run(tmp_path, "\n".join(commands), ranks)
    results = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert len(results) == len(expected) >= len(cases)
    for (where, energies, forces, stress), result in zip(expected, np.array(results, float), strict=True):
        dump = read_dump(tmp_path / f"{where}.dump")
        scale = max(abs(energies).sum(), 1e-6)
        assert result[0] == pytest.approx(energies.sum(), rel=0, abs=1e-12 * scale), where
        np.testing.assert_allclose(dump[:, 4], energies, rtol=0, atol=1e-12 * scale, err_msg=where)
        largest = max(abs(forces).max(), 1.0)  # what vanishes by symmetry is a sum of larger forces
        np.testing.assert_allclose(dump[:, 1:4], forces, rtol=0, atol=1e-12 * largest, err_msg=where)
        # pressure × volume from pairs and from atoms
        virial = result[1:7] * result[7]
        np.testing.assert_allclose(result[8:], -virial, rtol=0, atol=1e-11 * max(1.0, abs(virial).max()), err_msg=where)
        if stress is not None:
            largest = max(abs(stress).max() * BAR, 1e4)  # near equilibrium, a difference of larger parts
            np.testing.assert_allclose(result[1:7], -stress * BAR, rtol=0, atol=1e-12 * largest, err_msg=where)
