"""The potential that an input's `potential` section describes, and what it takes from initial potentials."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pacehpc.basis import (
    KEYWORDS,
    Function,
    block_functions,
    block_name,
    body_order,
    element_names,
    possible_blocks,
    power_order,
    resolve,
)
from pacehpc.errors import PacehpcError
from pacehpc.physics.parameters import Bond, Embedding
from pacehpc.potential.assemble import assemble, coefficients_by_function, identity_coefficients
from pacehpc.potential.blocks import Pair, sorted_pairs
from pacehpc.potential.check import check_bond, check_embedding, warn_of_jumps
from pacehpc.potential.initial import InitialParts, Source, merge_initial
from pacehpc.potential.io import load_potential
from pacehpc.potential.model import Potential
from pacehpc.potential.section import PER_ELEMENT, checked_section

log = logging.getLogger("pacehpc")

FIELDS = {
    "embeddings": {key: key for key in ("npot", "fs_parameters", "ndensity", "rho_core_cut", "drho_core_cut")},
    "bonds": {
        **{key: key for key in ("radbase", "radparameters", "rcut", "dcut", "r_in", "delta_in", "inner_cutoff_type")},
        "core-repulsion": "core_repulsion",
    },
}
"""Keys of the input and the fields of Embedding and Bond that they set."""
RANDOM_SIGMA = 1e-4
"""Standard deviation of new function coefficients with coefs_init: random."""
CANDIDATES = 20_000_000
"""More combinations of neighbours, n and l than this in all blocks are refused as a mistake of the input."""

LARGEST_NUMBER_OF_BLOCKS = 1_000_000

Section = Mapping[str, Any] | str | os.PathLike


def build_potential(
    section: Section, initial: Source | Sequence[Source] | None = None, rng: np.random.Generator | None = None
) -> Potential:
    """The potential to be fitted.

    Args:
        section: the `potential` mapping of an input, or the name of a potential file, which is taken as it is.
        initial: potentials or files in place of the section's `initial_potential`.
        rng: for coefs_init: random; default: numpy's generator with seed 42.

    Functions, radial coefficients, bonds and embeddings of initial potentials keep their values; blocks, bonds and
    embeddings that the input does not name come whole from them. New radial coefficients are c_nlk = δ_nk, new
    function coefficients 0. Where the input gives a bond or embedding a value that differs from the initial one,
    `on_mismatch` (keep_initial or use_input) decides; without it that is an error.

    Raises:
        PacehpcError: anything that has no meaning, with section and key.
    """
    target, parts = _build(section, initial, rng or np.random.default_rng(42))
    functions = {block.elements: coefficients_by_function(block) for block in target.blocks}
    for key, rows in parts.functions.items():
        merged = {**functions.get(key, {}), **rows}
        if len(merged) > len(functions.get(key, {})):  # functions that only the initial potential has
            merged = {function: merged[function] for function in sorted(merged, key=_file_order)}
        functions[key] = merged
    radial = {pair: parts.radcoefficients.get(pair, c) for pair, c in target.radcoefficients.items()}
    wanted = section.get("functions", {}).get(PER_ELEMENT) if isinstance(section, Mapping) else None
    total = sum(map(len, functions.values()))
    if isinstance(wanted, int) and total < (wanted - 1) * len(target.elements):
        log.info(
            "potential.functions: %d functions in all, fewer than number_of_functions_per_element: %d asks for (%d): "
            "larger nradmax_by_orders and lmax_by_orders have more", total, wanted, wanted * len(target.elements),
        )  # fmt: skip
    return _finish(target, radial, functions)


def ladder_start(section: Section, initial: Source | Sequence[Source] | None = None) -> Potential | None:
    """Where a ladder starts: the functions of the initial potentials with the input's bonds; None without any."""
    target, parts = _build(section, initial, np.random.default_rng(42))
    return _finish(target, parts.radcoefficients, parts.functions) if parts.functions else None


