"""Reference energies: from total energies to E^ref, the energy that is fitted.

E^ref = energy - sum_el n_el e_el + shift * N.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np
from ase.data import chemical_symbols

from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")

PLAUSIBLE = (-20.0, 250.0)  # eV/atom; a column energy_corrected outside holds total energies


def composition(offsets: np.ndarray, numbers: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Elements present (alphabetical) and their counts, (n_structures, n_elements)."""
    present = np.unique(numbers)
    elements = sorted(chemical_symbols[z] for z in present)
    structure = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    counts = np.zeros((len(offsets) - 1, len(elements)))
    for column, element in enumerate(elements):
        chosen = structure[numbers == chemical_symbols.index(element)]
        counts[:, column] = np.bincount(chosen, minlength=len(offsets) - 1)
    return elements, counts


def automatic(elements: list[str], counts: np.ndarray, energy: np.ndarray, volume: np.ndarray) -> dict[str, float]:
    """Least-squares energy of each element, and the shift that puts the most dilute structure at 0 (eV per atom).

    `volume` (n_structures,) is 0 for structures that are not periodic in three directions; without any periodic
    structure the shift is 0.
    """
    fitted = np.linalg.lstsq(counts, energy, rcond=None)[0]
    n_atoms = counts.sum(axis=1)
    shift = 0.0
    if (volume > 0).any():
        widest = int(np.argmax(volume / n_atoms))
        shift = -float(energy[widest] - counts[widest] @ fitted) / float(n_atoms[widest])
    return {**{e: float(v) for e, v in zip(elements, fitted, strict=True)}, "shift": shift}


def resolve(
    option: float | str | Mapping[str, float],
    elements: list[str],
    counts: np.ndarray,
    energy: np.ndarray,
    volume: np.ndarray,
) -> dict[str, float]:
    """The option `data.reference_energy` as {element: eV, ..., 'shift': eV per atom}.

    Raises:
        PacehpcError: not a number, a mapping with every element of the data, or 'auto'.
    """
    if option == "auto":
        return automatic(elements, counts, energy, volume)
    if isinstance(option, Mapping):
        values = dict(option)
        shift = values.pop("shift", 0.0)
        missing = [e for e in elements if e not in values]
        if missing:
            raise PacehpcError(f"data.reference_energy: no value for {', '.join(missing)}.")
        foreign = [str(e) for e in values if e not in chemical_symbols[1:]]
        if foreign:
            raise PacehpcError(f"data.reference_energy: {foreign[0]!r} is no element (elements and 'shift').")
    else:
        values, shift = {e: option for e in elements}, 0.0
    resolved: dict[str, float] = {}
    for key, value in {**values, "shift": shift}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
            raise PacehpcError(
                f"data.reference_energy: {value!r} is not a number; give a number, a mapping {{element: eV}}, or auto."
            )
        resolved[key] = float(value)
    return resolved


def corrected(resolved: Mapping[str, float], elements: list[str], counts: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """E^ref = energy - sum_el n_el e_el + shift * N, (n_structures,) eV."""
    missing = [e for e in elements if e not in resolved]
    if missing:
        raise PacehpcError(f"data.reference_energy: no value for {', '.join(missing)}.")
    single = np.array([resolved[e] for e in elements])
    return energy - counts @ single + resolved.get("shift", 0.0) * counts.sum(axis=1)


def reference_energies(
    option: float | str | Mapping[str, float] | None,
    offsets: np.ndarray,
    numbers: np.ndarray,
    volume: np.ndarray,
    energy: np.ndarray | None,
    energy_corrected: np.ndarray | None,
    where: str,
) -> tuple[np.ndarray, dict[str, float] | None]:
    """E^ref of every structure (eV) and the resolved reference energies (None: the data's own `energy_corrected`).

    Raises:
        PacehpcError: the columns do not allow what `option` asks for.
    """
    elements, counts = composition(offsets, numbers)
    if option is None:
        if energy_corrected is None:
            raise PacehpcError(
                f"{where}: no column 'energy_corrected'. Set data.reference_energy: a number, a mapping "
                "{element: energy of the free atom in eV}, or auto."
            )
        per_atom = energy_corrected / counts.sum(axis=1)
        if ((per_atom >= PLAUSIBLE[0]) & (per_atom <= PLAUSIBLE[1])).all():
            return energy_corrected, None
        log.warning(
            "%s: energy_corrected reaches from %.4g to %.4g eV/atom, outside [%g, %g]; reference energies are fitted "
            "(data.reference_energy: auto)", where, per_atom.min(), per_atom.max(), *PLAUSIBLE,
        )  # fmt: skip
        option = "auto"
        energy = energy_corrected if energy is None else energy
    if energy is None:
        raise PacehpcError(
            f"{where}: data.reference_energy needs the column 'energy'; only 'energy_corrected' is there. "
            "Leave the option out to use that column."
        )
    resolved = resolve(option, elements, counts, energy, volume)
    log.info("reference energies: %s", ", ".join(f"{k} {v:.6f} eV" for k, v in resolved.items()))
    found = corrected(resolved, elements, counts, energy)
    per_atom = found / counts.sum(axis=1)
    if not ((per_atom >= PLAUSIBLE[0]) & (per_atom <= PLAUSIBLE[1])).all():
        log.warning(
            "%s: energies without the reference energies reach from %.4g to %.4g eV/atom, outside [%g, %g]: are these "
            "total energies in eV, and data.reference_energy the energies of atoms?",
            where, per_atom.min(), per_atom.max(), *PLAUSIBLE,
        )  # fmt: skip
    return found, resolved
