"""A sketch of the Jacobian of the weighted residuals, made on the ranks that own the structures.

The data part of the loss is a sum of squares Σ_a r_a², with the residuals

    √((1-κ) w_s) ΔE_s/N_s,    √(κ w_i) ΔF_i,    √(λ w_s) (V_s/N_s) Δσ_ab,

so that most of its Hessian is 2 JᵀJ, J_ak = ∂r_a/∂θ_k. With Huber's loss the weights w are multiplied by min(1, δ/|r|)
of the present errors (iteratively reweighted least squares): 2 Jᵀr stays the gradient, and 2 JᵀJ is the curvature of a
square loss that touches Huber's from above. A structure of N atoms has 3N + 1 rows of J, and a row costs a
second pass of the kernels. The sketch SJ has the row of the energy and q combinations of the others with random signs,
divided by √q, so that the expectation of (SJ)ᵀSJ is JᵀJ (D. Woodruff, Found. Trends Theor. Comput. Sci. 10, 1 (2014),
sections 2.1 and 2.5). Where that makes more rows than pay, rows of neighbouring structures are added with random signs.

Signs come from the seed, the number of the renewal, and the position of a virtual shard in the whole data, so that they
do not depend on the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pacehpc.backends.interface import Evaluator, LossWeights
from pacehpc.metrics import huber_factors
from pacehpc.structures import Structures

STRESS_COMPONENTS = 9  # as the loss counts them
_PAIRS = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))  # Voigt order xx, yy, zz, yz, xz, xy


@dataclass(frozen=True)
class RowPlan:
    """Which rows the sketch has, the same on all ranks."""

    combinations: int
    """Of a structure's force and stress residuals; 0 where the loss has none."""
    together: int = 1
    """Structures whose rows are added."""
    energies: bool = True
    """Whether the loss has energies."""


@dataclass(frozen=True)
class Sizes:
    """Counts of what there is to fit: on a rank, or over all ranks."""

    residuals: np.ndarray
    """int64 (n_sizes,): residuals of a structure beside its energy, 3N and 9 more with stress, in ascending order."""
    counts: np.ndarray
    """int64 (n_sizes,): structures that have so many."""
    species: np.ndarray
    """int64 (n_elements,): atoms of each element."""
    n_bonds: int

    @classmethod
    def of(cls, structures: Structures, n_elements: int, n_bonds: int, stress: bool) -> Sizes:
        """Count those of one rank."""
        residuals = 3 * structures.atoms_per_structure + STRESS_COMPONENTS * stress
        return cls(
            *np.unique(residuals, return_counts=True), np.bincount(structures.species, minlength=n_elements), n_bonds
        )

    @classmethod
    def added(cls, parts: Sequence[Sizes]) -> Sizes:
        """Over all ranks."""
        residuals = np.concatenate([np.repeat(p.residuals, p.counts) for p in parts])
        return cls(
            *np.unique(residuals, return_counts=True), sum(p.species for p in parts), sum(p.n_bonds for p in parts)
        )

    @property
    def n_structures(self) -> int:
        return int(self.counts.sum())

    def rows(self, combinations: int) -> int:
        """Rows of forces and stress that so many combinations of each structure make."""
        return int(self.counts @ np.minimum(self.residuals, combinations))


