"""Errors of a model against its reference data, as sums that add up over ranks.

`local_sums` makes a rank's `TERMS` (added over ranks) and `MAXIMA` (the largest counts); `finish` makes RMSE, MAE and
maxima of them. Energies per atom in eV, forces per component in eV/Å, stress in GPa. "low" are the structures of low
energy (`Structures.low`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pacehpc import fixed_point

if TYPE_CHECKING:
    from pacehpc.backends.interface import Structures

TERMS = (
    "e_loss",  # sum_s w_s (dE_s/N_s)^2
    "f_loss",  # sum_i w_i |dF_i|^2
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
_VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))  # xx yy zz yz xz xy
_MULTIPLICITY = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])


def local_sums(
    structures: Structures, energies: np.ndarray, forces: np.ndarray, virials: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One rank's `TERMS` as encoded sums, int64 (3, len(TERMS)), and `MAXIMA`.

    Sums are made virtual shard by virtual shard, so that they do not depend on which rank owns a shard.

    structures: with energy, forces, w_energy, w_forces; energies (n_structures,), eV; forces (n_atoms, 3), eV/Å;
    virials (n_structures, 3, 3), eV: None leaves the stress terms 0.
    """
    n_structures = len(energies)
    if n_structures == 0:
        return np.zeros((fixed_point.LIMBS, len(TERMS)), np.int64), np.zeros(len(MAXIMA))
    counts = np.diff(structures.atom_offsets)
    low = np.ones(n_structures) if structures.low is None else structures.low.astype(np.float64)
    low_atoms = np.repeat(low, counts)
    shards = structures.shard_starts
    terms = np.zeros((len(TERMS), len(shards)))

    de = (energies - structures.energy) / counts
    de_squares, de_absolute = de * de, np.abs(de)
    # components as three contiguous rows, added by hand: NumPy is slow along a short last axis
    x, y, z = np.abs(np.subtract(forces.T, structures.forces.T, order="C"))
    f_squares, f_absolute, f_max = x * x + y * y + z * z, x + y + z, np.maximum(np.maximum(x, y), z)

    def put(name: str, values: np.ndarray, starts: np.ndarray = shards) -> None:
        np.add.reduceat(values, starts, out=terms[_TERM[name]])

    put("e_loss", structures.w_energy * de_squares)
    put("n_structures", np.ones(n_structures))
    put("n_atoms", counts.astype(np.float64))
    put("n_low_structures", low)
    put("n_low_atoms", low * counts)
    put("e_squares", de_squares)
    put("e_absolute", de_absolute)
    put("low_e_squares", low * de_squares)
    put("low_e_absolute", low * de_absolute)
    atoms = structures.atom_offsets[shards]
    put("f_loss", structures.w_forces * f_squares, atoms)
    put("f_squares", f_squares, atoms)
    put("f_absolute", f_absolute, atoms)
    put("low_f_squares", low_atoms * f_squares, atoms)
    put("low_f_absolute", low_atoms * f_absolute, atoms)

    if virials is not None and structures.stress is not None:
        known = (structures.volumes > 0) & np.isfinite(structures.stress).all(axis=1)
        volumes, reference = (
            np.where(known, structures.volumes, 1.0)[:, None],
            np.where(known[:, None], structures.stress, 0),
        )
        ds = np.where(known[:, None], virials[:, _VOIGT[0], _VOIGT[1]] - volumes * reference, 0.0)
        put("s_loss", structures.w_energy / counts**2 * np.sum(ds * ds * _MULTIPLICITY, axis=1))
        put("n_stress", known.astype(np.float64))
        put("s_squares", np.sum((ds / volumes) ** 2, axis=1))
    too_large = 0.0 if fixed_point.fits(terms).all() else 1.0
    maxima = de_absolute.max(), (low * de_absolute).max(), f_max.max(), (low_atoms * f_max).max(), too_large
    return fixed_point.encode(terms).sum(axis=2), np.array(maxima)


def finish(terms: np.ndarray, maxima: np.ndarray) -> dict[str, float]:
    """RMSE, MAE and maxima of sums over all ranks, named as the columns of metrics.txt; NaN for averages of nothing."""
    sums = dict(zip(TERMS, terms.tolist(), strict=True))

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
        "max_ae_epa": float(maxima[0]),
        "low_max_ae_epa": float(maxima[1]),
        "max_ae_f": float(maxima[2]),
        "low_max_ae_f": float(maxima[3]),
        "rmse_stress": mean("s_squares", "n_stress", 6) ** 0.5 * GPA,
    }
