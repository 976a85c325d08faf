"""Relax cell and positions of Ni₃Al together, from a strained start.

python relax_cell.py [POTENTIAL]
"""

import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from pacehpc import PaceCalculator

potential = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("al_ni.yace")

atoms = bulk("Ni", a=3.66, cubic=True)
atoms.symbols[0] = "Al"
strain = np.array([[0.03, 0.01, 0.0], [0.01, -0.02, 0.0], [0.0, 0.0, 0.02]])
atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
atoms.rattle(0.05, seed=1)
atoms.calc = PaceCalculator(potential)

BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=200)

lengths, angles = atoms.cell.cellpar()[:3], atoms.cell.cellpar()[3:]
print(f"cell lengths: {lengths.round(4)} Å, angles: {angles.round(3)}°")
print(f"energy: {atoms.get_potential_energy() / len(atoms):.5f} eV/atom")
force, stress = abs(atoms.get_forces()).max(), abs(atoms.get_stress()).max() / units.GPa
print(f"largest force {force:.1e} eV/Å, stress {stress:.1e} GPa")
