"""What the linearised model would predict of a structure, had it not been fitted: through the hat matrix."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

JITTER = 1e-10
"""Added to I - K, whose eigenvalues are those of rows that one structure alone determines."""


def leave_out(
    values: np.ndarray, rows: np.ndarray, gradient: np.ndarray, errors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Errors and variances of values of a structure that is left out.

    With M = JᵀJ + R, rows A of the structure in J and values G, the parameters without the structure are
    δ = (M - AᵀA)⁻¹ g away, and (M - AᵀA)⁻¹ = M⁻¹ + M⁻¹Aᵀ (I - K)⁻¹ A M⁻¹ with K = A M⁻¹ Aᵀ.

    Args:
        values: L⁻¹ Gᵀ, with M = L Lᵀ, (n, n_values).
        rows: L⁻¹ Aᵀ, (n, n_rows).
        gradient: L⁻¹ g, g = Aᵀr of the structure's residuals r, (n,).
        errors: predicted minus reference, (n_values,).

    Returns:
        The errors without the structure, and the diagonal of G (M - AᵀA)⁻¹ Gᵀ, (n_values,) each.
    """
    inner = np.asfortranarray(-(rows.T @ rows))
    inner[np.diag_indices_from(inner)] += 1.0 + JITTER
    mixed = rows.T @ values
    moved = errors + values.T @ gradient
    variances = np.einsum("kv,kv->v", values, values)
    if not len(inner):
        return moved, variances
    factor, info = dpotrf(inner, lower=1, clean=0, overwrite_a=1)
    if info != 0:
        raise FloatingPointError("the rows of a structure are not those of the matrix")
    solved = dpotrs(factor, np.column_stack([mixed, rows.T @ gradient]), lower=1)[0]
    moved += mixed.T @ solved[:, -1]
    variances += np.einsum("rv,rv->v", mixed, solved[:, :-1])
    return moved, variances
