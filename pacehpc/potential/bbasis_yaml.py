"""B-basis YAML files: what pacemaker and pacehpc write and read.

A file of 50,000 functions is read in about a second: runs of regular function lines (those that this module writes)
are taken out of the text before it goes to the YAML loader, which sees one placeholder for each run.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pacehpc.basis import Function, complete_couplings
from pacehpc.errors import PacehpcError
from pacehpc.physics.parameters import OLD_NAMES, Bond, Embedding
from pacehpc.potential.blocks import Block, Pair, sorted_pairs
from pacehpc.potential.check import check_elements, check_embedding
from pacehpc.potential.fields import Fields
from pacehpc.potential.files import format_list, format_number, write_atomically
from pacehpc.potential.model import Potential
from pacehpc.yamlio import loads_yaml

TOP_KEYS = ("metadata", "global", "species")
EMBEDDING_KEYS = ("ndensityi", "npoti", "parameters", "rho_core_cut", "drho_core_cut")
BOND_KEYS = (
    "nradmaxi", "lmaxi", "rcutij", "dcutij", "NameOfCutoffFunctionij", "r_in", "delta_in", "inner_cutoff_type",
    "nradbaseij", "radbase", "radparameters", "radcoefficients", "core-repulsion",
)  # fmt: skip
FUNCTION_KEYS = ("type", "nr", "nl", "lint", "c", "skip")

_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_INTEGERS = r"([0-9]{1,4}(?:, [0-9]{1,4})*)"
_REGULAR = re.compile(
    r"( *)- \{type: ([A-Z][a-z]?(?: [A-Z][a-z]?)+), "
    rf"nr: \[{_INTEGERS}\], nl: \[{_INTEGERS}\](?:, lint: \[{_INTEGERS}?\])?, c: \[({_NUMBER}(?:, {_NUMBER})*)\]\}}"
)

RawFunction = tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], list[float]]


def read_bbasis(path: str | os.PathLike[str]) -> Potential:
    """Read a potential. PacehpcError names file, block and key of whatever is wrong."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PacehpcError(f"{path}: cannot be read: {error.strerror}; check the name of the potential file") from None
    except UnicodeDecodeError:
        raise PacehpcError(f"{path}: is not UTF-8 text; a potential is a YAML file") from None
    return parse_bbasis(text, str(path))


def parse_bbasis(text: str, name: str = "<text>") -> Potential:
    """The potential that a file's text describes; name stands in messages."""
    text = text.replace("\r\n", "\n")
    shortened, token, runs = _take_out_regular_lines(text)
    if runs:
        try:
            return _Reader(name, token, runs).potential(loads_yaml(shortened, name))
        except PacehpcError:
            pass  # read it again as it stands: the message then has the line of the file
    return _Reader(name, "", []).potential(loads_yaml(text, name))


def _take_out_regular_lines(text: str) -> tuple[str, str, list[list[RawFunction]]]:
    """The text with a placeholder `token number` for each run of regular function lines, the token, and the runs."""
    token = "functions"
    while token in text:
        token += "_"
    integers: dict[str | None, tuple[int, ...]] = {None: ()}
    types: dict[str, tuple[str, ...]] = {}
    runs: list[list[RawFunction]] = []
    lines: list[str] = []
    indent = None
    for line in text.split("\n"):
        match = _REGULAR.fullmatch(line)
        if match is None:
            indent = None
            lines.append(line)
            continue
        if match[1] != indent:
            indent = match[1]
            lines.append(f"{indent}- {token} {len(runs)}")
            runs.append([])
        for part in match.group(3, 4, 5):
            if part not in integers:
                integers[part] = tuple(map(int, part.split(", ")))
        if match[2] not in types:
            types[match[2]] = tuple(match[2].split(" "))
        numbers = list(map(float, match[6].split(", ")))
        runs[-1].append((types[match[2]], integers[match[3]], integers[match[4]], integers[match[5]], numbers))
    return "\n".join(lines), token, runs