class Sketcher:
    """Makes this rank's rows of the sketch."""

    def __init__(
        self, evaluator: Evaluator, structures: Structures, weights: LossWeights, first: int, columns: np.ndarray
    ) -> None:
        """Of the structures of an evaluator.

        Args:
            evaluator: Gives the rows of the Jacobian.
            structures: Its structures with their weights; bonds are not looked at.
            weights: Factors of the loss.
            first: Structures on the ranks before.
            columns: Trainable parameters, bool (n_parameters,).
        """
        self.evaluator, self.structures, self.first, self.columns = evaluator, structures, first, columns
        s, atoms = structures, structures.atoms_per_structure
        self._weights = weights
        self._energy = np.sqrt((1.0 - weights.kappa) * s.w_energy) / np.maximum(atoms, 1)
        self._forces = np.sqrt(weights.kappa * s.w_forces)
        self._strain = np.zeros((s.n_structures, 3, 3))
        self.residuals = 3 * atoms
        if weights.stress > 0:
            # stress = virial / volume: the factor V of the residual cancels; rows without reference are nothing to fit
            known = np.zeros(s.n_structures, bool) if s.stress is None else ~np.isnan(s.stress).any(axis=1)
            self._strain[known] = (np.sqrt(weights.stress * s.w_energy) / np.maximum(atoms, 1))[known, None, None]
            self.residuals = self.residuals + STRESS_COMPONENTS
        self._stress = weights.stress > 0

    def groups(self, plan: RowPlan) -> tuple[np.ndarray, np.ndarray]:
        """(first structure of each group of added structures, rows of each group); int64 (n_groups,) each."""
        s = self.structures
        if plan.together == 1:
            first = np.arange(s.n_structures)
            rows = np.minimum(self.residuals, plan.combinations)
        else:
            # groups end with their virtual shard, which no number of ranks divides
            shards = np.append(s.shard_starts, s.n_structures)
            parts = [np.arange(a, b, plan.together) for a, b in pairwise(shards)]
            first = np.concatenate(parts) if parts else np.zeros(0, np.int64)
            rows = np.full(len(first), plan.combinations)
        return first, rows + int(plan.energies)

    def rows(self, parameters: np.ndarray, plan: RowPlan, seed: int, renewal: int) -> np.ndarray:
        """This rank's rows of the sketch at all `parameters`, (n_rows, n_trainable).

        Group after group, the energy's row first; virtual shards in their order, so that the rows of all ranks one
        after the other do not depend on the number of ranks.
        """
        s, q, n_energies = self.structures, plan.combinations, int(plan.energies)
        first, counts = self.groups(plan)
        begin = np.concatenate(([0], np.cumsum(counts)))
        found = np.zeros((begin[-1], int(np.count_nonzero(self.columns))))
        group = np.searchsorted(first, np.arange(s.n_structures), side="right") - 1
        of_energy, of_forces = self._energy, self._forces
        if self._weights.energy_delta > 0 or self._weights.force_delta > 0:
            by_energy, by_forces = self._huber_factors(parameters)
            of_energy, of_forces = of_energy * np.sqrt(by_energy), of_forces * np.sqrt(by_forces)
        signs, directions, strains = self._random(plan, seed, renewal, of_forces)
        kind = "+".join(["energy"] * n_energies + ["forces"] * bool(q))
        every = bool(self.columns.all())
        arguments = (directions, strains) if q else ()
        for where, values in self.evaluator.rows(parameters, kind, *arguments):
            for structure, rows in zip(range(where.start, where.stop), values, strict=True):
                at, used = begin[group[structure]], counts[group[structure]]
                rows = rows[:used] if every else rows[:used, self.columns]
                if n_energies:
                    rows[0] *= of_energy[structure] * signs[structure]
                found[at : at + used] += rows
        return found

    def _huber_factors(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Factors on the weights of energies, (n_structures,), and of forces, (n_atoms,), from the errors here."""
        s, found = self.structures, self.evaluator.predict(parameters)
        energies = np.add.reduceat(found.energies, s.atom_offsets[:-1]) if s.n_structures else np.zeros(0)
        energy = (energies - s.energy) / s.atoms_per_structure
        force_squares = np.sum((found.forces - s.forces) ** 2, axis=1)
        # without a reference value they are NaN, and their weight 0
        return huber_factors(energy**2, self._weights.energy_delta), huber_factors(
            force_squares, self._weights.force_delta
        )

    def _random(
        self, plan: RowPlan, seed: int, renewal: int, of_forces: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Signs of the energies (n_structures,), directions (q, n_atoms, 3), strains (q, n_structures, 3, 3) or None.

        of_forces: factors of the residuals of forces, (n_atoms,). A structure with no more residuals than combinations
        has each of them once, without random numbers.
        """
        s, q = self.structures, plan.combinations
        energies = np.ones(s.n_structures)
        forces, stress = np.empty((q, s.n_atoms, 3)), np.empty((q, s.n_structures, 9))
        shards = np.append(s.shard_starts, s.n_structures)
        for a, b in pairwise(shards):
            atoms = slice(int(s.atom_offsets[a]), int(s.atom_offsets[b]))
            n_forces, n_stress = 3 * (atoms.stop - atoms.start), STRESS_COMPONENTS * (b - a)
            signs = random_signs((seed, renewal, self.first + int(a)), (b - a) + q * (n_forces + n_stress))
            if plan.together > 1:
                energies[a:b] = signs[: b - a]
            parts = np.split(signs[b - a :].reshape(q, n_forces + n_stress), [n_forces], axis=1)
            forces[:, atoms] = parts[0].reshape(q, n_forces // 3, 3)
            stress[:, a:b] = parts[1].reshape(q, b - a, 9)
        factor = 1.0 / np.sqrt(max(q, 1))
        forces *= factor
        stress *= factor
        if plan.together == 1:
            for k in np.flatnonzero(self.residuals <= q):
                atoms = slice(int(s.atom_offsets[k]), int(s.atom_offsets[k + 1]))
                each = np.eye(q, int(self.residuals[k]))
                n_forces = 3 * (atoms.stop - atoms.start)
                forces[:, atoms] = each[:, :n_forces].reshape(q, -1, 3)
                stress[:, k] = each[:, n_forces:] if self._stress else 0.0
        forces *= of_forces[None, :, None]
        strains = stress.reshape(q, -1, 3, 3) * self._strain if self._stress else None
        return energies, forces, strains


def random_signs(key: tuple[int, ...], n: int) -> np.ndarray:
    """n numbers +1 or -1, float64, that depend on the key alone: bits of numpy's stable stream PCG64."""
    words = np.random.PCG64(np.random.SeedSequence(key)).random_raw(-(-n // 64)).astype("<u8")
    return 2.0 * np.unpackbits(words.view(np.uint8), count=n) - 1.0
