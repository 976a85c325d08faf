"""Reading C-tilde files (.yace) back into a B basis.

A .yace file holds one coefficient for each product of A_{μnlm}. Where it stands for rotationally invariant functions,
as every file does that was made from a B basis, the products of one (μ_0; μ, n, l) are a linear combination of the
independent couplings of that set (Drautz, Phys. Rev. B 99, 014104 (2019)). That linear system is solved and must leave
no residual; the potential then has one function for each independent coupling, whichever the file was made from.
"""

from __future__ import annotations

import math
import os
from functools import lru_cache
from typing import Any

import numpy as np

from pacehpc.basis import Function, independent_couplings, merged_terms
from pacehpc.basis.couplings import LARGEST_TENSOR, canonical_ms, number_of_invariants
from pacehpc.physics.parameters import OLD_NAMES, Bond, Embedding
from pacehpc.potential.assemble import assemble
from pacehpc.potential.check import check_bond, check_elements, check_embedding
from pacehpc.potential.fields import Fields
from pacehpc.potential.model import Potential
from pacehpc.potential.padding import unpadded
from pacehpc.yamlio import load_yaml

TOP_KEYS = ("elements", "E0", "deltaSplineBins", "embeddings", "bonds", "functions")
EMBEDDING_KEYS = ("ndensity", "FS_parameters", "npoti", "rho_core_cutoff", "drho_core_cutoff")
BOND_KEYS = (
    "nradmax", "lmax", "nradbasemax", "radbasename", "radparameters", "radcoefficients", "prehc", "lambdahc", "rcut",
    "dcut", "rcut_in", "dcut_in", "inner_cutoff_type",
)  # fmt: skip
FUNCTION_KEYS = ("mu0", "rank", "ndensity", "num_ms_combs", "mus", "ns", "ls", "ms_combs", "ctildes")
MOST_COUPLINGS = 2000
RESIDUAL = 1e-12
"""Largest part of a function's terms, relative to the largest term, that invariant functions may leave over."""
ABSENT = 1e-14
"""Couplings with coefficients below this, relative to the largest of their (μ, n, l), are round-off."""

Factor = tuple[int, int, int]  # μ, n, l


def read_yace(path: str | os.PathLike[str]) -> Potential:
    """Read a potential. PacehpcError names file and place of whatever is wrong, or cannot be written as B functions."""
    return _Reader(str(path)).potential(load_yaml(path))


