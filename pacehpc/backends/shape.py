"""A potential as the kernels see it: its shape (what is compiled), its tables, and its coefficients in kernel order.

The kernels keep moments in the elementary radial basis env(r) T_j(x(r)), j < J: every g_k is env times a polynomial of
x. Coefficients go in, and gradients come out, through the constant matrices of `elementary_basis`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers

from pacehpc.backends.graph import ElementGraph, build_graph, element_functions, real_coupling
from pacehpc.physics.core import SCREENING, screening_length
from pacehpc.physics.parameters import Bond, CoreKind, Family, InnerCutoff
from pacehpc.potential import Potential


def elementary_basis(radbase: str, nradbase: int) -> np.ndarray:
    """Matrix (nradbase, J) of g_k = env Σ_j M_kj T_j(x); of SBessel, rc^(3/2) g_k."""
    if nradbase == 0:
        return np.zeros((0, 0))
    k = np.arange(1, nradbase + 1)
    if radbase == "ChebExpCos":
        matrix = np.zeros((nradbase, nradbase))
        matrix[:, 0] = 0.5
        matrix[k[1:] - 1, k[1:] - 1] = -0.5
        matrix[0, 0] = 1
        return matrix
    matrix = np.zeros((nradbase, nradbase + 1))
    if radbase in ("ChebPow", "ChebLinear"):
        matrix[:, 0] = 0.5
        matrix[k - 1, k] = -0.5
        return matrix
    # SBessel: sin((n+1)t)/((n+1)t) = U_n(cos t) sin t/((n+1) t), U_n = 2 (T_n + T_{n-2} + …), T_0 counted once
    second_kind = np.zeros((nradbase + 1, nradbase + 1))
    for n in range(nradbase + 1):
        second_kind[n, n::-2] = 2
        if n % 2 == 0:
            second_kind[n, 0] = 1
    d_before = 1.0
    for n in range(nradbase):
        norm = (-1) ** n * np.sqrt(2) * np.pi * (n + 1) * (n + 2) / np.hypot(n + 1, n + 2)
        f = norm * (second_kind[n] / (n + 1) + second_kind[n + 1] / (n + 2))
        if n == 0:
            matrix[0] = f
            continue
        e = n**2 * (n + 2) ** 2 / (4 * (n + 1) ** 4 + 1)
        d = 1 - e / d_before
        matrix[n] = (f + np.sqrt(e / d_before) * matrix[n - 1]) / np.sqrt(d)
        d_before = d
    return matrix


def bond_basis(bond: Bond) -> np.ndarray:
    """`elementary_basis` of a bond, (nradbase, J)."""
    matrix = elementary_basis(bond.radbase, bond.nradbase)
    return matrix * bond.rcut**-1.5 if bond.radbase == "SBessel" else matrix


@dataclass
class ElementTables:
    """Tables of one central element: the graph of its functions and where their coefficients stand."""

    graph: ElementGraph
    positions: np.ndarray  # int64 (n_functions,): parameter of the first density of each function, kernel order
    first_positions: list[tuple[int, int, int]]  # rank 1: (neighbour species, k from 0, parameter)
    ndensity: int
    moment_offsets: list[int]
    radial_offsets: list[int]
    first_offsets: list[int]
    n_moments: int
    n_radial: int
    n_first: int


@dataclass
class Shape:
    """What the kernels are compiled for, and the tables that lead them through the functions."""

    definitions: str
    """C++ macros, see `shape_definitions`."""
    n_densities: int
    classes: list[tuple[int, int, int]]  # (J, lmax, nradmax) of the bond classes
    bond_class: np.ndarray  # int64 (n_elements, n_elements), −1 where no function uses the bond
    core: bool
    elements: list[ElementTables]
    bases: dict[tuple[int, int], np.ndarray] = field(repr=False)  # (nradbase, J) per ordered pair of species

    def header(self, stress: bool) -> str:
        """What is compiled before the kernels; stress: with the gradient of virials."""
        return f"#define STRESS {int(stress)}\n{self.definitions}"

    def n_y(self, element: int) -> int:
        """Numbers of y that an atom of an element keeps."""
        return self.n_densities * int(self.elements[element].graph.groups[:, 1].sum())

    @property
    def max_components(self) -> int:
        """Components of leaves and nodes, the most of any element; the same for y and the moments."""
        return max(t.graph.n_components for t in self.elements)

    @property
    def max_y(self) -> int:
        return max(self.n_y(e) for e in range(len(self.elements)))

    @property
    def max_moments(self) -> int:
        return max(t.n_moments for t in self.elements)


_recent: deque[tuple[list, Shape]] = deque(maxlen=2)  # with what they were made of: 50,000 functions take a second


def make_shape(potential: Potential) -> Shape:
    """Shape and tables of a potential, shared by whoever asks again."""
    functions = [(block.elements, list(block.functions)) for block in potential.blocks]
    sizes = {pair: c.shape for pair, c in potential.radcoefficients.items()}
    source = [potential.elements, dict(potential.embeddings), dict(potential.bonds), sizes, functions]
    for known, shape in _recent:
        if known == source:
            return shape
    shape = _make_shape(potential)
    _recent.append((source, shape))
    return shape


def _make_shape(potential: Potential) -> Shape:
    species = {element: mu for mu, element in enumerate(potential.elements)}
    n = len(species)
    n_densities = max(e.ndensity for e in potential.embeddings.values())
    classes: list[tuple[int, int, int]] = []
    bond_class = np.full((n, n), -1, np.int64)
    bases = {}
    for (a, b), bond in potential.bonds.items():
        pair = species[a], species[b]
        bases[pair] = bond_basis(bond)
        if bond.nradbase == 0:
            continue
        key = (bases[pair].shape[1], bond.lmax, bond.nradmax)
        if key not in classes:
            classes.append(key)
        bond_class[pair] = classes.index(key)

    tables, couplings = [], set()
    for element in potential.elements:
        first, higher = element_functions(potential, element)
        bonds = [potential.bonds[element, other] for other in potential.elements]
        graph = build_graph(higher, species, [(bond.nradmax, bond.lmax) for bond in bonds])
        couplings.update(graph.couplings)
        widths = [bases[species[element], mu].shape[1] for mu in range(n)]
        moments = [j * (bond.lmax + 1) ** 2 for j, bond in zip(widths, bonds, strict=True)]
        radial = [j * bond.nradmax * (bond.lmax + 1) for j, bond in zip(widths, bonds, strict=True)]
        firsts = [j * n_densities for j in widths]
        tables.append(
            ElementTables(
                graph=graph,
                positions=graph.functions,
                first_positions=[(species[f.elements[1]], f.ns[0] - 1, position) for position, f in first],
                ndensity=potential.embeddings[element].ndensity,
                moment_offsets=_starts(moments),
                radial_offsets=_starts(radial),
                first_offsets=_starts(firsts),
                n_moments=sum(moments),
                n_radial=sum(radial),
                n_first=sum(firsts),
            )
        )
    # one numbering of coupling types for all elements
    types = sorted(couplings)
    number = {key: t for t, key in enumerate(types)}
    for table in tables:
        renumber = np.array([number[key] for key in table.graph.couplings], np.int32)
        if len(renumber):
            table.graph.nodes[:, 0] = renumber[table.graph.nodes[:, 0]]
    core = any(b.core_repulsion[0] != 0 or b.inner_cutoff_type == "zbl" for b in potential.bonds.values())
    sizes = sorted({int(size) for table in tables for size in table.graph.groups[:, 1]})
    return Shape(
        definitions=shape_definitions(n_densities, classes, types, sizes, core),
        n_densities=n_densities,
        classes=classes,
        bond_class=bond_class,
        core=core,
        elements=tables,
        bases=bases,
    )


def shape_definitions(
    n_densities: int,
    classes: list[tuple[int, int, int]],
    couplings: list[tuple[int, int, int]],
    node_sizes: list[int],
    core: bool,
) -> str:
    """C++ macros that fix a shape: sizes, bond classes, and the coupling tensors as lists of their entries."""
    lines = [
        f"#define ND {n_densities}",
        f"#define CORE {int(core)}",
        "#define BOND_CLASSES(X) " + " ".join(f"X({i}, {j}, {l}, {n})" for i, (j, l, n) in enumerate(classes)),
        "#define NODE_SIZES(X) " + " ".join(f"X({size})" for size in node_sizes),
        "#define COUPLINGS(X) "
        + " ".join(f"X({t}, {2 * a + 1}, {2 * b + 1}, {2 * L + 1})" for t, (a, b, L) in enumerate(couplings)),
    ]
    for t, (la, lb, L) in enumerate(couplings):
        tensor = real_coupling(la, lb, L)
        lines.append(f"// {la} x {lb} -> {L}")
        results = [f"OUT({k}, {_sum(tensor[:, :, k], 'P({0}, {1})')})" for k in range(2 * L + 1)]
        lines.append(f"#define COUPLING_OUT_{t}(OUT, P) " + " ".join(results))
        lines.append(f"#define COUPLING_LOAD_{t}(LOAD) " + " ".join(f"LOAD({k})" for k in range(2 * L + 1)))
        used = [(i, j) for i in range(2 * la + 1) for j in range(2 * lb + 1) if tensor[i, j].any()]
        pairs = [f"PAIR({i}, {j}, {_sum(tensor[i, j], 'C({0})')})" for i, j in used]
        lines.append(f"#define COUPLING_PAIRS_{t}(PAIR, C) " + " ".join(pairs))
        pairs = [f"PAIR({i}, {j}, {_sum(tensor[i, j], 'C({0})')}, {_sum(tensor[i, j], 'D({0})')})" for i, j in used]
        lines.append(f"#define COUPLING_TANGENT_PAIRS_{t}(PAIR, C, D) " + " ".join(pairs))
    return "\n".join(lines) + "\n"


def _sum(values: np.ndarray, factor: str) -> str:
    """Sum of value · factor(index) over the non-zero values."""
    return (
        " + ".join(f"{float(values[index])!r} * {factor.format(*index)}" for index in _nonzero(values))
        or "broadcast(0)"
    )


def _nonzero(values: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(i) for i in index) for index in np.argwhere(values)]


def _starts(sizes: list[int]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()][:-1]


@dataclass
class PairCoefficients:
    """Parameters of an ordered pair of elements."""

    basis: np.ndarray
    """(n_basis, J): g_k in the elementary basis."""
    parameter: int
    """The first radial coefficient."""
    n_radial: int
    """Pairs (n, l)."""
    rank1: np.ndarray
    """int64 (n_basis, n_densities): coefficients of the functions of rank 1, −1 for none."""


class Coefficients:
    """Parameters of a potential in kernel order, and gradients back in the order of the parameter vector.

    values: all coefficients, functions of every element, then radial, then first; those three are views of it.
    """

    def __init__(self, potential: Potential, shape: Shape) -> None:
        self.n_parameters = absent = potential.n_parameters  # index of a coefficient that is always 0
        elements, nd, tables = potential.elements, shape.n_densities, shape.elements
        self._padded = np.zeros(self.n_parameters + 1)
        sizes = [len(t.positions) * nd for t in tables] + [t.n_radial for t in tables] + [t.n_first for t in tables]
        ends = np.cumsum(sizes)
        starts, n = ends - sizes, len(tables)
        self.starts = starts.reshape(3, n).T  # (n_elements, 3): functions, radial, first among `values`
        self.values = np.zeros(int(ends[-1]))
        parts = np.split(self.values, ends[:-1])
        self.functions = [part.reshape(-1, nd) for part in parts[:n]]
        self.radial, self.first = parts[n : 2 * n], parts[2 * n :]

        self.n_radial = sum(c.size for c in potential.radcoefficients.values())
        """Radial parameters, which stand first."""
        self.pairs: list[PairCoefficients] = []
        """Of each central and neighbour element."""
        density = np.arange(nd)
        self._functions = np.concatenate(
            [np.where(density < t.ndensity, t.positions[:, None] + density, absent).ravel() for t in tables]
        )
        splits = np.cumsum([len(t.positions) * nd for t in tables])[:-1]
        self.function_parameters = [
            np.where(own == absent, -1, own).reshape(-1, nd) for own in np.split(self._functions, splits)
        ]
        """Of each element, int64 (n_functions, n_densities): parameters of its functions of rank ≥ 2, −1 for none."""
        self._factors = np.concatenate([np.repeat(t.graph.factor, nd) for t in tables])

        # what is expanded in the elementary basis, by sizes; a pair and its mirror image, which share parameters, apart
        groups: dict[tuple, list] = {}

        def add(source: np.ndarray, basis: np.ndarray, start: int, mirror: bool) -> None:
            place = start + np.arange(len(source) * basis.shape[1]).reshape(len(source), basis.shape[1])
            groups.setdefault((source.shape, basis.shape, mirror), []).append((source, basis, place))

        for e, table in enumerate(tables):
            for mu in range(n):
                basis = shape.bases[e, mu]
                pair = tuple(sorted((elements[e], elements[mu])))
                where, size = potential.radial_slices[pair], potential.radcoefficients[pair].shape
                source = np.arange(where.start, where.stop).reshape(size[0] * size[1], len(basis))
                add(source, basis, starts[n + e] + table.radial_offsets[mu], mu < e)
                source = np.full((nd, len(basis)), absent)
                for other, k, position in table.first_positions:
                    if other == mu:
                        source[: table.ndensity, k] = np.arange(position, position + table.ndensity)
                add(source, basis, starts[2 * n + e] + table.first_offsets[mu], mu < e)
                rank1 = np.where(source == absent, -1, source).T.copy()
                self.pairs.append(PairCoefficients(basis, where.start, size[0] * size[1], rank1))
        self._groups = [tuple(map(np.array, zip(*group, strict=True))) for group in groups.values()]
        self._slopes = [(source, basis.swapaxes(1, 2), place) for source, basis, place in self._groups]

    def set(self, parameters: np.ndarray) -> None:
        """Fill functions (n, ND), radial and first of each element from the parameter vector."""
        self._padded[:-1] = parameters
        np.multiply(self._padded[self._functions], self._factors, out=self.values[: len(self._functions)])
        for source, basis, place in self._groups:
            self.values[place] = self._padded[source] @ basis

    def gradient_of(self, places: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """Gradient by the parameter vector from a backend's sums; places: of the sum by each of `values` among them."""
        slopes = sums[places]
        result = np.zeros(self.n_parameters + 1)
        result[self._functions] = slopes[: len(self._functions)] * self._factors
        for source, basis, place in self._slopes:
            result[source] += slopes[place] @ basis
        return result[:-1]