def _finish(target: Potential, radial: Mapping[Pair, np.ndarray], functions: Mapping) -> Potential:
    bonds = {pair: target.bonds[pair] for pair in target.pairs}
    potential = assemble(target.embeddings, bonds, radial, functions, target.metadata, target.delta_spline_bins)
    potential.check("potential")
    warn_of_jumps(potential.bonds)
    return potential


def _file_order(function: Function) -> tuple:
    return function.rank, function.elements, function.ns, function.ls, function.LS


def _build(
    section: Section, initial: Source | Sequence[Source] | None, rng: np.random.Generator
) -> tuple[Potential, InitialParts]:
    """What the input alone describes (bonds and embeddings completed from the initial parts), and those parts."""
    if isinstance(section, (str, os.PathLike)):
        section = {"filename": os.fspath(section)}
    if not isinstance(section, Mapping):
        raise PacehpcError(f"potential: expected a mapping or the name of a potential file, got {section!r}")
    if initial is None:
        initial = section.get("initial_potential")
    parts = InitialParts() if initial is None else merge_initial(initial, section.get("initial_conflict"))
    if initial is not None and not section.keys() & {"filename", "element", "elements"}:
        section = {**section, "elements": sorted(parts.embeddings)}
    section = checked_section(section, has_initial=initial is not None)
    policy = section.get("on_mismatch")
    if "filename" in section:
        return _from_file(section, parts, policy), parts
    elements = tuple(section["elements"])
    missing = sorted(set(parts.embeddings) - set(elements))
    if missing:
        raise PacehpcError(f"potential.elements: {missing} of initial_potential is not among {list(elements)}; add it")

    targets: list[tuple[str, ...]] = [(element,) for element in elements]
    given = resolve(section.get("embeddings", {}), targets, elements, "elements", "potential.embeddings")
    embeddings = {
        element: _embedding(given[element,], parts.embeddings.get(element), policy, f"embedding of {element}")
        for element in elements
    }
    pairs = sorted_pairs(elements)
    targets = [*pairs, *(pair[::-1] for pair in pairs if pair[0] != pair[1])]
    given = resolve(section.get("bonds", {}), targets, elements, "bonds", "potential.bonds")
    old_types = {bond.inner_cutoff_type for bond in parts.bonds.values()}
    default_type = old_types.pop() if len(old_types) == 1 else "distance"
    bonds = {
        pair: _bond(given[pair], parts.bonds.get(pair), policy, f"bond {' '.join(pair)}", default_type)
        for pair in pairs
    }
    functions = _new_functions(
        section.get("functions", {}), elements, {e: embeddings[e].ndensity for e in elements}, rng
    )
    metadata = {**parts.metadata, **section.get("metadata", {})}
    return assemble(embeddings, bonds, {}, functions, metadata, section["deltaSplineBins"]), parts


def _from_file(section: Mapping[str, Any], parts: InitialParts, policy: str | None) -> Potential:
    """The potential of `filename`, with `reset` c_nlk = δ_nk and function coefficients 0."""
    potential = load_potential(section["filename"])
    if section.get("reset"):
        for c in potential.radcoefficients.values():
            c[...] = identity_coefficients(c.shape[0], c.shape[1] - 1, c.shape[2])
        for block in potential.blocks:
            block.coefficients[...] = 0
    unknown = sorted(set(parts.embeddings) - set(potential.elements))
    if unknown:
        raise PacehpcError(
            f"initial_potential: has {unknown}, but {section['filename']} has {list(potential.elements)}"
        )
    for element, initial in parts.embeddings.items():
        where = f"embedding of {element}"
        potential.embeddings[element] = _choose(potential.embeddings[element], initial, policy, where, "embeddings")
    for pair, initial in parts.bonds.items():
        bond = _choose(potential.bonds[pair], initial, policy, f"bond {' '.join(pair)}", "bonds")
        potential.bonds[pair] = potential.bonds[pair[::-1]] = bond
    if "deltaSplineBins" in section:
        potential.delta_spline_bins = section["deltaSplineBins"]
    potential.metadata = {**parts.metadata, **potential.metadata, **section.get("metadata", {})}
    return potential


