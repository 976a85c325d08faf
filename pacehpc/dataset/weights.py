"""Weights of energies and forces, and which structures take part.

Everything here is made on all structures at once, by one process, so it does not depend on the number of ranks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacehpc.dataset.hull import hull_distances
from pacehpc.dataset.reference_energies import composition
from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")


@dataclass
class Selection:
    """Rows that take part (ascending), their weights, and the energies above the hull of all rows, if computed."""

    rows: np.ndarray
    w_energy: np.ndarray
    w_forces: np.ndarray  # of the atoms of those rows
    above_hull: np.ndarray | None = None  # eV/atom, (n_structures,), all rows
    policy: str = "uniform"


def uniform(n_atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1/n for every structure, 1/(all atoms) for every atom; `n_atoms` (n_structures,)."""
    return np.full(len(n_atoms), 1.0 / max(len(n_atoms), 1)), np.full(int(n_atoms.sum()), 1.0 / max(n_atoms.sum(), 1))


def normalise(
    w_energy: np.ndarray,
    w_forces: np.ndarray,
    where: str = "the data",
    needed: Sequence[str] = ("energy", "forces"),
) -> tuple[np.ndarray, np.ndarray]:
    """Both sets scaled to the sum 1; one whose values are not `needed` may be nothing but zeros.

    Raises:
        PacehpcError: negative weights, or nothing but zeros.
    """
    scaled = []
    for name, weights in (("energy", w_energy), ("forces", w_forces)):
        if (weights < 0).any():
            raise PacehpcError(f"{where}: negative weights in w_{name}.")
        total = weights.sum()
        if not total > 0 and name in needed:
            raise PacehpcError(f"{where}: all weights in w_{name} are zero.")
        scaled.append(weights / total if total > 0 else weights)
    return scaled[0], scaled[1]


_OPTIONS: dict[str, Any] = {
    "nfit": None, "n_lower": None, "n_upper": None, "DElow": 1.0, "DEup": 10.0, "DE": 1.0, "DF": 1.0, "wlow": None,
    "DFup": None, "reftype": "all", "energy": "convex_hull", "seed": None,
}  # fmt: skip


def _options(weighting: Mapping[str, Any]) -> dict[str, Any]:
    options = {**_OPTIONS, **{k: v for k, v in weighting.items() if k != "type"}}
    where = "fit.weighting"
    unknown = [k for k in options if k not in _OPTIONS]
    if unknown:
        raise PacehpcError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(_OPTIONS)}.")
    for key in ("DElow", "DEup", "DE", "DF", "DFup", "wlow"):
        value = options[key]
        if value is None and key in ("DFup", "wlow"):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
            raise PacehpcError(f"{where}.{key}: {value!r} is not a number.")
    for key in ("nfit", "n_lower", "n_upper", "seed"):
        value = options[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer))):
            raise PacehpcError(f"{where}.{key}: {value!r} is not an integer.")
        if value is not None and value < 0:
            if key == "nfit" and value == -1:  # pacemaker's word for all
                options[key] = None
            else:
                raise PacehpcError(f"{where}.{key}: {value!r} is negative.")
    if options["wlow"] is not None and not 0 < options["wlow"] <= 1:
        raise PacehpcError(f"{where}.wlow: {options['wlow']!r} is not in (0, 1].")
    if options["reftype"] not in ("all", "bulk", "cluster"):
        raise PacehpcError(f"{where}.reftype: {options['reftype']!r} is none of all, bulk, cluster.")
    if options["energy"] not in ("convex_hull", "cohesive"):
        raise PacehpcError(f"{where}.energy: {options['energy']!r} is none of convex_hull, cohesive.")
    return options


