"""Errors of a model against its reference data, as sums that add up over ranks.

`local_sums` makes a rank's `TERMS` (added over ranks) and `MAXIMA` (the largest counts); `finish` makes RMSE, MAE and
maxima of them. Energies per atom in eV, forces per component in eV/Å, stress in GPa. "low" are the structures of low
energy (`Structures.low`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
MAXIMA = ("e_max", "low_e_max", "f_max", "low_f_max")

GPA = 160.21766208  # GPa per eV/Å^3

_TERM = {name: k for k, name in enumerate(TERMS)}
_VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))  # xx yy zz yz xz xy
_MULTIPLICITY = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])


def local_sums(
    structures: Structures, energies: np.ndarray, forces: np.ndarray, virials: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One rank's `TERMS` and `MAXIMA`.

    structures: with energy, forces, w_energy, w_forces; energies (n_structures,), eV; forces (n_atoms, 3), eV/Å;
    virials (n_structures, 3, 3), eV: None leaves the stress terms 0.
    """
    terms, maxima = np.zeros(len(TERMS)), np.zeros(len(MAXIMA))
    n_structures = len(energies)
    if n_structures == 0:
        return terms, maxima
    counts = np.diff(structures.atom_offsets)
    low = np.ones(n_structures) if structures.low is None else structures.low.astype(np.float64)
    low_atoms = np.repeat(low, counts)

    de = (energies - structures.energy) / counts
    de_squares, de_absolute = de * de, np.abs(de)
    # components as three contiguous rows, added by hand: NumPy is slow along a short last axis
    x, y, z = np.abs(np.subtract(forces.T, structures.forces.T, order="C"))
    f_squares, f_absolute, f_max = x * x + y * y + z * z, x + y + z, np.maximum(np.maximum(x, y), z)

    def put(name: str, value: float) -> None:
        terms[_TERM[name]] = value

    put("e_loss", structures.w_energy @ de_squares)
    put("f_loss", structures.w_forces @ f_squares)
    put("n_structures", n_structures)
    put("n_atoms", len(forces))
    put("n_low_structures", low.sum())
    put("n_low_atoms", low_atoms.sum())
    put("e_squares", de_squares.sum())
    put("e_absolute", de_absolute.sum())
    put("low_e_squares", low @ de_squares)
    put("low_e_absolute", low @ de_absolute)
    put("f_squares", f_squares.sum())
    put("f_absolute", f_absolute.sum())
    put("low_f_squares", low_atoms @ f_squares)
    put("low_f_absolute", low_atoms @ f_absolute)
    maxima[:] = de_absolute.max(), (low * de_absolute).max(), f_max.max(), (low_atoms * f_max).max()

    if virials is not None and structures.stress is not None:
        known = (structures.volumes > 0) & np.isfinite(structures.stress).all(axis=1)
        volumes = structures.volumes[known, None]
        ds = virials[known][:, _VOIGT[0], _VOIGT[1]] - volumes * structures.stress[known]
        weights = structures.w_energy[known] / counts[known] ** 2
        put("s_loss", weights @ (ds * ds @ _MULTIPLICITY))
        put("n_stress", known.sum())
        put("s_squares", ((ds / volumes) ** 2).sum())
    return terms, maxima


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
