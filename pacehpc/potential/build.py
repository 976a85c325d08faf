"""The potential that an input's `potential` section describes, and what it takes from initial potentials."""

from __future__ import annotations

import math
import os
import re
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
from pacehpc.physics.parameters import OLD_NAMES, Bond, Embedding
from pacehpc.potential.assemble import assemble, coefficients_by_function, identity_coefficients
from pacehpc.potential.blocks import Pair, sorted_pairs
from pacehpc.potential.check import check_bond, check_elements, check_embedding
from pacehpc.potential.initial import InitialParts, Source, merge_initial
from pacehpc.potential.io import load_potential
from pacehpc.potential.model import Potential

FIELDS = {
    "embeddings": {key: key for key in ("npot", "fs_parameters", "ndensity", "rho_core_cut", "drho_core_cut")},
    "bonds": {
        **{key: key for key in ("radbase", "radparameters", "rcut", "dcut", "r_in", "delta_in", "inner_cutoff_type")},
        "core-repulsion": "core_repulsion",
    },
}
"""Keys of the input and the fields of Embedding and Bond that they set."""
FUNCTION_KEYS = ("nradmax_by_orders", "lmax_by_orders", "coefs_init")
PER_ELEMENT = "number_of_functions_per_element"
WITH_FILENAME = ("filename", "reset", "metadata", "deltaSplineBins", "initial_potential", "on_mismatch")
RANDOM_SIGMA = 1e-4
"""Standard deviation of new function coefficients with coefs_init: random."""
CANDIDATES = 20_000_000
"""More combinations of neighbours, n and l than this in all blocks are refused as a mistake of the input."""

LARGEST_NUMBER_OF_BLOCKS = 1_000_000
LARGEST_ORDER = 10_000  # n or l of one rank

Section = Mapping[str, Any] | str | os.PathLike


def build_potential(
    section: Section, initial: Source | Sequence[Source] | None = None, rng: np.random.Generator | None = None
) -> Potential:
    """The potential to be fitted.

    Parameters
    ----------
    section: the `potential` mapping of an input, or the name of a potential file, which is taken as it is.
    initial: potentials or files in place of the section's `initial_potential`.
    rng: for coefs_init: random; default numpy's generator with seed 42.

    Functions, radial coefficients, bonds and embeddings of initial potentials keep their values; blocks, bonds and
    embeddings that the input does not name come whole from them. New radial coefficients are c_nlk = δ_nk, new
    function coefficients 0. Where the input gives a bond or embedding a value that differs from the initial one,
    `on_mismatch` (keep_initial or use_input) decides; without it that is an error.
    Raises PacehpcError for anything that has no meaning, naming section and key.
    """
    target, parts = _build(section, initial, rng or np.random.default_rng(42))
    functions = {block.elements: coefficients_by_function(block) for block in target.blocks}
    for key, rows in parts.functions.items():
        merged = {**functions.get(key, {}), **rows}
        if len(merged) > len(functions.get(key, {})):  # functions that only the initial potential has
            merged = {function: merged[function] for function in sorted(merged, key=_file_order)}
        functions[key] = merged
    radial = {pair: parts.radcoefficients.get(pair, c) for pair, c in target.radcoefficients.items()}
    return _finish(target, radial, functions)


def ladder_start(section: Section, initial: Source | Sequence[Source] | None = None) -> Potential | None:
    """Where a ladder starts: the functions of the initial potentials with the input's bonds; None without any."""
    target, parts = _build(section, initial, np.random.default_rng(42))
    return _finish(target, parts.radcoefficients, parts.functions) if parts.functions else None


def _finish(target: Potential, radial: Mapping[Pair, np.ndarray], functions: Mapping) -> Potential:
    bonds = {pair: target.bonds[pair] for pair in target.pairs}
    potential = assemble(target.embeddings, bonds, radial, functions, target.metadata, target.delta_spline_bins)
    potential.check("potential")
    return potential


def _file_order(function: Function) -> tuple:
    return function.rank, function.elements, function.ns, function.ls, function.LS


