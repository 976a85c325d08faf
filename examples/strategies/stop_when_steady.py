"""A callback: stop when ten iterations have changed no coefficient by more than 0.01."""

import numpy as np

kept = []


def after_iteration(basis_config, current_fit_iteration, current_fit_cycle, current_ladder_step):
    """basis_config: the potential as it is now. Returning True stops the fit."""
    kept.append(basis_config.parameters.copy())
    return len(kept) > 10 and bool(np.abs(kept[-1] - kept[-11]).max() < 0.01)
