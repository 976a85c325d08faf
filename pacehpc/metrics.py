"""Errors of a model against its reference data, as sums that add up over ranks.

`Errors` makes a rank's `TERMS` (added over ranks) and `MAXIMA` (the largest counts); `finish` makes RMSE, MAE and
maxima of them. Energies per atom in eV, forces per component in eV/Å, stress in GPa. "low" are the structures of low
energy (`Structures.low`). Energies and forces of weight 0 are not counted: they may not be known at all.
"""

from __future__ import annotations

import numpy as np

from pacehpc import fixed_point
from pacehpc.structures import MULTIPLICITY, VOIGT, Structures

TERMS = (
    "e_loss",  # sum_s w_s (dE_s/N_s)^2, or Huber's loss of dE_s/N_s
    "f_loss",  # sum_i w_i |dF_i|^2, or Huber's loss of |dF_i|
    "s_loss",  # sum_s w_s sum_ab ((V_s/N_s) dstress_ab)^2, nine components
    "n_structures",
    "n_atoms",
    "n_stress",
    "n_low_structures",
    "n_low_atoms",
    "e_squares",  # sum_s (dE_s/N_s)^2
    "e_absolute",
    "low_e_squares",
    "low_e_absolute",
    "f_squares",  # sum over components
    "f_absolute",
    "low_f_squares",
    "low_f_absolute",
    "s_squares",  # (eV/Å^3)^2, six components
)
MAXIMA = ("e_max", "low_e_max", "f_max", "low_f_max", "too_large")  # the last: 1 if a sum was not finite or too large

GPA = 160.21766208  # GPa per eV/Å^3

_TERM = {name: k for k, name in enumerate(TERMS)}
_ERRORS = ("{}_loss", "{}_squares", "{}_absolute", "low_{}_squares", "low_{}_absolute")
_CHANGING = [_TERM[name.format(of)] for of in "ef" for name in _ERRORS]
_STRESS = [_TERM[name] for name in ("s_loss", "n_stress", "s_squares")]