def _embedding(given: dict[str, Any], initial: Embedding | None, policy: str | None, where: str) -> Embedding:
    place = f"potential.embeddings: {where}"
    _require(given, ("npot", "fs_parameters", "ndensity"), initial, place)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    wanted = Embedding(**values) if initial is None else replace(initial, **values)
    check_embedding(wanted, place)
    return wanted if initial is None else _choose(wanted, initial, policy, where, "embeddings")


def _bond(given: dict[str, Any], initial: Bond | None, policy: str | None, where: str, default_type: str) -> Bond:
    place = f"potential.bonds: {where}"
    _require(given, ("radbase", "radparameters", "rcut", "dcut"), initial, place)
    values = {
        name: tuple(given[key]) if isinstance(given[key], list) else given[key]
        for key, name in FIELDS["bonds"].items()
        if key in given
    }
    if initial is None:
        wanted = Bond(**{"inner_cutoff_type": default_type, **values})
    else:
        wanted = replace(initial, **values)
    check_bond(wanted, place)
    return wanted if initial is None else _choose(wanted, initial, policy, where, "bonds")


def _require(given: Mapping[str, Any], required: Sequence[str], initial: object, place: str) -> None:
    missing = [key for key in required if key not in given]
    if missing and initial is None:
        raise PacehpcError(f"{place}: {', '.join(missing)} missing; give it under ALL or for these elements")


def _choose(wanted, initial, policy: str | None, where: str, section: str):
    """The input's or the initial potential's embedding or bond, where they differ."""
    for key, name in FIELDS[section].items():
        value, old = getattr(wanted, name), getattr(initial, name)
        if value != old:
            if name == "ndensity" and policy == "use_input":
                raise PacehpcError(
                    f"potential.{section}: {where}: ndensity is {value} here and {old} in initial_potential; functions"
                    " cannot change their number of densities"
                )
            if policy is None:
                raise PacehpcError(
                    f"potential.{section}: {where}: {key} is {_show(value)} here, but {_show(old)} in"
                    " initial_potential; make them agree, or say potential.on_mismatch: keep_initial or use_input"
                )
    return initial if policy == "keep_initial" else wanted


