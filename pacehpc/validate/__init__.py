"""Validation: physical properties of a potential, as a command and as callbacks of a fit.

`fit.callbacks: [pacehpc.validate.elastic]` logs the elastic constants of the elements' crystals now and then.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

EVERY = 100
"""Iterations between two calls of a callback that compute something."""


def elastic(basis_config: Potential, current_fit_iteration: int, **_: object) -> None:
    """Log lattice and elastic constants of the elements' crystals; a callback of a fit."""
    _log(basis_config, current_fit_iteration, ("elastic",))


def equation_of_state(basis_config: Potential, current_fit_iteration: int, **_: object) -> None:
    """Log lattice constants and bulk moduli of the elements' crystals; a callback of a fit."""
    _log(basis_config, current_fit_iteration, ("eos",))


def dimers(basis_config: Potential, current_fit_iteration: int, **_: object) -> None:
    """Log length and energy of the dimers, and down to which distance they repel; a callback of a fit."""
    _log(basis_config, current_fit_iteration, ("dimers",), with_crystals=False)


def _log(potential: Potential, iteration: int, wanted: tuple[str, ...], with_crystals: bool = True) -> None:
    if iteration % EVERY:
        return
    from pacehpc.calculator import PaceCalculator
    from pacehpc.validate.crystals import crystals
    from pacehpc.validate.tasks import validate

    found = validate(
        crystals(potential.elements) if with_crystals else {},
        potential.elements,
        lambda: PaceCalculator(potential, backend="cpu"),
        potential.cutoff,
        wanted,
    )
    for label, values in found.values.items():
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        log.info("Iteration %d, %s: %s", iteration, label, numbers)
    for label, failures in found.failures.items():
        log.info("Iteration %d, %s: %s", iteration, label, "; ".join(failures.values()))
