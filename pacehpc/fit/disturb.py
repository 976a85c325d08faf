"""How a fit cycle departs from the best potential so far."""

from __future__ import annotations

import numpy as np


def disturb(
    x: np.ndarray,
    functions: np.ndarray,
    rng: np.random.Generator,
    relative: float = 0.0,
    absolute: float = 0.0,
    randomize: float = 0.0,
) -> np.ndarray:
    """A disturbed copy of the trainable parameters x (n,).

    relative: x + N(0,1) σ max(|x|, 0.01); absolute: x + N(0,1) σ; randomize: those that are function coefficients
    (`functions`, bool (n,)) become N(0,1) σ.
    """
    x = x.copy()
    if relative:
        x += rng.normal(size=len(x)) * relative * np.maximum(np.abs(x), 0.01)
    if absolute:
        x += rng.normal(size=len(x)) * absolute
    if randomize:
        x[functions] = rng.normal(size=np.count_nonzero(functions)) * randomize
    return x
