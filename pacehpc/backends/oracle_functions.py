"""B functions by the sums over m, as polynomials in the atomic base with their first and second derivatives."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from pacehpc.basis import m_terms
from pacehpc.potential import Function, Potential


class Centre:
    """B functions of one central element as polynomials in its atomic base.

    The atomic base of an atom is, for each neighbour element, A_k of rank 1 and then A_nlm. B = Re P(base), and since
    every m has its own entry, dB = Re sum_A (dP/dA) dA.
    """

    def __init__(self, potential: Potential, element: str) -> None:
        self.element = element
        self.embedding = potential.embeddings[element]
        self.starts: list[int] = []
        size = 0
        for neighbour in potential.elements:
            bond = potential.bonds[element, neighbour]
            self.starts.append(size)
            size += bond.nradbase + bond.nradmax * (bond.lmax + 1) ** 2
        self.size = size

        functions: list[Function] = []
        positions = [np.zeros((0, self.embedding.ndensity), dtype=int)]
        for block, where in zip(potential.blocks, potential.block_slices, strict=True):
            if block.elements[0] == element:
                functions += block.functions
                positions.append(np.arange(where.start, where.stop).reshape(-1, self.embedding.ndensity))
        self.positions = np.concatenate(positions)
        """Places of the coefficients in the parameter vector, (n_functions, ndensity)."""
        self.groups = [
            _Terms(self, potential, [(k, f) for k, f in enumerate(functions) if len(f.ns) == rank], len(functions))
            for rank in sorted({len(f.ns) for f in functions})
        ]
        self.n_functions = len(functions)

    def split(self, base: np.ndarray, other: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """A neighbour element's part of base-like rows: rank one (n, nradbase), the rest (n, nradmax, (lmax+1)^2)."""
        nradmax, n_l, nradbase = shape
        start = self.starts[other]
        middle = start + nradbase
        rest = base[:, middle : middle + nradmax * n_l**2]
        return base[:, start:middle], rest.reshape(len(base), nradmax, n_l**2)

    def values(self, base: np.ndarray) -> np.ndarray:
        """B, (n_atoms, n_functions)."""
        b = np.zeros((len(base), self.n_functions))
        for terms in self.groups:
            b += (terms.product(base) @ terms.to_functions).real
        return b

    def directional(self, base: np.ndarray, dbase: np.ndarray) -> np.ndarray:
        """dB along dbase, (n_atoms, n_functions)."""
        db = np.zeros((len(base), self.n_functions))
        for terms in self.groups:
            for v in range(terms.rank):
                db += ((dbase[:, terms.factors[:, v]] * terms.product(base, v)) @ terms.to_functions).real
        return db

    def pullback(self, base: np.ndarray, by_b: np.ndarray) -> np.ndarray:
        """sum_b by_b dP_b/dA, complex (n_atoms, size)."""
        result = np.zeros((len(base), self.size), dtype=complex)
        for terms in self.groups:
            weight = by_b @ terms.to_functions.T
            for v in range(terms.rank):
                result += (weight * terms.product(base, v)) @ terms.to_base[v]
        return result

    def pullback_tangent(self, base: np.ndarray, dbase: np.ndarray, by_b: np.ndarray) -> np.ndarray:
        """The derivative of `pullback` along dbase, by_b fixed."""
        result = np.zeros((len(base), self.size), dtype=complex)
        for terms in self.groups:
            weight = by_b @ terms.to_functions.T
            for v in range(terms.rank):
                for u in range(terms.rank):
                    if u != v:
                        change = dbase[:, terms.factors[:, u]] * terms.product(base, v, u)
                        result += (weight * change) @ terms.to_base[v]
        return result


class _Terms:
    """The products of all functions of one rank."""

    def __init__(
        self, centre: Centre, potential: Potential, functions: list[tuple[int, Function]], n_functions: int
    ) -> None:
        self.rank = len(functions[0][1].ns)
        factors, weights, owners = [], [], []
        for k, function in functions:
            ms, coupling = m_terms(function.ls, function.LS)
            columns = np.zeros_like(ms)
            for v, (neighbour, n, l) in enumerate(zip(function.elements[1:], function.ns, function.ls, strict=True)):
                bond = potential.bonds[centre.element, neighbour]
                start = centre.starts[potential.elements.index(neighbour)]
                if self.rank == 1:
                    columns[:, v] = start + n - 1
                else:
                    columns[:, v] = start + bond.nradbase + (n - 1) * (bond.lmax + 1) ** 2 + l * l + l + ms[:, v]
            factors.append(columns)
            weights.append(coupling)
            owners.append(np.full(len(coupling), k))
        self.factors = np.concatenate(factors)
        n_terms = np.arange(len(self.factors))
        self.to_functions = csr_array(
            (np.concatenate(weights), (n_terms, np.concatenate(owners))), shape=(len(n_terms), n_functions)
        )
        self.to_base = [
            csr_array((np.ones(len(n_terms)), (n_terms, self.factors[:, v])), shape=(len(n_terms), centre.size))
            for v in range(self.rank)
        ]

    def product(self, base: np.ndarray, *left_out: int) -> np.ndarray:
        """Product of the factors of every term, without those at the positions left out; (n_atoms, n_terms)."""
        result = np.ones((len(base), len(self.factors)), dtype=complex)
        for v in range(self.rank):
            if v not in left_out:
                result *= base[:, self.factors[:, v]]
        return result
