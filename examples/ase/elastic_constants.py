"""Elastic constants of cubic Ni₃Al from stresses under small strains.

python elastic_constants.py [POTENTIAL]
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
atoms.calc = PaceCalculator(potential)
BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5)


def stress(strain: np.ndarray) -> np.ndarray:
    """Stress (GPa; xx, yy, zz, yz, xz, xy) of the strained crystal, atoms relaxed."""
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    strained.calc = atoms.calc
    BFGS(strained, logfile=None).run(fmax=1e-5)
    return strained.get_stress() / units.GPa


def derivative(a: int, b: int, h: float = 1e-3) -> np.ndarray:
    """Of the stress by the strain component ab (engineering strain where a and b differ)."""
    strain = np.zeros((3, 3))
    strain[a, b] += h / 2
    strain[b, a] += h / 2
    return (stress(strain) - stress(-strain)) / (2 * h)


along_x, shear = derivative(0, 0), derivative(1, 2)
c11, c12, c44 = along_x[0], along_x[1], shear[3]
print(f"a   = {atoms.cell.cellpar()[0]:.4f} Å")
print(f"C11 = {c11:.1f} GPa\nC12 = {c12:.1f} GPa\nC44 = {c44:.1f} GPa\nB   = {(c11 + 2 * c12) / 3:.1f} GPa")