class _Reader(Fields):
    """Turns the plain data of one file into a Potential, with the place of whatever is wrong."""

    def __init__(self, name: str, token: str, runs: list[list[RawFunction]]) -> None:
        super().__init__(name)
        self.token, self.runs = token, runs
        self.runs_used = 0
        self.complete: dict[tuple, tuple[int, ...]] = {}

    def potential(self, data: Any) -> Potential:
        data = self.mapping(data, "a potential file", TOP_KEYS, required=("species",))
        metadata = self.metadata(data.get("metadata"))
        general = self.mapping(data.get("global") or {}, "global", ("DeltaSplineBins",))
        spline = self.number(general, "DeltaSplineBins", 0.001)
        if not isinstance(data["species"], list) or not data["species"]:
            self.fail("species: expected a list of species blocks")
        blocks: dict[tuple[str, ...], dict[str, Any]] = {}
        for i, entry in enumerate(data["species"]):
            self.place = f"{self.name}: species block {i + 1}"
            if not isinstance(entry, dict) or not isinstance(entry.get("speciesblock"), str):
                self.fail('expected a mapping with speciesblock: "Al Ni" (centre first)')
            words = entry["speciesblock"].split()
            self.place = f"{self.name}: speciesblock '{entry['speciesblock'][:60]}'"
            check_elements(tuple(words), self.place)
            key = (words[0], *sorted(words[1:]))
            if key in blocks:
                self.fail("this block is given twice")
            extra = (EMBEDDING_KEYS if len(key) == 1 else ()) + (BOND_KEYS if len(key) <= 2 else ())
            self.mapping(entry, "", ("speciesblock", "nbody", *extra))
            blocks[key] = entry
        elements = tuple(sorted({element for key in blocks for element in key}))

        embeddings = {}
        for element in elements:
            self.place = f"{self.name}: speciesblock '{element}'"
            if (element,) not in blocks:
                self.fail("this block is missing, but other blocks contain the element; it holds its embedding")
            embeddings[element] = self.embedding(blocks[element,])
        bonds: dict[Pair, Bond] = {}
        radcoefficients: dict[Pair, np.ndarray] = {}
        for pair in sorted_pairs(elements):
            bonds[pair], radcoefficients[pair] = self.pair(pair, blocks)
            bonds[pair[::-1]] = bonds[pair]
        parsed = [self.block(key, blocks[key], embeddings[key[0]].ndensity) for key in sorted(blocks)]
        if self.runs_used != len(self.runs):
            self.place = self.name
            self.fail("function lines outside nbody")
        potential = Potential(
            elements, embeddings, bonds, radcoefficients, [b for b in parsed if b.functions], metadata, spline
        )
        potential.check(self.name)
        return potential

    def metadata(self, data: Any) -> dict[str, str]:
        data = {} if data is None else data
        if not isinstance(data, dict):
            self.fail("metadata: expected a mapping of names to texts")
        for key, value in data.items():
            if isinstance(value, (dict, list)) or isinstance(key, (tuple, list)):
                self.fail(f"metadata.{key}: expected a text, got {type(value).__name__}; put it in quotes")
        return {str(key): "" if value is None else str(value) for key, value in data.items()}

    def embedding(self, entry: dict) -> Embedding:
        for key in ("ndensityi", "npoti", "parameters"):
            if key not in entry:
                self.fail(f"{key} is missing")
        embedding = Embedding(
            self.word(entry, "npoti"),
            tuple(self.numbers(entry, "parameters")),
            self.integer(entry, "ndensityi"),
            self.number(entry, "rho_core_cut", 1e5),
            self.number(entry, "drho_core_cut", 250.0),
        )
        check_embedding(embedding, self.place)
        return embedding

    def pair(self, pair: Pair, blocks: dict[tuple[str, ...], dict]) -> tuple[Bond, np.ndarray]:
        """The radial part of a sorted pair: of either order, or of both where they agree."""
        found = []
        for key in dict.fromkeys(((pair[0],),) if pair[0] == pair[1] else (pair, pair[::-1])):
            entry = blocks.get(key, {})
            if any(k in entry for k in BOND_KEYS):
                self.place = f"{self.name}: speciesblock '{' '.join(key)}'"
                found.append((key, *self.bond(entry)))
        if not found:
            self.place = self.name
            names = pair[0] if pair[0] == pair[1] else f"{pair[0]} {pair[1]}' or '{pair[1]} {pair[0]}"
            self.fail(f"the radial part of the bond {' '.join(pair)} is missing; it belongs to speciesblock '{names}'")
        _, bond, coefficients = found[0]
        for _, other, other_coefficients in found[1:]:
            for name in bond.__dataclass_fields__:
                if getattr(bond, name) != getattr(other, name):
                    self.fail(
                        f"{name} is {getattr(other, name)}, but {getattr(bond, name)} in '{' '.join(pair)}';"
                        " both orders of a bond must agree"
                    )
            if not np.array_equal(coefficients, other_coefficients, equal_nan=True):
                self.fail(f"radcoefficients differ from those in '{' '.join(pair)}'; both orders of a bond share them")
        return bond, coefficients

    def bond(self, entry: dict) -> tuple[Bond, np.ndarray]:
        for key in ("nradmaxi", "lmaxi", "nradbaseij", "rcutij", "dcutij", "radbase", "radparameters"):
            if key not in entry:
                self.fail(f"{key} is missing")
        cutoff = entry.get("NameOfCutoffFunctionij", "cos")
        if cutoff != "cos":
            self.fail(f"NameOfCutoffFunctionij is {cutoff!r}; only cos is known")
        repulsion = self.numbers(entry, "core-repulsion", [0, 0])
        if len(repulsion) != 2:
            self.fail(f"core-repulsion needs two numbers, got {len(repulsion)}")
        radbase = self.word(entry, "radbase")
        bond = Bond(
            radbase=OLD_NAMES.get(radbase, radbase),
            radparameters=tuple(self.numbers(entry, "radparameters")),
            rcut=self.number(entry, "rcutij"),
            dcut=self.number(entry, "dcutij"),
            r_in=self.number(entry, "r_in", 0.0),
            delta_in=self.number(entry, "delta_in", 0.0),
            inner_cutoff_type=self.word(entry, "inner_cutoff_type", "density"),
            core_repulsion=(repulsion[0], repulsion[1]),
            nradbase=self.integer(entry, "nradbaseij"),
            nradmax=self.integer(entry, "nradmaxi"),
            lmax=self.integer(entry, "lmaxi"),
        )
        return bond, self.radcoefficients(entry, bond, ("nradmaxi", "lmaxi", "nradbaseij"))

    def block(self, key: tuple[str, ...], entry: dict, ndensity: int) -> Block:
        self.place = f"{self.name}: speciesblock '{' '.join(key)}'"
        nbody = entry.get("nbody")
        nbody = [] if nbody is None else nbody
        if not isinstance(nbody, list):
            self.fail("nbody: expected a list of functions")
        functions: list[Function] = []
        coefficients: list[Sequence[float]] = []
        for item in nbody:
            if self.token and isinstance(item, str) and item.startswith(self.token):
                raws = self.runs[int(item.split(" ")[1])]
                self.runs_used += 1
            else:
                raw = self.raw_function(item, len(functions))
                raws = [] if raw is None else [raw]
            for elements, ns, ls, lint, c in raws:
                functions.append(self.function(key, elements, ns, ls, lint, len(functions)))
                if len(c) != ndensity:
                    self.fail(
                        f"function {len(functions)}: c has {len(c)} numbers, but {key[0]} has ndensityi {ndensity}"
                    )
                coefficients.append(c)
        if len(set(functions)) < len(functions):
            twice = next(function for function, count in Counter(functions).items() if count > 1)
            self.fail(f"a function is given twice: {_describe(twice)}")
        return Block(key, functions, np.array(coefficients, dtype=np.float64).reshape(len(functions), ndensity))

    def function(self, key, elements, ns, ls, lint, index: int) -> Function:
        """The function with all its intermediate L, after all that can be wrong with it."""
        LS = self.complete.get((key, elements, len(ns), ls, lint))
        if LS is None:

            def wrong(message: str) -> NoReturn:
                self.fail(f"function {index + 1} ({_describe(Function(elements, ns, ls, lint))}): {message}")

            if len(elements) < 2 or elements[0] != key[0] or set(elements) != set(key):
                wrong("its type does not belong to this block (centre first, and every element of the block)")
            if not len(ns) == len(ls) == len(elements) - 1:
                wrong(f"nr and nl need {len(elements) - 1} numbers, one for each neighbour")
            LS = complete_couplings(ls, lint)
            if LS is None:
                wrong("nl and lint cannot be coupled to a scalar (triangle rules, even sum of nl)")
            self.complete[key, elements, len(ns), ls, lint] = LS
        if 0 in ns:
            self.fail(f"function {index + 1}: nr counts from 1, got {list(ns)}")
        return Function(elements, ns, ls, LS)

    def raw_function(self, item: Any, index: int) -> RawFunction | None:
        """A function as YAML gave it; None if it is to be skipped."""
        place, self.place = self.place, f"{self.place}: function {index + 1}"
        item = self.mapping(item, "a function", FUNCTION_KEYS, required=("type", "nr", "nl", "c"))
        skip = item.get("skip", False)
        if type(skip) is not bool:
            self.fail(f"skip: expected true or false, got {skip!r}")
        elements = tuple(self.word(item, "type").split())
        ns, ls, lint = (tuple(self.integers(item, key)) for key in ("nr", "nl", "lint"))
        raw = (elements, ns, ls, lint, self.numbers(item, "c"))
        self.place = place
        return None if skip else raw