def _build(
    section: Section, initial: Source | Sequence[Source] | None, rng: np.random.Generator
) -> tuple[Potential, InitialParts]:
    """What the input alone describes (bonds and embeddings completed from the initial parts), and those parts."""
    if isinstance(section, (str, os.PathLike)):
        section = {"filename": section}
    if not isinstance(section, Mapping):
        raise PacehpcError(f"potential: expected a mapping or the name of a potential file, got {section!r}")
    if initial is None:
        initial = section.get("initial_potential")
    parts = InitialParts() if initial is None else merge_initial(initial)
    policy = section.get("on_mismatch")
    if policy not in (None, "keep_initial", "use_input"):
        raise PacehpcError(f"potential.on_mismatch: expected keep_initial or use_input, got {policy!r}")
    if "filename" in section:
        return _from_file(section, parts, policy), parts
    section = _with_sections(section)
    elements = _elements(section, parts)

    given = _settings(section, "embeddings", [(element,) for element in elements], elements)
    embeddings = {
        element: _embedding(given[element,], parts.embeddings.get(element), policy, f"embedding of {element}")
        for element in elements
    }
    pairs = sorted_pairs(elements)
    given = _settings(section, "bonds", [*pairs, *(pair[::-1] for pair in pairs if pair[0] != pair[1])], elements)
    old_types = {bond.inner_cutoff_type for bond in parts.bonds.values()}
    default_type = old_types.pop() if len(old_types) == 1 else "distance"
    bonds = {
        pair: _bond(given[pair], parts.bonds.get(pair), policy, f"bond {' '.join(pair)}", default_type)
        for pair in pairs
    }
    functions = _new_functions(section, elements, {e: embeddings[e].ndensity for e in elements}, rng)
    spline = _number(section.get("deltaSplineBins", 0.001), "potential.deltaSplineBins")
    metadata = {**parts.metadata, **_metadata(section)}
    return assemble(embeddings, bonds, {}, functions, metadata, spline), parts


def _from_file(section: Mapping[str, Any], parts: InitialParts, policy: str | None) -> Potential:
    """The potential of `filename`, with `reset` c_nlk = δ_nk and function coefficients 0."""
    others = [key for key in section if key not in WITH_FILENAME]
    if others:
        raise PacehpcError(
            f"potential: filename names a whole potential; {', '.join(map(str, others))} cannot be used with it;"
            " to start from a file with another basis, use initial_potential"
        )
    if not isinstance(section["filename"], (str, os.PathLike)):
        raise PacehpcError(f"potential.filename: expected the name of a file, got {section['filename']!r}")
    potential = load_potential(section["filename"])
    reset = section.get("reset", False)
    if type(reset) is not bool:
        raise PacehpcError(f"potential.reset: expected true or false, got {reset!r}")
    if reset:
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
        potential.delta_spline_bins = _number(section["deltaSplineBins"], "potential.deltaSplineBins")
    potential.metadata = {**parts.metadata, **potential.metadata, **_metadata(section)}
    return potential