def bond_type_record(bond: Bond, elements: tuple[str, str]) -> dict[str, float]:
    """Numbers of the kernels' BondType for an ordered pair of elements."""
    charges = atomic_numbers[elements[0]], atomic_numbers[elements[1]]
    record = {
        "family": Family[bond.radbase],
        "lambda": bond.radparameters[0] if bond.radparameters else 0.0,
        "rcut": bond.rcut,
        "dcut": bond.dcut,
        "r_in": bond.r_in,
        "delta_in": bond.delta_in,
        "inner": InnerCutoff[bond.inner_cutoff_type],
        "core_prefactor": bond.core_repulsion[0],
        "core_lambda": bond.core_repulsion[1],
        "charges": charges[0] * charges[1],
        "core_kind": CoreKind[bond.inner_cutoff_type],
        "zbl_length": 1.0,
        "zbl_A": 0.0,
        "zbl_B": 0.0,
        "zbl_C": 0.0,
    }
    if bond.inner_cutoff_type == "zbl":
        record.update(_zbl_switching(bond, charges))
    return record


def _zbl_switching(bond: Bond, charges: tuple[int, int]) -> dict[str, float]:
    """Screening length and the polynomial that brings E(r) = φ(r/a)/r smoothly to 0 at rcut."""
    length, w, r = screening_length(charges), bond.dcut, bond.rcut
    terms = [(c * np.exp(-k * r / length), -k / length) for c, k in SCREENING]
    phi, dphi, ddphi = (sum(term * rate**power for term, rate in terms) for power in range(3))
    value = phi / r
    slope = (dphi - value) / r
    curvature = (ddphi - 2 * slope) / r
    return {
        "zbl_length": length,
        "zbl_A": (-3 * slope + w * curvature) / w**2 if w else 0.0,
        "zbl_B": (2 * slope - w * curvature) / w**3 if w else 0.0,
        "zbl_C": -value + w * slope / 2 - w * w * curvature / 12,
    }