class _Reader(Fields):
    def potential(self, data: Any) -> Potential:
        data = self.mapping(data, "a .yace file", TOP_KEYS, required=("elements", "embeddings", "bonds", "functions"))
        elements = data["elements"] if isinstance(data["elements"], list) else self.fail("elements: expected a list")
        check_elements(tuple(elements), self.name)
        if any(self.numbers(data, "E0", [])):
            self.fail("E0 is not zero; shifts of the atoms' energies are not supported: set E0 to zeros and add them")
        embeddings = {}
        for mu, element in enumerate(elements):
            self.place = f"{self.name}: embeddings[{mu}]"
            embeddings[element] = self.embedding(self.entry(data, "embeddings", mu))
        bonds, radcoefficients = {}, {}
        for i, a in enumerate(elements):
            for j, b in enumerate(elements):
                self.place = f"{self.name}: bonds[{i}, {j}]"
                bond, c = self.bond(self.entry(data, "bonds", (i, j)))
                pair = (min(a, b), max(a, b))
                if bonds.setdefault(pair, bond) != bond or not np.array_equal(radcoefficients.setdefault(pair, c), c):
                    self.fail(f"differs from bonds[{j}, {i}]; here both orders of a bond are one and the same")
        functions: dict[tuple[str, ...], dict[Function, np.ndarray]] = {}
        for mu, element in enumerate(elements):
            self.place = f"{self.name}: functions[{mu}]"
            for function, c in self.functions(self.entry(data, "functions", mu), mu, elements, embeddings[element]):
                others = sorted(set(function.elements) - {element})
                functions.setdefault((element, *others), {})[function] = c
        self.place = self.name
        potential = assemble(
            embeddings, bonds, radcoefficients, functions, {}, self.number(data, "deltaSplineBins", 0.001)
        )
        for pair, bond in bonds.items():
            if potential.bonds[pair] != bond:
                self.fail(f"the bond {' '.join(pair)} has too few radial functions for the functions that use it")
        potential.check(self.name)
        return unpadded(potential)

    def entry(self, data: dict, key: str, index: Any) -> Any:
        self.mapping(data[key], key, tuple(data[key]) if isinstance(data[key], dict) else ())
        if index not in data[key]:
            self.fail("is missing")
        return data[key][index]

    def embedding(self, entry: Any) -> Embedding:
        self.mapping(entry, "", EMBEDDING_KEYS, required=EMBEDDING_KEYS[:3])
        embedding = Embedding(
            self.word(entry, "npoti"),
            tuple(self.numbers(entry, "FS_parameters")),
            self.integer(entry, "ndensity"),
            self.number(entry, "rho_core_cutoff", 1e5),
            self.number(entry, "drho_core_cutoff", 250.0),
        )
        check_embedding(embedding, self.place)
        return embedding

    def bond(self, entry: Any) -> tuple[Bond, np.ndarray]:
        self.mapping(entry, "", BOND_KEYS, required=(*BOND_KEYS[:6], "rcut", "dcut"))
        radbase = self.word(entry, "radbasename")
        bond = Bond(
            radbase=OLD_NAMES.get(radbase, radbase),
            radparameters=tuple(self.numbers(entry, "radparameters")),
            rcut=self.number(entry, "rcut"),
            dcut=self.number(entry, "dcut"),
            r_in=self.number(entry, "rcut_in", 0.0),
            delta_in=self.number(entry, "dcut_in", 0.0),
            inner_cutoff_type=self.word(entry, "inner_cutoff_type", "density"),
            core_repulsion=(self.number(entry, "prehc", 0.0), self.number(entry, "lambdahc", 0.0)),
            nradbase=self.integer(entry, "nradbasemax"),
            nradmax=self.integer(entry, "nradmax"),
            lmax=self.integer(entry, "lmax"),
        )
        check_bond(bond, self.place)
        return bond, self.radcoefficients(entry, bond, ("nradmax", "lmax", "nradbasemax"))

    def functions(
        self, entries: Any, mu: int, elements: list[str], embedding: Embedding
    ) -> list[tuple[Function, np.ndarray]]:
        """B functions of one centre and their coefficients (ndensity,), ordered by (rank, neighbours, ns, ls, LS)."""
        if not isinstance(entries, list):
            self.fail("expected a list of functions")
        merged: dict[tuple[Factor, ...], list[tuple[np.ndarray, np.ndarray, int]]] = {}
        for number, entry in enumerate(entries, start=1):
            self.place = f"{self.name}: functions[{mu}], function {number}"
            factors, ms, c = self.terms(entry, mu, elements, embedding.ndensity)
            order = sorted(range(len(factors)), key=factors.__getitem__)
            merged.setdefault(tuple(factors[t] for t in order), []).append((ms[:, order], c, number))
        found = []
        alphabetical = sorted(elements)
        for factors in sorted(merged, key=lambda factors: (len(factors), *zip(*factors, strict=True))):
            parts = merged[factors]
            self.place = f"{self.name}: functions[{mu}], function {parts[0][2]}"
            ms, c = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
            mus, ns, ls = zip(*factors, strict=True)
            types = (elements[mu], *(alphabetical[neighbour] for neighbour in mus))
            LSs, coefficients = self.solve(factors, ls, ms, c)
            sizes = abs(coefficients).max(axis=1, initial=0.0)
            for k in np.flatnonzero(sizes >= ABSENT * sizes.max(initial=0.0)):
                found.append((Function(types, ns, ls, LSs[k]), coefficients[k]))
        return found

    def terms(
        self, entry: Any, mu: int, elements: list[str], ndensity: int
    ) -> tuple[list[Factor], np.ndarray, np.ndarray]:
        """Factors (μ, n, l), μ in alphabetical order, ms (n, rank) and coefficients (n, ndensity) of one entry."""
        self.mapping(entry, "", FUNCTION_KEYS, required=("mus", "ns", "ls", "ms_combs", "ctildes"))
        mus, ns, ls = (self.integers(entry, key) for key in ("mus", "ns", "ls"))
        rank = len(mus)
        if self.integers({"rank": [entry.get("rank", rank)]}, "rank")[0] != rank or not len(ns) == len(ls) == rank > 0:
            self.fail(f"mus, ns and ls need one number for each of the {entry.get('rank', rank)} neighbours")
        if entry.get("mu0", mu) != mu or entry.get("ndensity", ndensity) != ndensity:
            self.fail(f"mu0 and ndensity must be {mu} and {ndensity}, as where this function stands")
        if max(mus) >= len(elements) or 0 in ns:
            self.fail(f"mus must be below {len(elements)} and ns count from 1, got {mus} and {ns}")
        if rank > 12 or math.prod(2 * l + 1 for l in ls) > LARGEST_TENSOR:
            self.fail(f"rank {rank} with ls {ls} has too many terms")
        flat, c = entry["ms_combs"], self.numbers(entry, "ctildes")
        if not isinstance(flat, list) or any(type(m) is not int or abs(m) > 10_000 for m in flat):
            self.fail("ms_combs: expected a list of integers")
        if len(flat) % rank or len(c) * rank != len(flat) * ndensity:
            self.fail(
                f"{len(flat)} ms_combs and {len(c)} ctildes do not fit: a term has {rank} m and {ndensity} coefficients"
            )
        ms = np.array(flat, dtype=np.int64).reshape(-1, rank)
        if (abs(ms) > ls).any() or ms.sum(axis=1).any():
            self.fail("ms_combs: the m of each term must lie between -l and l and add up to zero")
        mus = [sorted(elements).index(elements[neighbour]) for neighbour in mus]
        return list(zip(mus, ns, ls, strict=True)), ms, np.array(c).reshape(-1, ndensity)

    def solve(
        self, factors: tuple[Factor, ...], ls: tuple[int, ...], ms: np.ndarray, c: np.ndarray
    ) -> tuple[tuple[tuple[int, ...], ...], np.ndarray]:
        """LS of the independent couplings and their coefficients (n, ndensity)."""
        classes = tuple(factors.index(factor) for factor in factors)
        groups = tuple([factor[:2] for factor in factors].index(factor[:2]) for factor in factors)
        if number_of_invariants(ls, classes) > MOST_COUPLINGS:
            self.fail(f"ls {list(ls)} can be coupled in more than {MOST_COUPLINGS} ways")
        LSs, known_ms, values, inverse = _couplings(ls, groups, classes)
        rows, place = np.unique(np.concatenate([known_ms, canonical_ms(ms, classes)]), axis=0, return_inverse=True)
        place = place.reshape(-1)
        given, fitted = np.zeros((len(rows), c.shape[1])), np.zeros((len(rows), c.shape[1]))
        np.add.at(given, place[len(known_ms) :], c)
        known = place[: len(known_ms)]
        coefficients = inverse @ given[known]
        coefficients += inverse @ (given[known] - values.T @ coefficients)
        fitted[known] = values.T @ coefficients
        if abs(given - fitted).max(initial=0.0) > RESIDUAL * abs(given).max(initial=0.0):
            self.fail("its terms are not rotationally invariant: no B functions have these ctildes")
        return LSs, coefficients


@lru_cache(maxsize=4096)
def _couplings(ls: tuple[int, ...], groups: tuple[int, ...], classes: tuple[int, ...]) -> tuple[Any, ...]:
    """Independent LS, ms (n, rank) of their terms, values (n_LS, n), and the pseudo-inverse of values.T."""
    LSs = independent_couplings(ls, groups)
    if not LSs:
        return (), np.zeros((0, len(ls)), np.int64), np.zeros((0, 0)), np.zeros((0, 0))
    ms, values = merged_terms(tuple((ls, LS, tuple(range(len(ls)))) for LS in LSs), classes)
    return LSs, ms, values, np.linalg.pinv(values.T)