def _with_sections(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """The old single-element form (`element`, all keys at top level) brought into the three sections."""
    if "element" not in section:
        return section
    if "elements" in section:
        raise PacehpcError("potential: element and elements exclude each other; keep elements")
    section = {"elements": [section["element"]], **{k: v for k, v in section.items() if k != "element"}}
    keys = {"embeddings": FIELDS["embeddings"], "bonds": (*FIELDS["bonds"], "NameOfCutoffFunction")}
    for name, known in {**keys, "functions": FUNCTION_KEYS}.items():
        flat = {key: section.pop(key) for key in known if key in section}
        if flat and name in section:
            raise PacehpcError(f"potential: {next(iter(flat))} stands at top level beside {name}; move it there")
        if flat:
            section[name] = {"ALL": flat}
    if PER_ELEMENT in section:
        section["functions"] = {**section.get("functions", {}), PER_ELEMENT: section.pop(PER_ELEMENT)}
    return section


def _elements(section: Mapping[str, Any], parts: InitialParts) -> tuple[str, ...]:
    elements = section.get("elements", sorted(parts.embeddings))
    if isinstance(elements, str):
        elements = re.split(r"[\s,]+", elements.strip())
    if not isinstance(elements, (list, tuple)):
        raise PacehpcError(f"potential.elements: expected a list of elements, got {elements!r}")
    check_elements(tuple(elements), "potential.elements")
    missing = sorted(set(parts.embeddings) - set(elements))
    if missing:
        raise PacehpcError(f"potential.elements: {missing} of initial_potential is not among {list(elements)}; add it")
    return tuple(sorted(elements))


def _settings(
    section: Mapping[str, Any], name: str, targets: list[tuple[str, ...]], elements: tuple[str, ...]
) -> dict[tuple[str, ...], dict[str, Any]]:
    """The input's settings of every target of one of the three sections."""
    data = section.get(name)
    data = {} if data is None else data
    if not isinstance(data, Mapping):
        raise PacehpcError(f"potential.{name}: expected a mapping (ALL, UNARY, ..., or elements), got {data!r}")
    kind = {"embeddings": "elements", "bonds": "bonds", "functions": "blocks"}[name]
    return resolve(data, targets, elements, kind, f"potential.{name}")


def _embedding(given: dict[str, Any], initial: Embedding | None, policy: str | None, where: str) -> Embedding:
    place = f"potential.embeddings: {where}"
    _known_and_complete(given, FIELDS["embeddings"], ("npot", "fs_parameters", "ndensity"), initial, place)
    values: dict[str, Any] = {key: _number(given[key], f"{place}: {key}") for key in given if key.endswith("core_cut")}
    if "npot" in given:
        values["npot"] = given["npot"]
    if "ndensity" in given:
        values["ndensity"] = _integer(given["ndensity"], f"{place}: ndensity")
    if "fs_parameters" in given:
        values["fs_parameters"] = _numbers(given["fs_parameters"], f"{place}: fs_parameters")
    wanted = Embedding(**values) if initial is None else replace(initial, **values)
    check_embedding(wanted, place)
    return wanted if initial is None else _choose(wanted, initial, policy, where, "embeddings")


def _bond(given: dict[str, Any], initial: Bond | None, policy: str | None, where: str, default_type: str) -> Bond:
    place = f"potential.bonds: {where}"
    given = dict(given)
    cutoff = given.pop("NameOfCutoffFunction", "cos")
    if cutoff != "cos":
        raise PacehpcError(f"{place}: NameOfCutoffFunction is {cutoff!r}; only cos is known")
    _known_and_complete(given, FIELDS["bonds"], ("radbase", "radparameters", "rcut", "dcut"), initial, place)
    values: dict[str, Any] = {}
    for key, name in FIELDS["bonds"].items():
        if key not in given:
            continue
        if key in ("radbase", "inner_cutoff_type"):
            values[name] = given[key]
        elif key in ("radparameters", "core-repulsion"):
            values[name] = _numbers(given[key], f"{place}: {key}")
        else:
            values[name] = _number(given[key], f"{place}: {key}")
    if isinstance(values.get("radbase"), str):
        values["radbase"] = OLD_NAMES.get(values["radbase"], values["radbase"])
    if initial is None:
        wanted = Bond(**{"inner_cutoff_type": default_type, **values})
    else:
        wanted = replace(initial, **values)
    check_bond(wanted, place)
    return wanted if initial is None else _choose(wanted, initial, policy, where, "bonds")


def _known_and_complete(
    given: Mapping[str, Any], known: Mapping[str, str], required: Sequence[str], initial: object, place: str
) -> None:
    for key in given:
        if key not in known:
            raise PacehpcError(f"{place}: unknown key '{key}'; known are {', '.join(known)}")
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
    data = section.get("functions")
    data = {} if data is None else data
    if not isinstance(data, Mapping):
        raise PacehpcError(f"{place}: expected a mapping (ALL, UNARY, ..., or elements), got {data!r}")
    limit = data.get(PER_ELEMENT)
    data = {key: value for key, value in data.items() if key != PER_ELEMENT}
    targets = _block_names(data, elements)
    settings = _settings({"functions": data}, "functions", targets, elements)
    settings = {key: given for key, given in settings.items() if given.keys() - {"coefs_init"}}
    blocks: dict[tuple[str, ...], list[Function]] = {}
    candidates = 0
    for key, given in settings.items():
        where = f"{place}: block {' '.join(key)}"
        for name in given:
            if name not in FUNCTION_KEYS:
                raise PacehpcError(f"{where}: unknown key '{name}'; known are {', '.join(FUNCTION_KEYS)}")
        nmax, lmax = (_orders(given, name, where) for name in FUNCTION_KEYS[:2])
        if len(nmax) != len(lmax):
            raise PacehpcError(f"{where}: nradmax_by_orders {nmax} and lmax_by_orders {lmax} must have the same length")
        if given.get("coefs_init", "zero") not in ("zero", "random"):
            raise PacehpcError(f"{where}: coefs_init is {given['coefs_init']!r}; expected zero or random")
        candidates += sum(
            math.comb(n * (l + 1 if rank > 1 else 1) * len(key) + rank - 1, rank)
            for rank, (n, l) in enumerate(zip(nmax, lmax, strict=True), start=1)
        )
        if candidates > CANDIDATES:
            raise PacehpcError(
                f"{where}: nradmax_by_orders {nmax} and lmax_by_orders {lmax} give more than {CANDIDATES:,}"
                " combinations of neighbours, n and l; lower them"
            )
        blocks[key] = block_functions(key, nmax, lmax)
    blocks = {key: functions for key, functions in blocks.items() if functions}
    if limit is not None:
        number = _integer(limit, f"{place}.{PER_ELEMENT}") * len(elements) // max(len(blocks), 1)
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
    ranks = [0]
    for given in data.values():
        orders = given.get("nradmax_by_orders") if isinstance(given, Mapping) else None
        ranks.append(len(orders) if isinstance(orders, (list, tuple)) else 0)
    named = [key for key in data if key not in KEYWORDS]
    explicit = {block_name(element_names(key, elements, "potential.functions")) for key in named}
    sizes = [len(elements) if key == "ALL" else KEYWORDS.index(key) for key in data if key in KEYWORDS]
    largest = min([max(sizes, default=0), max(ranks) + 1, len(elements)])
    number = len(elements) * sum(math.comb(len(elements) - 1, size) for size in range(largest))
    if number > LARGEST_NUMBER_OF_BLOCKS:
        raise PacehpcError(
            f"potential.functions: {len(elements)} elements have more than {LARGEST_NUMBER_OF_BLOCKS:,} blocks of up to"
            f" {largest} elements; use UNARY, BINARY, ... instead of ALL, or fewer ranks"
        )
    return sorted({*possible_blocks(elements, largest), *explicit})


def _simplest(functions: list[Function], number: int) -> list[Function]:
    """The first `number` functions in power order, ties in the order of the list; they stand in body order."""
    return sorted(sorted(functions, key=power_order)[:number], key=body_order)


def _orders(given: Mapping[str, Any], name: str, where: str) -> list[int]:
    values = given.get(name)
    if not isinstance(values, (list, tuple)):
        raise PacehpcError(f"{where}: {name}: expected a list of integers, one for each rank, got {values!r}")
    numbers = [_integer(value, f"{where}: {name}") for value in values]
    if max(numbers, default=0) > LARGEST_ORDER:
        raise PacehpcError(f"{where}: {name}: {max(numbers)} is more than {LARGEST_ORDER}, far beyond any basis")
    return numbers


def _metadata(section: Mapping[str, Any]) -> dict[str, str]:
    metadata = section.get("metadata")
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, Mapping):
        raise PacehpcError(f"potential.metadata: expected a mapping of names to texts, got {metadata!r}")
    return {str(key): str(value) for key, value in metadata.items()}


def _number(value: Any, where: str) -> float:
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and abs(value) <= 1e300:
        return float(value)
    raise PacehpcError(f"{where}: expected a finite number, got {value!r}")


def _integer(value: Any, where: str) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= value <= 1_000_000:
        return int(value)
    raise PacehpcError(f"{where}: expected an integer that is not negative, got {value!r}")


def _numbers(values: Any, where: str) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple, np.ndarray)):
        raise PacehpcError(f"{where}: expected a list of numbers, got {values!r}")
    return tuple(_number(value, where) for value in values)