def _describe(function: Function) -> str:
    elements, ns, ls, LS = function
    return f"type {' '.join(elements)}, nr {list(ns)}, nl {list(ls)}, lint {list(LS)}"


def write_bbasis(potential: Potential, path: str | os.PathLike[str]) -> None:
    """Write a potential: 17 significant digits, every element and every ordered pair with its own part."""
    write_atomically(path, format_bbasis(potential))


def format_bbasis(potential: Potential) -> str:
    """The text of a B-basis file."""
    lines = []
    if potential.metadata:
        lines.append("metadata:")
        lines += [f"  {_format_text(k)}: {_format_text(v)}" for k, v in potential.metadata.items()]
    lines += ["global:", f"  DeltaSplineBins: {format_number(potential.delta_spline_bins)}", "species:"]
    blocks = {block.elements: block for block in potential.blocks}
    pairs = {pair if pair[0] != pair[1] else pair[:1] for pair in potential.bonds}
    for key in sorted(blocks.keys() | pairs):
        lines.append(f"  - speciesblock: {' '.join(key)}")
        if len(key) == 1:
            lines += _embedding_lines(potential.embeddings[key[0]])
        if len(key) <= 2:
            pair = (key[0], key[-1])
            lines += _bond_lines(potential.bonds[pair], potential.radcoefficients[min(pair, pair[::-1])])
        lines += _nbody_lines(blocks[key]) if key in blocks else ["    nbody: []"]
    return "\n".join(lines) + "\n"


