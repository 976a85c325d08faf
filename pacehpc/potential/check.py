"""What a potential must fulfil before it can be evaluated; every message names the bond, element or block."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from ase.data import atomic_numbers

from pacehpc.errors import PacehpcError
from pacehpc.physics.parameters import EMBEDDINGS, FAMILIES, INNER_CUTOFF_TYPES, Bond, Embedding
from pacehpc.potential.blocks import Block, Pair, required_sizes

log = logging.getLogger("pacehpc")

SIZES = ("nradbase", "nradmax", "lmax")


def check_elements(elements: tuple[str, ...], where: str) -> None:
    """Raise PacehpcError unless these are different chemical elements, at least one."""
    if not elements:
        raise PacehpcError(f"{where}: no elements are given")
    for element in elements:
        if not isinstance(element, str) or atomic_numbers.get(element, 0) == 0:
            raise PacehpcError(f"{where}: '{element}' is not a chemical element; symbols are written like Al, C, Ni")
    if len(set(elements)) < len(elements):
        raise PacehpcError(f"{where}: an element is given twice in {list(elements)}")


def check_embedding(embedding: Embedding, where: str) -> None:
    """Raise PacehpcError for an embedding that has no meaning."""
    if embedding.npot not in EMBEDDINGS:
        raise PacehpcError(f"{where}: unknown embedding '{embedding.npot}'; known are {', '.join(EMBEDDINGS)}")
    if embedding.ndensity < 1:
        raise PacehpcError(f"{where}: ndensity is {embedding.ndensity}; it must be at least 1")
    if len(embedding.fs_parameters) != 2 * embedding.ndensity:
        raise PacehpcError(
            f"{where}: ndensity {embedding.ndensity} needs {2 * embedding.ndensity} parameters (weight and exponent of"
            f" each density), got {len(embedding.fs_parameters)}: {list(embedding.fs_parameters)}"
        )
    _check_finite(embedding.fs_parameters, f"{where}: parameters")
    if any(exponent <= 0 for exponent in embedding.fs_parameters[1::2]):
        raise PacehpcError(f"{where}: the exponents in {list(embedding.fs_parameters)} must be positive")
    for key in ("rho_core_cut", "drho_core_cut"):
        _check_finite([getattr(embedding, key)], f"{where}: {key}")
    if embedding.drho_core_cut < 0:
        raise PacehpcError(f"{where}: drho_core_cut is {embedding.drho_core_cut:g}; it must not be negative")


def check_bond(bond: Bond, where: str) -> None:
    """Raise PacehpcError for a bond that has no meaning."""
    if bond.radbase not in FAMILIES:
        raise PacehpcError(f"{where}: unknown radbase '{bond.radbase}'; known are {', '.join(FAMILIES)}")
    _check_finite(bond.radparameters, f"{where}: radparameters")
    if bond.radbase in ("ChebExpCos", "ChebPow") and (not bond.radparameters or bond.radparameters[0] <= 0):
        raise PacehpcError(
            f"{where}: {bond.radbase} needs a positive number in radparameters, got {list(bond.radparameters)}"
        )
    for key in ("rcut", "dcut", "r_in", "delta_in"):
        value = getattr(bond, key)
        _check_finite([value], f"{where}: {key}")
        if value < 0:
            raise PacehpcError(f"{where}: {key} is {value:g}; it must not be negative")
    if bond.rcut == 0:
        raise PacehpcError(f"{where}: rcut is 0; give the cutoff radius in Å")
    if bond.dcut > bond.rcut:
        raise PacehpcError(f"{where}: dcut {bond.dcut:g} is larger than rcut {bond.rcut:g}")
    if bond.r_in >= bond.rcut:
        raise PacehpcError(f"{where}: r_in {bond.r_in:g} is not smaller than rcut {bond.rcut:g}: nothing is left")
    if bond.inner_cutoff_type not in INNER_CUTOFF_TYPES:
        raise PacehpcError(
            f"{where}: unknown inner_cutoff_type '{bond.inner_cutoff_type}'; known are {', '.join(INNER_CUTOFF_TYPES)}"
        )
    if bond.inner_cutoff_type == "zbl" and bond.dcut == 0:
        raise PacehpcError(f"{where}: inner_cutoff_type zbl needs a positive dcut")
    if len(bond.core_repulsion) != 2:
        raise PacehpcError(f"{where}: core-repulsion needs two numbers, got {list(bond.core_repulsion)}")
    _check_finite(bond.core_repulsion, f"{where}: core-repulsion")
    for key in SIZES:
        if getattr(bond, key) < 0:
            raise PacehpcError(f"{where}: {key} is {getattr(bond, key)}; it must not be negative")


def check_spline(delta_spline_bins: float, where: str) -> None:
    """Raise PacehpcError unless this is a width of the bins of a spline."""
    if not (math.isfinite(delta_spline_bins) and delta_spline_bins > 0):
        raise PacehpcError(f"{where}: deltaSplineBins is {delta_spline_bins}; it must be a positive number")


def check_bonds(bonds: Mapping[Pair, Bond], blocks: Iterable[Block], where: str) -> None:
    """Raise PacehpcError unless the bonds have a meaning, one type of inner cutoff, and what the functions need."""
    types: dict[str, Pair] = {}
    for pair, bond in bonds.items():
        check_bond(bond, f"{where}: bond {' '.join(pair)}")
        types.setdefault(bond.inner_cutoff_type, pair)
    if len(types) > 1:
        found = ", ".join(f"{kind} ({' '.join(pair)})" for kind, pair in types.items())
        raise PacehpcError(f"{where}: all bonds must have the same inner_cutoff_type, found {found}")
    for pair, needed in required_sizes(blocks).items():
        bond = bonds[pair]
        for key, value, size in zip(SIZES, (bond.nradbase, bond.nradmax, bond.lmax), needed, strict=True):
            if size > value:
                raise PacehpcError(
                    f"{where}: bond {' '.join(pair)}: {key} is {value}, but a function of this bond needs {size}"
                )


def warn_of_jumps(bonds: Mapping[Pair, Bond]) -> None:
    """Log a warning for bonds whose radial functions, or their slopes, do not vanish at rcut."""
    for quantity, cure, jumps in (
        ("energies", "ChebPow with λ = 2, SBessel or ChebExpCos", lambda bond: bond.radbase == "ChebLinear"),
        ("forces", "λ = 2", lambda bond: bond.radbase == "ChebPow" and bond.radparameters[0] <= 1.0),
    ):
        found = [pair for pair, bond in bonds.items() if pair[0] <= pair[1] and jumps(bond)]
        if found:
            bond = bonds[found[0]]
            log.warning(
                "bond %s: %s does not go smoothly to 0 at rcut, %g Å: %s jump where atoms pass it; use %s",
                ", ".join(map(" ".join, found)), bond.radbase, bond.rcut, quantity, cure,
            )  # fmt: skip


def check_coefficients(radcoefficients: Mapping[Pair, np.ndarray], blocks: Iterable[Block], where: str) -> None:
    """Raise PacehpcError unless all coefficients are finite."""
    for pair, coefficients in radcoefficients.items():
        _check_finite(coefficients, f"{where}: bond {' '.join(pair)}: radcoefficients")
    for block in blocks:
        if not np.isfinite(block.coefficients).all():
            row = int(np.flatnonzero(~np.isfinite(block.coefficients).all(axis=1))[0])
            raise PacehpcError(f"{where}: block {block.name}: function {row + 1}: c is not finite")


def _check_finite(values: Sequence[float] | np.ndarray, where: str) -> None:
    if not np.isfinite(np.asarray(values, dtype=np.float64)).all():
        raise PacehpcError(f"{where}: all numbers must be finite")
