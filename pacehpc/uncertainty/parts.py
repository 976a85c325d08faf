"""A structure's part of the normal matrix, and its values that the calibration looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pacehpc.backends.interface import LossWeights, Prediction
from pacehpc.potential import Potential
from pacehpc.shard import Shard
from pacehpc.sketch import RowPlan, Sizes, Sketcher
from pacehpc.structures import MULTIPLICITY, VOIGT, Structures, virial_matrix
from pacehpc.uncertainty.rows import evaluator_maker, run_rows, runs

MOST_ENTRIES, MOST_PRODUCTS, MOST_EVALUATIONS = 5e8, 5e12, 500.0
"""Of the whole Jacobian: numbers, multiplications for its products, evaluations; beyond, rows are combined."""
ROWS = 4.0
"""Combined rows over parameters."""
COMBINATIONS = (5, 20)
"""Of a structure's forces, at least and at most."""
SAMPLED = 6
"""Force components of a structure that the calibration sees where rows are combined."""
SEED = 20261129
"""Of the combinations and of the sampled components."""


@dataclass(frozen=True)
class Choice:
    """Which rows the matrix is made of, the same on all ranks."""

    every: bool
    combinations: int

    def __str__(self) -> str:
        if self.every:
            return "all force components"
        return f"{self.combinations} random combinations of the forces of each structure"

    def rows(self, sizes: Sizes) -> int:
        """Rows that are kept of these structures."""
        if self.every:
            return sizes.rows(int(sizes.residuals.max(initial=0))) + sizes.n_structures
        return sizes.rows(self.combinations) + sizes.n_structures * (3 + SAMPLED)


def choose_rows(sizes: Sizes, n: int) -> Choice:
    """All rows where they are cheap, by counts alone.

    Args:
        sizes: of all structures.
        n: trainable parameters.
    """
    n_rows = sizes.rows(int(sizes.residuals.max(initial=0))) + sizes.n_structures
    atoms = sizes.residuals / 3.0
    evaluations = float(sizes.counts @ (atoms * sizes.residuals)) / 2 / max(float(sizes.counts @ atoms), 1.0)
    cheap = n_rows * n <= MOST_ENTRIES and n_rows * n**2 <= MOST_PRODUCTS and evaluations <= MOST_EVALUATIONS
    wanted = int(np.ceil(ROWS * n / max(sizes.n_structures, 1)))
    return Choice(cheap, int(np.clip(wanted, *COMBINATIONS)))


@dataclass(frozen=True)
class Part:
    """Derivatives of one structure's values, and what they are for.

    Attributes:
        derivatives: of the values by the trainable parameters, (m, n).
        weights: factors that make rows of J of them, (m,); 0: no row.
        gradient: factors with which they add up to half the gradient of the structure's part of the loss, (m,).
        factors: factors that make energies per atom or force components of them, (m,); 0: neither. The energy first.
        errors: of these, predicted minus reference, NaN where a reference is unknown, (m,).
    """

    derivatives: np.ndarray
    weights: np.ndarray
    gradient: np.ndarray
    factors: np.ndarray
    errors: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Rows of J, (n_rows, n)."""
        used = self.weights > 0
        return self.derivatives[used] * self.weights[used, None]


class Residuals:
    """Differences between predictions and references of structures, and their weights in the loss."""

    def __init__(self, structures: Structures, prediction: Prediction, loss: LossWeights) -> None:
        s, n = structures, np.maximum(structures.atoms_per_structure, 1)
        starts = np.minimum(s.atom_offsets[:-1], max(s.n_atoms - 1, 0))
        self.structures = s
        self.energy = np.add.reduceat(prediction.energies, starts) - s.energy if s.n_structures else np.zeros(0)
        self.forces = prediction.forces - s.forces
        self.energy_weight = (1.0 - loss.kappa) * s.w_energy / n**2
        self.force_weight = loss.kappa * s.w_forces
        self.virial, self.virial_weight = np.zeros((s.n_structures, 6)), np.zeros(s.n_structures)
        if loss.stress > 0:
            known = s.has_stress
            self.virial_weight[known] = (loss.stress * s.w_energy / n**2)[known]
            reference = np.where(known[:, None], np.zeros(1) if s.stress is None else s.stress, 0.0)
            self.virial[known] = (prediction.virials[:, *VOIGT] - reference * s.volumes[:, None])[known]

    def atoms(self, structure: int) -> slice:
        """Atoms of a structure."""
        return slice(*self.structures.atom_offsets[structure : structure + 2].tolist())

    def values(self, structure: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(weights in J, gradient, factors, errors) of energy and force components; see `Part`."""
        atoms = self.atoms(structure)
        weights = np.concatenate(([self.energy_weight[structure]], np.repeat(self.force_weight[atoms], 3)))
        errors = np.concatenate(([self.energy[structure]], self.forces[atoms].ravel()))
        known = np.concatenate(
            ([self.structures.w_energy[structure] > 0], np.repeat(self.structures.w_forces[atoms] > 0, 3))
        )
        factors = np.ones(len(weights))
        factors[0] = 1.0 / max(atoms.stop - atoms.start, 1)
        return np.sqrt(weights), weights * errors, factors, np.where(known, factors * errors, np.nan)