def _embedding_lines(embedding: Embedding) -> list[str]:
    return [
        f"    ndensityi: {embedding.ndensity}",
        f"    npoti: {embedding.npot}",
        f"    parameters: {format_list(embedding.fs_parameters)}",
        f"    rho_core_cut: {format_number(embedding.rho_core_cut)}",
        f"    drho_core_cut: {format_number(embedding.drho_core_cut)}",
    ]


def _bond_lines(bond: Bond, coefficients: np.ndarray) -> list[str]:
    return [
        f"    nradmaxi: {bond.nradmax}",
        f"    lmaxi: {bond.lmax}",
        f"    rcutij: {format_number(bond.rcut)}",
        f"    dcutij: {format_number(bond.dcut)}",
        "    NameOfCutoffFunctionij: cos",
        f"    r_in: {format_number(bond.r_in)}",
        f"    delta_in: {format_number(bond.delta_in)}",
        f"    inner_cutoff_type: {bond.inner_cutoff_type}",
        f"    nradbaseij: {bond.nradbase}",
        f"    radbase: {bond.radbase}",
        f"    radparameters: {format_list(bond.radparameters)}",
        f"    radcoefficients: {format_list(coefficients.tolist())}",
        f"    core-repulsion: {format_list(bond.core_repulsion)}",
    ]


def _nbody_lines(block: Block) -> list[str]:
    lines = ["    nbody:"]
    for (elements, ns, ls, LS), c in zip(block.functions, block.coefficients.tolist(), strict=True):
        lint = f", lint: {list(LS)}" if LS else ""
        numbers = ", ".join([format_number(value) for value in c])
        lines.append(f"      - {{type: {' '.join(elements)}, nr: {list(ns)}, nl: {list(ls)}{lint}, c: [{numbers}]}}")
    return lines


_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./+=@-]*(?:,? [A-Za-z0-9(][A-Za-z0-9_./+=@()-]*)*")
_QUOTED_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"}


def _format_text(text: str) -> str:
    """A YAML scalar that every loader reads as this text."""
    if _PLAIN.fullmatch(text) and text.lower() not in _QUOTED_WORDS:
        return text
    escaped = []
    for character in text:
        if character in '"\\':
            escaped.append("\\" + character)
        elif character.isprintable() and character != "\ufeff":
            escaped.append(character)
        else:
            escaped.append(f"\\U{ord(character):08x}")
    return '"' + "".join(escaped) + '"'
