"""What the splines of LAMMPS change: forces with radial functions from cubic splines against exact ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from pacehpc.backends.oracle import ReferenceEvaluator
from pacehpc.dataset import structures_of
from pacehpc.physics.parameters import Bond
from pacehpc.physics.radial import radial_basis
from pacehpc.potential import Potential
from pacehpc.structures import Structures

log = logging.getLogger("pacehpc")

TOLERANCE = 1e-6  # of the usual size of forces, at least 1 eV/Å; most bins change them by 1e-9 to 1e-7 eV/Å
FINER = (2, 5, 10, 20, 50, 100)


def warn_of_coarse_bins(potential: Potential) -> None:
    """Log a warning, with bins that would do, where the potential's bins change forces by more than `TOLERANCE`.

    Measured in rattled crystals of the potential's elements.
    """
    structures = structures_of(crystals(potential), potential)
    exact = ReferenceEvaluator(potential, structures).predict(potential.parameters).forces
    usual = float(np.sqrt((exact**2).sum(axis=1).mean()))
    allowed = TOLERANCE * max(1.0, usual)
    width = potential.delta_spline_bins
    error = spline_error(potential, structures, exact, width)
    if error <= allowed:
        return
    finer, finer_error = width, error
    for factor in FINER:
        finer = float(f"{width / factor:.3g}")
        finer_error = spline_error(potential, structures, exact, finer)
        if finer_error <= allowed:
            break
    log.warning(
        "bins of %g Å (deltaSplineBins) are too coarse for the smallest dcut, %g Å: the splines of LAMMPS change "
        "forces by up to %.0e eV/Å, where they are %.2g eV/Å. With bins of %g Å it is %.0e eV/Å: "
        "pace_yaml2yace --spline-bin %g",
        width, min(bond.dcut for bond in potential.bonds.values()), error, usual, finer, finer_error, finer,
    )  # fmt: skip


def spline_error(potential: Potential, structures: Structures, exact: np.ndarray, width: float) -> float:
    """The largest change of a component of the forces `exact` (n_atoms, 3), eV/Å, by bins of `width`, Å."""
    forces = SplinedEvaluator(potential, structures, width).predict(potential.parameters).forces
    return float(abs(forces - exact).max(initial=0.0))


def splined_basis(bond: Bond, r: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """g_k and dg_k/dr, (n, nradbase), by cubics with the exact values and slopes at the ends of each bin.

    As the library of LAMMPS has it (measured with python-ace 0.4.0rc1): as many bins of equal size up to rcut as whole
    ones of `width` (Å) go into it.
    """
    width = bond.rcut / max(int(bond.rcut / width), 1)
    left = np.floor(r / width)
    t = (r / width - left)[:, None]
    (g0, d0), (g1, d1) = (radial_basis(bond, width * nodes) for nodes in (left, left + 1))
    rise = g1 - g0
    value = g0 + t * (width * d0 + t * (3 * rise - width * (2 * d0 + d1) + t * (width * (d0 + d1) - 2 * rise)))
    slope = d0 + t * (6 * rise / width - 2 * (2 * d0 + d1) + 3 * t * (d0 + d1 - 2 * rise / width))
    return value, slope


class SplinedEvaluator(ReferenceEvaluator):
    """The reference backend with radial functions from splines."""

    def __init__(self, potential: Potential, structures: Structures, width: float) -> None:
        super().__init__(potential, structures)
        self.width = width

    def radial_basis(self, bond: Bond, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return splined_basis(bond, r, self.width)


def crystals(potential: Potential) -> list[Atoms]:
    """Rattled crystals of all elements, in which a shell of neighbours stands where the dcut of a bond acts."""
    rng = np.random.default_rng(1)
    switches = sorted({(bond.rcut, bond.dcut) for bond in potential.bonds.values()})
    return [_crystal(potential.elements, *switch, rng) for switch in switches]


def _crystal(elements: Sequence[str], rcut: float, dcut: float, rng: np.random.Generator) -> Atoms:
    nearest = 2.1 * np.mean([covalent_radii[atomic_numbers[element]] for element in elements])
    shells = nearest * np.sqrt(np.arange(1, 60))
    shell = shells[np.argmin(abs(shells - rcut))]
    a = 2**0.5 * nearest * (rcut - 0.5 * dcut) / shell
    atoms = bulk("Cu", "fcc", a=a, cubic=True) * (2, 2, 2)
    while len(atoms) < len(elements):
        atoms = atoms * (1, 1, 2)
    atoms.symbols = rng.permutation(np.resize(elements, len(atoms)))
    atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    return atoms
