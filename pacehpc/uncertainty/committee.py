"""Committees: potentials whose coefficients are drawn from the distribution that the data leave them.

    θ_k = θ + C^½ z_k,    z_k ~ N(0, 1),    C⁻¹ = (JᵀWJ + R) / α² + D⁻².

Without D this is the distribution of model.py: to first order, the standard deviation of a prediction over the members
is α s. But the data leave some combinations of coefficients nearly free, and a potential is not linear in them: steps
of that size give other potentials altogether. So the coefficients get a normal prior, with standard deviations D in
proportion to the root mean square of the coefficients of the same kind. It takes away spread; how much on the data of
the fit is known: the mean of the variances is γ/n of that without the prior, γ the number of parameters that the data
determine (MacKay, Neural Comput. 4, 415 (1992)).

Committees of linear ACE potentials are drawn in the same way (van der Oord, Sachs, Kovács, Ortner, Csányi, npj Comput.
Mater. 9, 168 (2023)); on their calibration: Musil, Willatt, Langovoy, Ceriotti, J. Chem. Theory Comput. 15, 906 (2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential
from pacehpc.uncertainty.calibration import Scale
from pacehpc.uncertainty.model import Uncertainty

PRIOR = 0.03
"""Standard deviation of the prior, over the root mean square of coefficients. With it forces of two fits of Al-Ni, one
of them badly determined by its data, spread 1.0 and 1.2 times as far as to first order; with 0.1, 1.1 and 2.1 times."""


@dataclass(frozen=True, eq=False)
class Committee:
    """A distribution of potentials around a fitted one.

    Attributes:
        potential: the fitted one.
        trainable: which parameters differ, bool (n_parameters,).
        factor: M of S C⁻¹ S = M Mᵀ, (n_trainable, n_trainable), lower triangle.
        scales: the diagonal of S, (n_trainable,).
        share: standard deviations on the data of the fit, over those without the prior; root mean square.
        kind: whose errors scale it: 'energies' or 'forces'.
    """

    potential: Potential
    trainable: np.ndarray
    factor: np.ndarray
    scales: np.ndarray
    share: float
    kind: str

    @classmethod
    def of(cls, uncertainty: Uncertainty, potential: Potential, kind: str, prior: float = PRIOR) -> Committee:
        """The committee of a potential.

        Args:
            uncertainty: of the potential.
            potential: the fitted one.
            kind: 'energies' or 'forces': whose α scales the spread.
            prior: its standard deviation, over the root mean square of coefficients; infinity: none.

        Raises:
            PacehpcError: the data of the fit had no values of this kind, or no errors in them.
        """
        scale: Scale | None = getattr(uncertainty, kind)
        if scale is None:
            raise PacehpcError(f"the data have no {kind} that could scale a committee; scale it by the other kind.")
        if scale.alpha == 0:
            raise PacehpcError(f"errors of {kind} are all zero in the data of the fit: there is nothing to spread.")
        lower, scales = uncertainty.factor / scale.alpha, uncertainty.scales
        precision = lower @ lower.T
        widths = prior * typical_sizes(potential)[uncertainty.trainable]
        precision[np.diag_indices_from(precision)] += (scales / widths) ** 2
        factor = cholesky(precision, lower=True, overwrite_a=True, check_finite=False)
        of_data = solve_triangular(factor, lower, lower=True, check_finite=False)
        share = float(np.linalg.norm(of_data) / np.sqrt(len(scales)))
        return cls(potential, uncertainty.trainable, factor, scales, share, kind)

    def member(self, k: int, seed: int = 0) -> Potential:
        """Potential number k, from 0; the same whatever else is drawn."""
        z = np.random.default_rng([seed, k]).standard_normal(len(self.scales))
        step = self.scales * solve_triangular(self.factor, z, lower=True, trans="T", check_finite=False)
        found = self.potential.copy()
        parameters = found.parameters
        parameters[self.trainable] += step
        found.parameters = parameters
        kept = {key: text for key, text in found.metadata.items() if not key.startswith("final_")}
        about = f"member {k + 1}, seed {seed}, scaled by errors of {self.kind}, spread {self.share:.3f} on the data"
        found.metadata = kept | {"committee": about}
        return found


def typical_sizes(potential: Potential) -> np.ndarray:
    """Root mean square of the coefficients of each parameter's pair of elements, or block, (n_parameters,).

    Where all of these are zero, that of all parameters.
    """
    parameters = potential.parameters
    found = np.empty(len(parameters))
    for where in (*potential.radial_slices.values(), *potential.block_slices):
        own = parameters[where]
        found[where] = np.sqrt(np.mean((own if own.any() else parameters) ** 2))
    return found