def _show(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _new_functions(
    section: Mapping[str, Any], elements: tuple[str, ...], ndensity: Mapping[str, int], rng: np.random.Generator
) -> dict[tuple[str, ...], dict[Function, np.ndarray]]:
    """The functions that the section `functions` asks for, with new coefficients."""
    place = "potential.functions"
    data = {key: value for key, value in section.items() if key != PER_ELEMENT}
    settings = resolve(data, _block_names(data, elements), elements, "blocks", place)
    settings = {key: given for key, given in settings.items() if given.keys() - {"coefs_init"}}
    sizes: dict[tuple[str, ...], int] = {}
    for key, given in settings.items():
        where = f"{place}: block {' '.join(key)}"
        missing = [name for name in ("nradmax_by_orders", "lmax_by_orders") if name not in given]
        if missing:
            raise PacehpcError(f"{where}: {missing[0]} missing; give it under ALL or for these elements")
        nmax, lmax = given["nradmax_by_orders"], given["lmax_by_orders"]
        if len(nmax) != len(lmax):
            raise PacehpcError(f"{where}: nradmax_by_orders {nmax} and lmax_by_orders {lmax} must have the same length")
        if len(key) > len(nmax) + 1:  # no function has so many neighbours
            continue
        sizes[key] = sum(
            math.comb(n * (l + 1 if rank > 1 else 1) * len(key) + rank - 1, rank)
            for rank, (n, l) in enumerate(zip(nmax, lmax, strict=True), start=1)
        )
    if PER_ELEMENT in section:
        _enough_for_all(section[PER_ELEMENT], sizes, elements)
    if sum(sizes.values()) > CANDIDATES:
        largest = max(sizes, key=sizes.__getitem__)
        nmax, lmax = settings[largest]["nradmax_by_orders"], settings[largest]["lmax_by_orders"]
        alike = sum(size == sizes[largest] for size in sizes.values())
        raise PacehpcError(
            f"{place}: {len(sizes):,} blocks have {sum(sizes.values()):,} combinations of neighbours, n and l, more "
            f"than {CANDIDATES:,}. The largest is block {' '.join(largest)} with {sizes[largest]:,} ({alike:,} such "
            f"blocks; nradmax_by_orders {nmax}, lmax_by_orders {lmax}): lower them there, or leave blocks of so many "
            "elements out with UNARY, BINARY, ... in place of ALL"
        )
    blocks = {
        key: block_functions(key, settings[key]["nradmax_by_orders"], settings[key]["lmax_by_orders"]) for key in sizes
    }
    blocks = {key: functions for key, functions in blocks.items() if functions}
    if PER_ELEMENT in section:
        number = section[PER_ELEMENT] * len(elements) // max(len(blocks), 1)
        blocks = {key: _simplest(functions, number) for key, functions in blocks.items()}
    rows: dict[tuple[str, ...], dict[Function, np.ndarray]] = {}
    for key, functions in sorted(blocks.items()):
        coefficients = np.zeros((len(functions), ndensity[key[0]]))
        if settings[key].get("coefs_init") == "random":
            coefficients = RANDOM_SIGMA * rng.standard_normal(coefficients.shape)
        rows[key] = dict(zip(functions, coefficients, strict=True))
    return rows


def _block_names(data: Mapping[Any, Any], elements: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The blocks that the keys of `functions` mean and that can have functions: rank ν reaches ν + 1 elements."""
    ranks = [len(given.get("nradmax_by_orders", ())) for given in data.values()]
    named = [key for key in data if key not in KEYWORDS]
    explicit = {block_name(element_names(key, elements, "potential.functions")) for key in named}
    sizes = [len(elements) if key == "ALL" else KEYWORDS.index(key) for key in data if key in KEYWORDS]
    largest = min([max(sizes, default=0), max(ranks, default=0) + 1, len(elements)])
    number = len(elements) * sum(math.comb(len(elements) - 1, size) for size in range(largest))
    if number > LARGEST_NUMBER_OF_BLOCKS:
        raise PacehpcError(
            f"potential.functions: {len(elements)} elements have more than {LARGEST_NUMBER_OF_BLOCKS:,} blocks of up to"
            f" {largest} elements; use UNARY, BINARY, ... instead of ALL, or fewer ranks"
        )
    return sorted({*possible_blocks(elements, largest), *explicit})


def _enough_for_all(number: int, blocks: Mapping[tuple[str, ...], int], elements: tuple[str, ...]) -> None:
    """Raise PacehpcError where number_of_functions_per_element leaves blocks without functions."""
    place = f"potential.functions.{PER_ELEMENT}: {number}"
    if not blocks:
        raise PacehpcError(
            f"{place}, but no functions are described; give nradmax_by_orders and lmax_by_orders under ALL"
        )
    needed = -(-len(blocks) // len(elements))
    if number < needed:
        counts = Counter(len(key) for key in blocks)
        listed = ", ".join(f"{counts[size]:,} of {size}" for size in sorted(counts))
        raise PacehpcError(
            f"{place}: too few for {len(blocks):,} blocks ({listed} elements): at least {needed} give each a function. "
            "Raise it, or leave blocks of many elements out with UNARY, BINARY, ... in place of ALL"
        )


def _simplest(functions: list[Function], number: int) -> list[Function]:
    """The first `number` functions in power order, ties in the order of the list; they stand in body order."""
    return sorted(sorted(functions, key=power_order)[:number], key=body_order)
