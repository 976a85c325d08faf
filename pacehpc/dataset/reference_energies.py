"""Reference energies: from total energies to E^ref, the energy that is fitted.

E^ref = energy - sum_el n_el e_el + shift * N.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import numpy as np
from ase.data import chemical_symbols

from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")

FREE_VOLUME = 300.0  # Å³; an atom alone in such a cell is free, a crystal has 10 to 150 per atom
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


def free_atoms(
    offsets: np.ndarray, numbers: np.ndarray, pbc: np.ndarray, volume: np.ndarray, energy: np.ndarray
) -> dict[str, float]:
    """Energy of each element's free atom in the data: one atom, open or in the largest cell; eV.

    Args:
        offsets: (n_structures+1,), where the atoms of each structure begin.
        numbers: (n_atoms,) atomic numbers.
        pbc: (n_structures, 3) bool.
        volume: (n_structures,) Å³, 0 where not periodic in three directions.
        energy: (n_structures,) eV; NaN where unknown.
    """
    alone = np.nonzero((np.diff(offsets) == 1) & np.isfinite(energy))[0]
    cells = volume[alone]
    far = (cells == 0) & ~pbc[alone].any(axis=1) | (cells >= FREE_VOLUME)
    found: dict[str, float] = {}
    for row in alone[far][np.argsort(np.where(cells[far] == 0, np.inf, cells[far]), kind="stable")]:
        found[chemical_symbols[numbers[offsets[row]]]] = float(energy[row])
    return found


def automatic(
    elements: list[str],
    counts: np.ndarray,
    energy: np.ndarray,
    volume: np.ndarray,
    free: Mapping[str, float] | None = None,
    name: Callable[[int], str] = str,
) -> dict[str, float]:
    """Energies of free atoms where the data have them; of the other elements by least squares (eV).

    Without any free atom, the shift (eV per atom) puts the most dilute structure at 0, with a warning.

    Args:
        elements: of the columns of `counts`.
        counts: (n_structures, n_elements) atoms of each element.
        energy: (n_structures,) eV; NaN where unknown.
        volume: (n_structures,) Å³, 0 where not periodic in three directions; without any the shift is 0.
        free: energies of free atoms, eV.
        name: what a row of the data is called in a message.
    """
    free = {} if free is None else {e: v for e, v in free.items() if e in elements}
    known = np.isfinite(energy)
    unknown = [k for k, e in enumerate(elements) if e not in free]
    values = {e: float(v) for e, v in free.items()}
    if unknown:
        if not known.any():
            raise PacehpcError("data.reference_energy: auto needs energies; give numbers {element: eV}.")
        rest = energy[known] - counts[known] @ np.array([free.get(e, 0.0) for e in elements])
        fitted, _, rank, _ = np.linalg.lstsq(counts[known][:, unknown], rest, rcond=None)
        values |= {elements[k]: float(v) for k, v in zip(unknown, fitted, strict=True)}
        if rank < len(unknown):
            log.warning(
                "data.reference_energy: auto: the compositions in the data do not determine the energies of %s one "
                "by one (%d independent of %d). Give the energies of free atoms, as {%s: ..., ...}, or add them to the "
                "data",
                ", ".join(elements[k] for k in unknown), rank, len(unknown), elements[unknown[0]],
            )  # fmt: skip
    shift = 0.0
    if unknown and not free:
        n_atoms = counts.sum(axis=1)
        dilute = np.where(known, volume / n_atoms, 0.0)
        where = "the mean energy of each composition is near zero"
        if (dilute > 0).any():
            widest = int(np.argmax(dilute))
            shift = -float(energy[widest] - counts[widest] @ fitted) / float(n_atoms[widest])
            where = f"{name(widest)}, the largest volume per atom ({dilute[widest]:.1f} Å³), is put at zero"
        log.warning(
            "data.reference_energy: auto: no free atoms in the data. Energies of %s are fitted and %s: energies of "
            "atoms far from each other will be wrong by a constant. Give the energies of free atoms, computed with the "
            "settings of the data, as {%s: ..., ...}, or add a structure of one atom per element to the data",
            ", ".join(elements), where, elements[0],
        )  # fmt: skip
    elif unknown:
        log.warning(
            "data.reference_energy: auto: no free atom of %s in the data; energies by least squares. Give those of "
            "free atoms, or add them to the data", ", ".join(elements[k] for k in unknown),
        )  # fmt: skip
    return {**{e: values[e] for e in elements}, "shift": shift}


def resolve(
    option: float | str | Mapping[str, float],
    elements: list[str],
    counts: np.ndarray,
    energy: np.ndarray,
    volume: np.ndarray,
    free: Mapping[str, float],
    name: Callable[[int], str],
) -> dict[str, float]:
    """The option `data.reference_energy` (arguments as of `automatic`) as {element: eV, ..., 'shift': eV per atom}.

    Raises:
        PacehpcError: not a number, a mapping with every element of the data, or 'auto'.
    """
    if option == "auto":
        return automatic(elements, counts, energy, volume, free, name)
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
    pbc: np.ndarray,
    volume: np.ndarray,
    energy: np.ndarray | None,
    energy_corrected: np.ndarray | None,
    where: str,
    name: Callable[[int], str] = str,
) -> tuple[np.ndarray, dict[str, float] | None]:
    """E^ref of every structure (eV) and the resolved reference energies (None: the data's own `energy_corrected`).

    Args:
        option: `data.reference_energy`.
        offsets: (n_structures+1,), where the atoms of each structure begin.
        numbers: (n_atoms,) atomic numbers.
        pbc: (n_structures, 3) bool.
        volume: (n_structures,) Å³, 0 where not periodic in three directions.
        energy: (n_structures,) total energies, NaN where unknown; None: no such column.
        energy_corrected: the same of the column `energy_corrected`.
        where: the file, for messages.
        name: what a row of the data is called in a message.

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
        if _plausible(energy_corrected / counts.sum(axis=1)):
            return energy_corrected, None
        per_atom = energy_corrected / counts.sum(axis=1)
        log.warning(
            "%s: energy_corrected reaches from %.4g to %.4g eV/atom, outside [%g, %g]; reference energies are fitted "
            "(data.reference_energy: auto)", where, np.nanmin(per_atom), np.nanmax(per_atom), *PLAUSIBLE,
        )  # fmt: skip
        option = "auto"
        energy = energy_corrected if energy is None else energy
    if energy is None:
        raise PacehpcError(
            f"{where}: data.reference_energy needs the column 'energy'; only 'energy_corrected' is there. "
            "Leave the option out to use that column."
        )
    free = free_atoms(offsets, numbers, pbc, volume, energy) if option == "auto" else {}
    resolved = resolve(option, elements, counts, energy, volume, free, name)
    log.info("reference energies: %s", ", ".join(f"{k} {v:.6f} eV" for k, v in resolved.items()))
    found = corrected(resolved, elements, counts, energy)
    per_atom = found / counts.sum(axis=1)
    if not _plausible(per_atom):
        log.warning(
            "%s: energies without the reference energies reach from %.4g to %.4g eV/atom, outside [%g, %g]: are these "
            "total energies in eV, and data.reference_energy the energies of atoms?",
            where, np.nanmin(per_atom), np.nanmax(per_atom), *PLAUSIBLE,
        )  # fmt: skip
    return found, resolved


def _plausible(per_atom: np.ndarray) -> bool:
    known = per_atom[np.isfinite(per_atom)]
    return bool(((known >= PLAUSIBLE[0]) & (known <= PLAUSIBLE[1])).all())