def _choose(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    return rows if count >= len(rows) else np.sort(random.choice(rows, count, replace=False))


def energy_based(
    weighting: Mapping[str, Any],
    offsets: np.ndarray,
    numbers: np.ndarray,
    pbc: np.ndarray,
    energy: np.ndarray,
    forces: np.ndarray,
    seed: int = 42,
) -> Selection:
    """EnergyBasedWeightingPolicy: low energies and small forces count more; structures far above the hull are dropped.

    w_s is proportional to (e_s + |DE|)^-2, w_i to w_s/(|F_i|^2 + |DF|), with e_s the energy per atom above the convex
    hull over composition (`energy: cohesive`: above the lowest). See Bochkarev et al., Phys. Rev. Materials 6,
    013804 (2022).

    Args:
        weighting: the keys nfit, n_lower, n_upper, DElow, DEup, DE, DF, wlow, DFup, reftype, energy, seed.
        offsets: (n_structures+1,), where the atoms of each structure begin.
        numbers: (n_atoms,) atomic numbers.
        pbc: (n_structures, 3) bool.
        energy: (n_structures,) E^ref, eV.
        forces: (n_atoms, 3), eV/Å.
        seed: of the random choice of structures.

    Raises:
        PacehpcError: impossible options, or no structure left.
    """
    options = _options(weighting)
    random = np.random.default_rng(seed if options["seed"] is None else options["seed"])
    n_structures, n_atoms = len(offsets) - 1, np.diff(offsets)
    keep = np.ones(n_structures, bool)
    if options["reftype"] != "all":
        keep = pbc.all(axis=1) == (options["reftype"] == "bulk")
    if not keep.any():
        raise PacehpcError(f"fit.weighting: no structure of reftype {options['reftype']}.")
    above = np.full(n_structures, np.nan)
    if options["energy"] == "cohesive":
        above[keep] = (energy / n_atoms)[keep] - (energy / n_atoms)[keep].min()
    else:
        _, counts = composition(offsets, numbers)
        above[keep] = hull_distances(counts[keep], energy[keep])
    force = np.sqrt(np.einsum("ad,ad->a", forces, forces))
    if options["DFup"] is not None:
        keep &= np.maximum.reduceat(force, offsets[:-1]) <= options["DFup"]
    keep &= ~(above >= options["DEup"])
    lower = np.nonzero(keep & (above < options["DElow"]))[0]
    upper = np.nonzero(keep & ~(above < options["DElow"]))[0]
    if options["n_lower"] is not None or options["n_upper"] is not None:
        n_lower = len(lower) if options["n_lower"] is None else options["n_lower"]
        n_upper = len(upper) if options["n_upper"] is None else options["n_upper"]
    else:
        n_lower = len(lower) if options["nfit"] is None else min(options["nfit"], len(lower))
        n_upper = len(upper) if options["nfit"] is None else options["nfit"] - n_lower
    lower, upper = _choose(lower, n_lower, random), _choose(upper, n_upper, random)
    rows = np.sort(np.concatenate([lower, upper]))
    if len(rows) == 0:
        raise PacehpcError(
            "fit.weighting: no structure is left; DEup or DFup is too small for the data "
            f"(lowest energy above the hull {np.nanmin(above):.4g} eV/atom)."
        )
    chosen = above[rows] + abs(options["DE"])
    if (chosen <= 0).any():
        raise PacehpcError("fit.weighting.DE: 0 gives infinite weights on the hull.")
    w = chosen**-2.0
    w /= w.sum()
    is_lower = np.isin(rows, lower)
    if options["wlow"] is not None:
        wlow = options["wlow"]
        if not len(upper) and wlow != 1.0:
            log.warning("weighting: no structures in the upper tier, wlow is set to 1")
            wlow = 1.0
        if not len(lower):
            log.warning("weighting: no structures in the lower tier, wlow is set to 0")
            wlow = 0.0
        for tier, share in ((is_lower, wlow), (~is_lower, 1.0 - wlow)):
            if tier.any():
                w[tier] *= share / w[tier].sum()
    atoms = np.isin(np.repeat(np.arange(n_structures), n_atoms), rows)
    denominator = force[atoms] ** 2 + abs(options["DF"])
    if (denominator <= 0).any():
        raise PacehpcError("fit.weighting.DF: 0 gives infinite weights where forces vanish.")
    w_forces = np.repeat(w, n_atoms[rows]) / denominator
    log.info(
        "weighting: %d structures in the lower tier (weight %.4g), %d in the upper (%.4g), %d dropped",
        len(lower), w[is_lower].sum(), len(upper), w[~is_lower].sum(), n_structures - len(rows),
    )  # fmt: skip
    hull = above if options["energy"] == "convex_hull" else None
    return Selection(rows, w, w_forces / w_forces.sum(), hull, "EnergyBasedWeightingPolicy")


def external(
    columns: Mapping[str, Any], labels: list[Any], where: str, index: list[Any], offsets: np.ndarray
) -> Selection:
    """ExternalWeightingPolicy: weights of a frame indexed like the data; structures that it lacks are dropped.

    Args:
        columns: the frame's columns `w_energy` and `w_forces`.
        labels: the frame's index.
        where: the frame's name.
        index: the row labels of the data.
        offsets: (n_structures+1,) of the data.

    Raises:
        PacehpcError: missing columns, wrong lengths, unknown or repeated row labels.
    """
    for name in ("w_energy", "w_forces"):
        if name not in columns:
            raise PacehpcError(f"{where}: no column {name!r}, which ExternalWeightingPolicy needs.")
    place = {label: row for row, label in enumerate(index)}
    unknown = [label for label in labels if label not in place]
    if unknown:
        raise PacehpcError(f"{where}: {len(unknown)} indices are not in the data, the first is {unknown[0]!r}.")
    if len(set(labels)) != len(labels):
        raise PacehpcError(f"{where}: repeated row labels.")
    order = sorted(range(len(labels)), key=lambda k: place[labels[k]])
    rows = np.array([place[labels[k]] for k in order], dtype=np.int64)
    n_atoms = np.diff(offsets)
    w_energy, w_forces = np.empty(len(rows)), []
    for new, (k, row) in enumerate(zip(order, rows, strict=True)):
        try:
            w_energy[new] = columns["w_energy"][k]
            part = np.asarray(columns["w_forces"][k], dtype=float)
        except (TypeError, ValueError):
            raise PacehpcError(f"{where}, row {labels[k]}: weights are not numbers.") from None
        part = np.full(n_atoms[row], float(part)) if part.ndim == 0 else part
        if part.shape != (n_atoms[row],):
            raise PacehpcError(f"{where}, row {labels[k]}: w_forces has shape {part.shape}, expected {n_atoms[row]}.")
        if not (np.isfinite(part).all() and np.isfinite(w_energy[new])):
            raise PacehpcError(f"{where}, row {labels[k]}: weights contain NaN or infinite values.")
        w_forces.append(part)
    if not len(rows):
        raise PacehpcError(f"{where}: no rows, so no structure would be fitted.")
    if len(rows) < len(index):
        log.info("weighting: %d structures that %s lacks are dropped", len(index) - len(rows), where)
    return Selection(rows, w_energy, np.concatenate(w_forces), None, "ExternalWeightingPolicy")


def low_energies(
    energy: np.ndarray, n_atoms: np.ndarray, above_hull: np.ndarray | None, limit: float = 1.0
) -> np.ndarray:
    """Structures within `limit` eV/atom of the hull if it was computed, else of the lowest energy per atom; bool."""
    if above_hull is None:
        per_atom = np.where(np.isfinite(energy), energy / n_atoms, np.inf)
        above_hull = per_atom - per_atom.min(initial=np.inf) if np.isfinite(per_atom).any() else per_atom
    return above_hull <= limit
