"""Crystals to validate a potential on: the elements' own, and those of the user's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, reference_states

from pacehpc.errors import PacehpcError

LATTICES = ("fcc", "bcc", "hcp", "diamond", "sc")


def element_crystal(element: str) -> Atoms | None:
    """Return the element's ground state as the conventional cell, None where it is none of `LATTICES`."""
    state = reference_states[atomic_numbers[element]]
    if state is None or state["symmetry"] not in LATTICES:
        return None
    return bulk(element, cubic=state["symmetry"] != "hcp")


def crystals(elements: Sequence[str], files: Sequence[str] = ()) -> dict[str, Atoms]:
    """Collect the crystals by label: `Al fcc`, or the name of a file.

    Args:
        elements: of the potential; those without a simple ground state are left out.
        files: any format that ASE reads, one periodic structure each.

    Raises:
        PacehpcError: a file that cannot be read, is not periodic in three directions, or has other elements.
    """
    found = {}
    for element in elements:
        atoms = element_crystal(element)
        if atoms is not None:
            found[f"{element} {reference_states[atomic_numbers[element]]['symmetry']}"] = atoms
    for name in files:
        try:
            atoms = ase.io.read(name, parallel=False)
        except Exception as error:  # ASE raises what its many formats raise
            raise PacehpcError(f"--structures: {name} cannot be read as one structure: {error}") from error
        if not atoms.pbc.all():
            raise PacehpcError(f"--structures: {name} is not periodic in three directions.")
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(elements))
        if unknown:
            raise PacehpcError(f"--structures: {name} contains {', '.join(unknown)}, which the potential lacks.")
        found[Path(name).stem] = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    return found


def supercell(atoms: Atoms, length: float) -> Atoms:
    """Repeat a cell until each direction is at least `length` (Å) thick."""
    heights = atoms.cell.volume / [abs(_area(atoms, k)) for k in range(3)]
    return atoms.repeat([max(1, int(-(-length // height))) for height in heights])


def _area(atoms: Atoms, axis: int) -> float:
    a, b = (atoms.cell[k] for k in range(3) if k != axis)
    return float(np.linalg.norm(np.cross(a, b)))
