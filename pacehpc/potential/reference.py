"""The energies that were subtracted from the data before a potential was fitted."""

from __future__ import annotations

import json
import logging

import numpy as np
from ase.data import atomic_numbers

from pacehpc.errors import PacehpcError
from pacehpc.potential.model import Potential

log = logging.getLogger("pacehpc")


def stored_reference(potential: Potential | None) -> dict[str, float] | None:
    """The reference energies that a potential was fitted with; None where its metadata do not give all of them."""
    text = None if potential is None else potential.metadata.get("reference_energy")
    if text is None:
        return None
    try:
        found = {str(key): float(value) for key, value in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        log.warning("reference_energy in the metadata of the potential is not understood and not used: %s", text)
        return None
    missing = [element for element in potential.elements if element not in found]
    if missing:
        log.info("reference energies of the potential are not used: they lack %s", ", ".join(missing))
        return None
    return found


def atomic_references(potential: Potential) -> np.ndarray:
    """Stored reference energy of an atom of each atomic number, eV, NaN for other elements.

    Raises:
        PacehpcError: the potential does not hold those of all its elements.
    """
    stored = stored_reference(potential)
    if stored is None:
        raise PacehpcError(
            "reference energies: the potential does not hold them. The .yaml file of a fit with "
            "`data.reference_energy` does; .yace files, and fits to `energy_corrected` alone, have none."
        )
    found = np.full(len(atomic_numbers), np.nan)
    for element in potential.elements:
        found[atomic_numbers[element]] = stored[element] + stored.get("shift", 0.0)
    return found
