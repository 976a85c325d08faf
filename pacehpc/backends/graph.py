"""Functions of one central element as a graph of coupled real nodes.

A leaf is one (μ, n, l): the 2l+1 real components (A_l0, √2 Re A_l1, √2 Im A_l1, …) of the atomic base.
A node couples two nodes to L with a constant real tensor. Where l_a + l_b − L is odd the coupled tensor is multiplied
by i, so that every node obeys Φ_{L,−M} = (−1)^M conj(Φ_LM) and needs 2L+1 real numbers; the powers of i end up as a
sign.
The last coupling, to L = 0, is not a node but a dot product: B = factor · Φ_a·Φ_b.
All functions of an element are then a sparse bilinear form over nodes, which the kernels walk through left node by left
node, and its adjoint right node by right node.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np

from pacehpc.basis.couplings import coupling_tree
from pacehpc.physics.clebsch_gordan import clebsch_gordan
from pacehpc.potential import Function, Potential


@functools.cache
def real_coupling(la: int, lb: int, L: int) -> np.ndarray:
    """Real tensor g[i, j, k] with Φ_k = Σ_ij g_ijk a_i b_j, times i where la + lb − L is odd; (2la+1, 2lb+1, 2L+1)."""
    complex_a, complex_b = _complex_from_real(la), _complex_from_real(lb)
    coupled = np.zeros((2 * la + 1, 2 * lb + 1, 2 * L + 1), complex)
    for ma in range(-la, la + 1):
        for mb in range(-lb, lb + 1):
            if abs(ma + mb) <= L:
                weight = clebsch_gordan(la, ma, lb, mb, L, ma + mb)
                coupled[:, :, L + ma + mb] += weight * np.outer(complex_a[la + ma], complex_b[lb + mb])
    if (la + lb - L) % 2:
        coupled *= 1j
    tensor = np.empty(coupled.shape)
    tensor[:, :, 0] = coupled[:, :, L].real
    for M in range(1, L + 1):
        tensor[:, :, 2 * M - 1] = math.sqrt(2) * coupled[:, :, L + M].real
        tensor[:, :, 2 * M] = math.sqrt(2) * coupled[:, :, L + M].imag
    tensor[abs(tensor) < 1e-14] = 0
    tensor.setflags(write=False)
    return tensor


def _complex_from_real(l: int) -> np.ndarray:
    """Matrix [m + l, i] that turns the real components into A_lm."""
    matrix = np.zeros((2 * l + 1, 2 * l + 1), complex)
    matrix[l, 0] = 1
    for m in range(1, l + 1):
        for i, value in ((2 * m - 1, 1 / math.sqrt(2)), (2 * m, 1j / math.sqrt(2))):
            matrix[l + m, i] = value
            matrix[l - m, i] = (-1) ** m * np.conj(value)
    return matrix


@functools.cache
def _regrouping_factor(la: int, lb: int, lc: int) -> float:
    """f with g_(ab→c) = f · g_(bc→a) as tensors over (a, b, c)."""
    first, second = real_coupling(la, lb, lc), real_coupling(lb, lc, la).transpose(2, 0, 1)
    position = np.argmax(abs(first))
    return float(first.flat[position] / second.flat[position])


@dataclass
class ElementGraph:
    """What the kernels need to evaluate all functions of one central element.

    Offsets count real components. Nodes come in evaluation order.
    """

    leaf_offsets: list[int]  # first leaf component of each neighbour element
    n_leaves: int  # components of all leaves
    n_components: int  # leaves and nodes
    nodes: np.ndarray  # int32 (n_nodes, 4): coupling type, offset of a, of b, of the result
    groups: np.ndarray  # int32 (n_groups, 4): offset of the left node, its 2L+1, first function, number of functions
    right: np.ndarray  # int32 (n_functions,): offset of the right node
    factor: np.ndarray  # float64 (n_functions,): B = factor · Φ_a·Φ_b
    functions: np.ndarray  # int64 (n_functions,): index among the functions passed in, rank ≥ 2
    couplings: list[tuple[int, int, int]] = field(repr=False)  # (la, lb, L) of the coupling types


def build_graph(
    functions: list[tuple[int, Function]], species: dict[str, int], shapes: list[tuple[int, int]]
) -> ElementGraph:
    """Graph of (index, function) pairs of rank ≥ 2; shapes: (nradmax, lmax) of the bond to each neighbour element."""
    nodes = _Nodes(shapes)
    # those without a choice first, so that the others find nodes to share
    functions = sorted(functions, key=lambda item: (not _keeps_grouping(len(item[1].ns)), len(item[1].ns)))
    tops = [_couple(function, nodes, species) for _, function in functions]
    table, couplings = nodes.number()
    walk, sides = _by_left_node(tops, nodes)
    return ElementGraph(
        leaf_offsets=nodes.leaf_offsets,
        n_leaves=nodes.n_leaves,
        n_components=nodes.size,
        nodes=table,
        groups=_groups(walk, sides, nodes),
        right=np.array([nodes.offsets[sides[k][1]] for k in walk], np.int32),
        factor=np.array([tops[k][2] for k in walk]),
        functions=np.array([functions[k][0] for k in walk], np.int64),
        couplings=couplings,
    )


class _Nodes:
    """Leaves and coupled nodes of one central element while its graph is built; an index names a node."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        """The leaves; shapes: (nradmax, lmax) of the bond to each neighbour element."""
        self.degree: list[int] = []  # L of each node, leaves first
        self.offsets: list[int] = []  # first component of each node; those of coupled nodes by `number`
        self.leaf: dict[tuple[int, int, int], int] = {}
        self.leaf_offsets: list[int] = []
        self.size = 0
        for mu, (nradmax, lmax) in enumerate(shapes):
            self.leaf_offsets.append(self.size)
            for n in range(1, nradmax + 1):
                for l in range(lmax + 1):
                    self.leaf[mu, n, l] = len(self.degree)
                    self.degree.append(l)
                    self.offsets.append(self.size + l * l)
                self.size += (lmax + 1) ** 2
        self.n_leaves = self.size
        self._depth = [0] * len(self.degree)
        self._known: dict[tuple[int, int, int], int] = {}

    def node(self, a: int, b: int, L: int) -> tuple[int, int]:
        """Index of the node that couples a and b to L, and the sign of swapping them into the stored order."""
        sign, degree = 1, self.degree
        if (degree[a], a) > (degree[b], b):
            a, b = b, a
            sign = -1 if (degree[a] + degree[b] - L) % 2 else 1
        index = self._known.setdefault((a, b, L), len(degree))
        if index == len(degree):
            degree.append(L)
            self._depth.append(1 + max(self._depth[a], self._depth[b]))
        return index, sign

    def price(self, a: int, b: int, L: int) -> int:
        """Work of a new node; nothing for one that exists."""
        degree = self.degree
        key = (a, b, L) if (degree[a], a) <= (degree[b], b) else (b, a, L)
        return 0 if key in self._known else (2 * degree[a] + 1) * (2 * degree[b] + 1)

    def number(self) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
        """Place the coupled nodes by depth and kind; returns `ElementGraph.nodes` and `ElementGraph.couplings`."""
        degree, depth, known = self.degree, self._depth, self._known
        couplings = sorted({(degree[a], degree[b], L) for a, b, L in known})
        coupling_index = {key: t for t, key in enumerate(couplings)}
        self.offsets += [0] * len(known)
        order = sorted(known, key=lambda k: (depth[known[k]], degree[k[0]], degree[k[1]], k[2], k[0], k[1]))
        table = np.empty((len(order), 4), np.int32)
        for row, (a, b, L) in zip(table, order, strict=True):
            self.offsets[known[a, b, L]] = self.size
            row[:] = coupling_index[degree[a], degree[b], L], self.offsets[a], self.offsets[b], self.size
            self.size += 2 * L + 1
        return table, couplings


def _keeps_grouping(rank: int) -> bool:
    """Powers of two keep the grouping of their tree: its nodes are the ones that other functions can share."""
    return rank & (rank - 1) == 0


def _couple(function: Function, nodes: _Nodes, species: dict[str, int]) -> tuple[int, int, float]:
    """The two nodes whose dot product a function is, and its factor; adds the nodes that it needs."""
    rank, pairs = len(function.ns), coupling_tree(len(function.ns))
    leaves = zip(function.elements[1:], function.ns, function.ls, strict=True)
    ids = [nodes.leaf[species[element], n, l] for element, n, l in leaves]
    degrees = [*function.ls, *function.LS]
    powers, sign = [0] * rank, 1  # powers of i carried by each object
    for t, (a, b) in enumerate(pairs[:-1]):
        at_root = t == len(pairs) - 2 and rank + t in pairs[-1]
        if at_root and not _keeps_grouping(rank):
            last = pairs[-1][1] if pairs[-1][0] == rank + t else pairs[-1][0]
            left, right, factor = _regroup(nodes, ids, degrees, (a, b, last))
            power = powers[a] + powers[b] + powers[last] + 3 * ((degrees[a] + degrees[b] - degrees[last]) % 2)
            return left, right, _over_root(sign * factor * _phase(power), degrees[last])
        L = degrees[rank + t]
        index, swapped = nodes.node(ids[a], ids[b], L)
        ids.append(index)
        powers.append(powers[a] + powers[b] + 3 * ((degrees[a] + degrees[b] - L) % 2))
        sign *= swapped
    a, b = pairs[-1]
    return ids[a], ids[b], _over_root(sign * _phase(powers[a] + powers[b]), degrees[a])


def _regroup(
    nodes: _Nodes, ids: list[int], degrees: list[int], objects: tuple[int, int, int]
) -> tuple[int, int, float]:
    """Of three objects at the root, couple the two that cost least first; (coupled node, third node, factor)."""
    x, y, z = objects
    lx, ly, lz = degrees[x], degrees[y], degrees[z]
    to_x = _regrouping_factor(lx, ly, lz)
    to_y = to_x * _regrouping_factor(ly, lz, lx)
    choices = ((x, y, z, 1.0), (y, z, x, to_x), (z, x, y, to_y))
    u, v, w, ratio = min(choices, key=lambda c: nodes.price(ids[c[0]], ids[c[1]], degrees[c[2]]))
    index, swapped = nodes.node(ids[u], ids[v], degrees[w])
    return index, ids[w], swapped * ratio


def _over_root(factor: float, L: int) -> float:
    """The factor with that of coupling two nodes of degree L to 0 over their dot product."""
    return factor * (-1) ** L / math.sqrt(2 * L + 1)


def _by_left_node(tops: list[tuple[int, int, float]], nodes: _Nodes) -> tuple[list[int], list[tuple[int, int]]]:
    """Order of the functions by left and right node, and the (left, right) nodes of each; left: the one used more."""
    uses = np.zeros(len(nodes.degree), np.int64)
    for a, b, _ in tops:
        uses[a] += 1
        uses[b] += 1
    sides = [(a, b) if (uses[a], a) >= (uses[b], b) else (b, a) for a, b, _ in tops]
    offsets = nodes.offsets
    return sorted(range(len(tops)), key=lambda k: (offsets[sides[k][0]], offsets[sides[k][1]])), sides


def _groups(walk: list[int], sides: list[tuple[int, int]], nodes: _Nodes) -> np.ndarray:
    """`ElementGraph.groups` of the functions in the order of `walk`."""
    groups: list[list[int]] = []
    for position, k in enumerate(walk):
        left = sides[k][0]
        if not groups or groups[-1][0] != nodes.offsets[left]:
            groups.append([nodes.offsets[left], 2 * nodes.degree[left] + 1, position, 0])
        groups[-1][3] += 1
    return np.array(groups, np.int32).reshape(-1, 4)


def right_nodes(groups: np.ndarray, right: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The groups of functions by left node (graph.groups, graph.right), turned round.

    Returns int32 (n, 4), [offset of the right node, 2L+1, first entry, number of entries], entries (n_functions, 2),
    [offset of the left node, function], and the components that belong to no right node. Nodes of one size, and with as
    many entries, follow each other.
    """
    functions = np.concatenate([np.arange(first, first + n) for _, _, first, n in groups] or [np.zeros(0, np.int64)])
    left, size = np.repeat(groups[:, 0], groups[:, 3]), np.repeat(groups[:, 1], groups[:, 3])
    of = right[functions]
    offsets, first, node, count = np.unique(of, return_index=True, return_inverse=True, return_counts=True)
    ranks = np.lexsort((offsets, count, size[first]))  # a processor foresees the loops of the next node
    order = np.argsort(np.argsort(ranks)[node], kind="stable")
    entries = np.stack([left, functions], axis=1)[order]
    offsets, size, count = offsets[ranks], size[first][ranks], count[ranks]
    nodes = np.stack([offsets, size, np.cumsum(count) - count, count], axis=1)
    inside = np.zeros(n_components, bool)
    for offset, components in nodes[:, :2]:
        inside[offset : offset + components] = True
    return nodes.astype(np.int32), entries.astype(np.int32), np.flatnonzero(~inside).astype(np.int32)


def _phase(power: int) -> int:
    """i^power of a real quantity."""
    return {0: 1, 2: -1}[power % 4]


def element_functions(
    potential: Potential, element: str
) -> tuple[list[tuple[int, Function]], list[tuple[int, Function]]]:
    """(position in the parameter vector of the first density's coefficient, function) of rank 1, and of rank ≥ 2."""
    first, higher = [], []
    for block, where in zip(potential.blocks, potential.block_slices, strict=True):
        if block.elements[0] != element:
            continue
        ndensity = potential.embeddings[element].ndensity
        for index, function in enumerate(block.functions):
            (first if len(function.ns) == 1 else higher).append((where.start + index * ndensity, function))
    return first, higher
