"""Calibration of the linearised model's standard deviations by errors of structures that were left out.

The model says s, up to a factor: the weights of a loss are no inverse variances, and a potential with few functions is
wrong in ways that no noise describes. So s becomes σ² = α² s² + b², with α of largest likelihood for normal errors and
a floor b; and the quantiles of |error| / σ, of all structures and of each group, give intervals that need no normal
errors (conformal prediction: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005); for interatomic
potentials Hu et al., Mach. Learn.: Sci. Technol. 3, 045028 (2022)).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

LEVELS = (0.68, 0.90)
"""Shares of the true values that intervals shall hold."""
FLOOR = 0.05
"""The floor b, over the root mean square of the errors."""
TYPICAL = 4.0
"""Root mean square over median of the errors, at most, for the floor: a few structures that nothing else in the data
resembles, such as dimers, have errors beyond all measure when they are left out."""
CUT = 0.01
"""Values whose s is below this part of the median are left out: zeros by symmetry."""
ZERO = 1e-6
"""Of the largest s: round-off of zeros, which have no say in the median."""
LEAST = 10
"""Structures of a group with quantiles of its own."""
KINDS = ("energies", "forces")


@dataclass(frozen=True)
class LeftOut:
    """Errors of values of structures that were left out of the fit, (n,) each.

    Attributes:
        errors: predicted minus reference.
        s: standard deviations of the linearised model without factor.
        structures: the structure of each value.
    """

    errors: np.ndarray
    s: np.ndarray
    structures: np.ndarray


@dataclass(frozen=True)
class Scale:
    """σ² = α² s² + b² of one kind of values, and the factors of σ in intervals.

    Attributes:
        alpha: factor of s.
        floor: b, in the units of the values.
        cut: s below which a value took no part.
        quantiles: of |error| / σ at `LEVELS`: of all structures, then of each group; NaN where a group has too few.
        rmse: root mean square of the errors.
    """

    alpha: float
    floor: float
    cut: float
    quantiles: np.ndarray
    rmse: float

    def sigma(self, s: np.ndarray) -> np.ndarray:
        """Standard deviations."""
        return np.sqrt((self.alpha * s) ** 2 + self.floor**2)


def group_names(labels: np.ndarray) -> tuple[str, ...]:
    """Groups with quantiles of their own, in alphabetical order, of the label of each structure."""
    return tuple(sorted(name for name, count in Counter(labels.tolist()).items() if count >= LEAST))


def calibrate(left_out: LeftOut, labels: np.ndarray, groups: tuple[str, ...]) -> Scale | None:
    """Find the scale of one kind of values; None where no value is known.

    Args:
        left_out: the errors.
        labels: group of each structure, (n_structures,).
        groups: those with quantiles of their own.
    """
    errors, s = np.abs(left_out.errors), left_out.s
    if not (s > 0).any():
        return None
    cut = CUT * float(np.median(s[s > ZERO * s.max()]))
    used = s >= cut
    errors, s, structures = errors[used], s[used], left_out.structures[used]
    rmse = float(np.sqrt(np.mean(errors**2)))
    floor = FLOOR * min(rmse, TYPICAL * float(np.median(errors)))
    alpha = likeliest_factor(errors, s, floor)
    scores = errors / np.sqrt((alpha * s) ** 2 + floor**2) if rmse > 0 else np.zeros(len(errors))
    of_group = labels[structures]
    quantiles = [conformal(scores)]
    for name in groups:
        own = of_group == name
        enough = len(np.unique(structures[own])) >= LEAST
        quantiles.append(conformal(scores[own]) if enough else np.full(len(LEVELS), np.nan))
    return Scale(alpha, floor, cut, np.array(quantiles), rmse)


def likeliest_factor(errors: np.ndarray, s: np.ndarray, floor: float) -> float:
    """α of largest likelihood, where errors are normal with variance α² s² + b²."""
    squares = errors**2
    if not squares.any():
        return 0.0
    start = 0.5 * np.log(np.mean(squares / s**2))

    def unlikelihood(log_alpha: float) -> float:
        variance = np.exp(2 * log_alpha) * s**2 + floor**2
        return float(np.mean(np.log(variance) + squares / variance))

    grid = start + np.linspace(-12.0, 3.0, 61)
    best = grid[int(np.argmin([unlikelihood(value) for value in grid]))]
    step = grid[1] - grid[0]
    from scipy.optimize import minimize_scalar  # takes a fifth of the time of all imports of a fit

    found = minimize_scalar(unlikelihood, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def conformal(scores: np.ndarray) -> np.ndarray:
    """Quantiles of scores (n,) at `LEVELS` that a further score keeps to with that probability: of n + 1 values."""
    ordered, n = np.sort(scores), len(scores)
    return np.array([ordered[min(n, int(np.ceil((n + 1) * level))) - 1] for level in LEVELS])
