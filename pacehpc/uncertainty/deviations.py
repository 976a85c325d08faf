"""Standard deviations of the energies and forces of structures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pacehpc.potential import Potential
from pacehpc.structures import Structures
from pacehpc.uncertainty.model import Uncertainty
from pacehpc.uncertainty.rows import cluster_rows, evaluator_maker, is_large, run_rows, runs


class Deviations(NamedTuple):
    """Of one structure."""

    energy: float
    """Standard deviation of the energy, eV; NaN where the data had no energies."""
    forces: np.ndarray
    """Standard deviations of the force components, (n_atoms, 3), eV/Å; NaN where the data had no forces."""


def deviations(
    uncertainty: Uncertainty, potential: Potential, backend: str, structures: Structures
) -> Iterator[Deviations]:
    """Yield the standard deviations of each structure, in order.

    Args:
        uncertainty: of the potential.
        potential: whose energies and forces are meant.
        backend: 'cpu', 'cuda' or 'reference'.
        structures: with bonds; references are not looked at.
    """
    make, parameters = evaluator_maker(potential, backend), potential.parameters
    for run in runs(structures):
        part = structures.select(run)
        if not is_large(part.select(slice(0, 1))):
            for rows in run_rows(make(part), part, parameters, stress=False):
                s = uncertainty.s(rows)
                yield _scaled(uncertainty, s[0], s[1:])
            continue
        energies = (row for _, values in make(part).rows(parameters, "energy") for row in values)
        for k, row in enumerate(energies):
            pieces = cluster_rows(make, part.select(slice(k, k + 1)), parameters)
            yield _scaled(
                uncertainty, uncertainty.s(row)[0], np.concatenate([uncertainty.s(piece) for piece in pieces])
            )


def _scaled(uncertainty: Uncertainty, energy: float, forces: np.ndarray) -> Deviations:
    n = len(forces) // 3
    of_energy, of_forces = uncertainty.energies, uncertainty.forces
    return Deviations(
        float("nan") if of_energy is None else n * float(of_energy.sigma(energy / n)),
        np.full((n, 3), np.nan) if of_forces is None else of_forces.sigma(forces).reshape(n, 3),
    )