class Errors:
    """Errors of a rank's structures in one evaluation after the other; what does not change is made once.

    Sums are made virtual shard by virtual shard, so that they do not depend on which rank owns a shard.
    """

    def __init__(self, structures: Structures, energy_delta: float = 0.0, force_delta: float = 0.0) -> None:
        """structures: with energy, forces, w_energy, w_forces; energy_delta, force_delta: see `huber`."""
        self.structures = s = structures
        self._energy_delta, self._force_delta = energy_delta, force_delta
        self._shards = s.shard_starts
        self._atom_shards = s.atom_offsets[self._shards]
        counts = s.atoms_per_structure
        self._counts = counts.astype(np.float64)
        every = s.low is None or bool(np.all(s.low))
        self._low = None if every else s.low.astype(np.float64)
        self._low_atoms = None if every else np.repeat(self._low, counts)
        constant = np.zeros(len(TERMS))
        counted, counted_atoms = s.w_energy != 0, s.w_forces != 0
        constant[_TERM["n_structures"]], constant[_TERM["n_atoms"]] = counted.sum(), counted_atoms.sum()
        low = np.ones(len(counts), bool) if every else s.low
        constant[_TERM["n_low_structures"]] = (counted & low).sum()
        constant[_TERM["n_low_atoms"]] = (counted_atoms & np.repeat(low, counts)).sum()
        self._counted = None if counted.all() else counted.astype(np.float64)
        self._counted_atoms = None if counted_atoms.all() else counted_atoms.astype(np.float64)
        self._constant = fixed_point.encode(constant)
        # rows of terms: three (and two of low energy) of structures, as many of atoms; without "low" they serve twice
        n_rows = 3 if every else 5
        self._by_structure, self._by_atom = np.empty((n_rows, len(counts))), np.empty((n_rows, s.n_atoms))
        self._differences, self._largest = np.empty((3, s.n_atoms)), np.empty(s.n_atoms)
        self._sums = np.empty((2 * n_rows, len(self._shards)))
        rows = np.array([0, 1, 2, 1, 2] if every else [0, 1, 2, 3, 4])
        row_of = dict(zip(_CHANGING, np.concatenate((rows, n_rows + rows)).tolist(), strict=True))
        # of each term its row of sums; those that stay have a row of zeros behind them
        self._rows = np.array([row_of.get(k, 2 * n_rows) for k in range(len(TERMS))])
        self._limbs = np.zeros((fixed_point.LIMBS, 2 * n_rows + 1), np.int64)

    def sums(
        self, energies: np.ndarray, forces: np.ndarray, virials: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """This rank's `TERMS` as encoded sums, int64 (3, len(TERMS)), and `MAXIMA`.

        energies (n_structures,), eV; forces (n_atoms, 3), eV/Å; virials (n_structures, 3, 3), eV: None leaves the
        stress terms 0.
        """
        s = self.structures
        if len(energies) == 0:
            return self._constant.copy(), np.zeros(len(MAXIMA))
        weighted, squares, absolute = self._by_structure[:3]
        np.subtract(energies, s.energy, out=weighted)
        weighted /= self._counts
        if self._counted is not None:
            weighted *= self._counted
        np.abs(weighted, out=absolute)
        np.multiply(weighted, weighted, out=squares)
        np.multiply(s.w_energy, huber(squares, self._energy_delta), out=weighted)
        # components as three contiguous rows: NumPy is slow along a short last axis
        df, f_max = self._differences, self._largest
        f_weighted, f_squares, f_absolute = self._by_atom[:3]
        np.subtract(forces.T, s.forces.T, out=df)
        if self._counted_atoms is not None:
            df *= self._counted_atoms
        np.abs(df, out=df)
        np.add.reduce(df, axis=0, out=f_absolute)
        np.maximum.reduce(df, axis=0, out=f_max)
        np.multiply(df, df, out=df)
        np.add.reduce(df, axis=0, out=f_squares)
        np.multiply(s.w_forces, huber(f_squares, self._force_delta), out=f_weighted)
        if self._low is not None:
            np.multiply(self._low, self._by_structure[1:3], out=self._by_structure[3:])
            np.multiply(self._low_atoms, self._by_atom[1:3], out=self._by_atom[3:])
        n = len(self._by_structure)
        np.add.reduceat(self._by_structure, self._shards, axis=1, out=self._sums[:n])
        np.add.reduceat(self._by_atom, self._atom_shards, axis=1, out=self._sums[n:])
        limbs, too_large = fixed_point.encode_checked(self._sums)
        np.add.reduce(limbs, axis=2, out=self._limbs[:, :-1])
        terms = self._limbs[:, self._rows]
        terms += self._constant
        if virials is not None and s.stress is not None:
            stress = self._stress_sums(virials)
            limbs, stress_too_large = fixed_point.encode_checked(stress)
            too_large |= stress_too_large
            terms[:, _STRESS] = limbs.sum(axis=2)
        e_max, largest = absolute.max(), f_max.max()
        if self._low is None:
            return terms, np.array((e_max, e_max, largest, largest, too_large), np.float64)
        low_max, f_low_max = self._by_structure[4].max(), (self._low_atoms * f_max).max()
        return terms, np.array((e_max, low_max, largest, f_low_max, too_large), np.float64)

    def _stress_sums(self, virials: np.ndarray) -> np.ndarray:
        """s_loss, n_stress and s_squares of each virtual shard, (3, n_shards)."""
        s = self.structures
        known = s.has_stress
        volumes = np.where(known, s.volumes, 1.0)[:, None]
        reference = np.where(known[:, None], s.stress, 0)
        ds = np.where(known[:, None], virials[:, *VOIGT] - volumes * reference, 0.0)
        loss = s.w_energy / self._counts**2 * np.sum(ds * ds * MULTIPLICITY, axis=1)
        rows = np.array([loss, known.astype(np.float64), np.sum((ds / volumes) ** 2, axis=1)])
        return np.add.reduceat(rows, self._shards, axis=1)


def local_sums(
    structures: Structures,
    energies: np.ndarray,
    forces: np.ndarray,
    virials: np.ndarray | None = None,
    energy_delta: float = 0.0,
    force_delta: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """`Errors.sums` of one evaluation."""
    return Errors(structures, energy_delta, force_delta).sums(energies, forces, virials)


def huber(squares: np.ndarray, delta: float) -> np.ndarray:
    """Huber's loss of residuals r of these squares: r² where |r| <= delta, 2 delta |r| - delta² beyond.

    P. J. Huber, Ann. Math. Stat. 35, 73 (1964), times 2. delta 0: r² everywhere.
    """
    if delta <= 0:
        return squares
    beyond = squares > delta * delta
    found = squares.copy()
    found[beyond] = delta * (2.0 * np.sqrt(squares[beyond]) - delta)
    return found


def huber_factors(squares: np.ndarray, delta: float) -> np.ndarray:
    """The slope of Huber's loss over that of r², min(1, delta/|r|), of residuals of these squares; delta 0: 1."""
    factors = np.ones(np.shape(squares))
    if delta > 0:
        beyond = squares > delta * delta
        factors[beyond] = delta / np.sqrt(squares[beyond])
    return factors


def finish(terms: np.ndarray, maxima: np.ndarray) -> dict[str, float]:
    """RMSE, MAE and maxima of sums over all ranks, named as the columns of metrics.txt; NaN for averages of nothing."""
    sums, largest = dict(zip(TERMS, terms.tolist(), strict=True)), maxima.tolist()

    def mean(total: str, count: str, per: int = 1) -> float:
        return sums[total] / (per * sums[count]) if sums[count] else float("nan")

    return {
        "rmse_epa": mean("e_squares", "n_structures") ** 0.5,
        "rmse_f_comp": mean("f_squares", "n_atoms", 3) ** 0.5,
        "low_rmse_epa": mean("low_e_squares", "n_low_structures") ** 0.5,
        "low_rmse_f_comp": mean("low_f_squares", "n_low_atoms", 3) ** 0.5,
        "mae_f_comp": mean("f_absolute", "n_atoms", 3),
        "low_mae_f_comp": mean("low_f_absolute", "n_low_atoms", 3),
        "mae_epa": mean("e_absolute", "n_structures"),
        "low_mae_epa": mean("low_e_absolute", "n_low_structures"),
        "max_ae_epa": largest[0],
        "low_max_ae_epa": largest[1],
        "max_ae_f": largest[2],
        "low_max_ae_f": largest[3],
        "rmse_stress": mean("s_squares", "n_stress", 6) ** 0.5 * GPA,
    }