def every_part(
    potential: Potential, shard: Shard, backend: str, loss: LossWeights, columns: np.ndarray
) -> Iterator[Part]:
    """The parts of this rank's structures, in order, with rows of every residual.

    Args:
        potential: where the derivatives are taken.
        shard: this rank's structures.
        backend: of the evaluators.
        loss: factors of the loss.
        columns: trainable parameters, bool (n_parameters,).
    """
    stress = loss.stress > 0
    make = evaluator_maker(potential, backend, stress)
    for piece in shard.pieces(potential):
        for run in runs(piece):
            structures = piece.select(run)
            evaluator = make(structures)
            residuals = Residuals(structures, evaluator.predict(potential.parameters), loss)
            for k, rows in enumerate(run_rows(evaluator, structures, potential.parameters, stress)):
                found = residuals.values(k)
                if stress:
                    weights = residuals.virial_weight[k] * MULTIPLICITY
                    none = np.zeros(6)
                    further = np.sqrt(weights), weights * residuals.virial[k], none, none * np.nan
                    found = [np.concatenate(pair) for pair in zip(found, further, strict=True)]
                yield Part(rows[:, columns], *found)


def combined_parts(
    potential: Potential,
    shard: Shard,
    backend: str,
    loss: LossWeights,
    columns: np.ndarray,
    combinations: int,
    first: int,
) -> Iterator[Part]:
    """The parts of this rank's structures, in order, with rows of random combinations of forces, as for GN-BFGS.

    Args:
        potential, shard, backend, loss, columns: as in `every_part`.
        combinations: of each structure's forces.
        first: structures on the ranks before.
    """
    s, plan = shard.structures, RowPlan(combinations, 1, loss.kappa < 1)
    evaluator = shard.evaluator(backend, potential, loss)
    sketcher = Sketcher(evaluator, s, loss, first, columns)
    _, counts = sketcher.groups(plan)
    rows = sketcher.rows(potential.parameters, plan, SEED, 0)
    begins = np.concatenate(([0], np.cumsum(counts))).tolist()
    residuals = Residuals(s, evaluator.predict(potential.parameters), loss)
    components = [sampled(first + k, n) for k, n in enumerate((3 * s.atoms_per_structure).tolist())]
    directions, strains = np.zeros((SAMPLED + 1, s.n_atoms, 3)), None
    for k, own in enumerate(components):
        directions[np.arange(len(own)), s.atom_offsets[k] + own // 3, own % 3] = 1.0
    directions[SAMPLED] = residuals.force_weight[:, None] * residuals.forces
    if loss.stress > 0:
        strains = np.zeros((SAMPLED + 1, s.n_structures, 3, 3))
        strains[SAMPLED] = virial_matrix(residuals.virial_weight[:, None] * residuals.virial)
    for where, values in evaluator.rows(potential.parameters, "energy+forces", directions, strains):
        for k, further in zip(range(where.start, where.stop), values, strict=True):
            kept = np.concatenate(([0], 1 + components[k]))  # of energy and all components
            own, n_values = rows[begins[k] : begins[k + 1]], len(kept)
            further = np.concatenate([further[:n_values], further[-1:]])[:, columns]
            _, gradient, factors, errors = (values[kept] for values in residuals.values(k))
            gradient[1:] = 0.0  # the last row has that of all forces
            zeros = np.zeros(len(own))
            yield Part(
                np.concatenate([own, further]),
                np.concatenate([zeros + 1.0, np.zeros(n_values + 1)]),
                np.concatenate([zeros, gradient, [1.0]]),
                np.concatenate([zeros, factors, [0.0]]),
                np.concatenate([zeros * np.nan, errors, [np.nan]]),
            )


def sampled(structure: int, n_components: int) -> np.ndarray:
    """Some of a structure's force components, ascending; by its number in the data alone."""
    if n_components <= SAMPLED:
        return np.arange(n_components)
    words = np.random.PCG64(np.random.SeedSequence((SEED, structure))).random_raw(8 * SAMPLED)
    order = np.unique((words % np.uint64(n_components)).astype(np.int64), return_index=True)
    return np.sort(order[0][np.argsort(order[1])[:SAMPLED]])
