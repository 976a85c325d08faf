"""A frame as users make them: atoms with calculators and constraints, energies, forces."""

from __future__ import annotations

import numpy as np
import pandas as pd
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixedPlane


def make_frame(n=4, **columns):
    frames, forces = [], []
    for k in range(n):
        atoms = Atoms(
            "AlNi", [[0, 0, 0], [1.5 + 0.1 * k, 1.5, 1.5]], cell=[3, 3, 3 + k], pbc=True, info={"tag": f"t{k}"}
        )
        forces.append(np.full((2, 3), 0.1 * k))
        atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=forces[-1])
        atoms.set_constraint([FixAtoms([0]), FixedPlane(1, (1, 0, 0))])
        frames.append(atoms)
    frame = pd.DataFrame({"energy": np.arange(n) - 5.0, "energy_corrected": np.arange(n) - 1.0})
    frame["ase_atoms"], frame["forces"] = frames, forces
    for name, values in columns.items():
        frame[name] = values
    return frame
