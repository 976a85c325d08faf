"""Structures at short and long distances with labels that need no new calculations.

Where atoms are close, pairs repel as Ziegler, Biersack and Littmark found (The Stopping and Range of Ions in Solids,
1985); in between, the potential's own energies where it is reliable give an equation of state (Vinet et al., J. Phys.
Condens. Matter 1, 1941 (1989)) that is continued to where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from scipy.optimize import curve_fit
from vesin import ase_neighbor_list

from pacehpc.active.compression import Grades, nearest_distance, scaled
from pacehpc.physics.core import core_repulsion
from pacehpc.physics.parameters import Bond

ZBL_DISTANCE = 0.55
"""Below this part of the potential's own bond length the energy is ZBL's alone."""


@dataclass(frozen=True)
class Label:
    """A structure with its energy relative to free atoms.

    Args:
        atoms: the structure.
        energy: eV.
        forces: (n_atoms, 3) eV/Å; NaN where they are not known.
        kind: 'zbl' or 'eos'.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    kind: str


@dataclass(frozen=True)
class Ranges:
    """Which structures are kept.

    Args:
        shortest, step: nearest-neighbour distances of the series, Å.
        longest: longest nearest-neighbour distance relative to that of the seed.
        lowest, highest: energies that are kept, eV/atom.
        grade: up to which the potential is reliable.
        error: largest RMS deviation of the equation of state from the reliable energies, eV/atom.
    """

    shortest: float = 1.0
    step: float = 0.1
    longest: float = 1.6
    lowest: float = -np.inf
    highest: float = 150.0
    grade: float = 10.0
    error: float = 0.05


def vinet(x: np.ndarray, energy: float, scale: float, steepness: float) -> np.ndarray:
    """Energy per atom against the linear scale x of a structure, E(x) = energy + scale (1 - (1 + a) e^(-a)).

    a = steepness (x - 1): the universal form of Vinet et al., with its minimum at x = 1.
    """
    a = steepness * (x - 1.0)
    return energy + scale * (1.0 - (1.0 + a) * np.exp(-a))


def zbl(atoms: Atoms, reach: float) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (eV/Å) of a structure by ZBL's repulsion alone, brought smoothly to 0 at `reach` (Å)."""
    elements = sorted(set(atoms.get_chemical_symbols()))
    first, second, r, vector = ase_neighbor_list("ijdD", atoms, reach)
    symbols = np.array(atoms.get_chemical_symbols())
    energy, forces = 0.0, np.zeros((len(atoms), 3))
    bond = Bond("ChebPow", (1.0,), reach, 0.5 * reach, inner_cutoff_type="zbl", core_repulsion=(1.0, 1.0))
    for a, b in combinations_with_replacement(elements, 2):
        mine = ((symbols[first] == a) & (symbols[second] == b)) | ((symbols[first] == b) & (symbols[second] == a))
        value, slope = core_repulsion(bond, (atomic_numbers[a], atomic_numbers[b]), r[mine])
        energy += value.sum()
        pull = (2.0 * slope / r[mine])[:, None] * vector[mine]  # a bond's energy is counted by both of its atoms
        np.add.at(forces, first[mine], pull)
    return float(energy), forces


def augmented(
    seed: Atoms, energies: Callable[[Sequence[Atoms]], np.ndarray], grades: Grades, ranges: Ranges
) -> list[Label]:
    """Compress and stretch a seed and label what the potential does not know.

    Args:
        seed: near its equilibrium.
        energies: the potential's, relative to free atoms, eV.
        grades: extrapolation grades of atoms.
        ranges: which structures are kept.
    """
    start = nearest_distance(seed)
    if not np.isfinite(start):
        return []
    distances = np.arange(ranges.shortest, ranges.longest * start + 1e-9, ranges.step)
    series = [scaled(seed, d / start) for d in distances.tolist()]
    reliable = np.array([grade.max() <= ranges.grade for grade in grades(series)])
    computed = energies(series) / len(seed)
    curve = _equation_of_state(distances[reliable], computed[reliable], ranges.error)
    found = []
    for atoms, distance, known in zip(series, distances.tolist(), reliable.tolist(), strict=True):
        if known:
            continue
        if distance < ZBL_DISTANCE * start:
            energy, forces = zbl(atoms, start)
            label = Label(atoms, energy, forces, "zbl")
        elif curve is not None:
            label = Label(atoms, curve(distance) * len(atoms), np.full((len(atoms), 3), np.nan), "eos")
        else:
            continue
        if ranges.lowest <= label.energy / len(atoms) <= ranges.highest:
            found.append(label)
    return found


def _equation_of_state(distances: np.ndarray, energies: np.ndarray, error: float) -> Callable[[float], float] | None:
    """Fit `vinet` to reliable energies; None where there are too few, no minimum, or the fit is worse than `error`."""
    if len(distances) < 5 or energies.argmin() in (0, len(energies) - 1):
        return None
    lowest = distances[energies.argmin()]
    depth = max(energies.max() - energies.min(), 0.1)

    def curve(d: np.ndarray, length: float, energy: float, scale: float, steepness: float) -> np.ndarray:
        return vinet(d / length, energy, scale, steepness)

    try:
        found, _ = curve_fit(curve, distances, energies, p0=(lowest, energies.min(), depth, 5.0), maxfev=5000)
    except RuntimeError:
        return None
    deviation = np.sqrt(np.mean((curve(distances, *found) - energies) ** 2))
    if deviation > error or found[2] <= 0.0 or found[3] <= 0.0:
        return None
    return lambda d: float(curve(d, *found))
