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
    degree: list[int] = []  # L of each node, leaves first
    offsets: list[int] = []
    leaf: dict[tuple[int, int, int], int] = {}
    leaf_offsets, size = [], 0
    for mu, (nradmax, lmax) in enumerate(shapes):
        leaf_offsets.append(size)
        for n in range(1, nradmax + 1):
            for l in range(lmax + 1):
                leaf[mu, n, l] = len(degree)
                degree.append(l)
                offsets.append(size + l * l)
            size += (lmax + 1) ** 2
    n_leaves, n_leaf_nodes = size, len(degree)
    depth = [0] * n_leaf_nodes
    known: dict[tuple[int, int, int], int] = {}

    def node(a: int, b: int, L: int) -> tuple[int, int]:
        """Index of the node that couples a and b to L, and the sign of swapping them into the stored order."""
        sign = 1
        if (degree[a], a) > (degree[b], b):
            a, b = b, a
            sign = -1 if (degree[a] + degree[b] - L) % 2 else 1
        index = known.setdefault((a, b, L), len(degree))
        if index == len(degree):
            degree.append(L)
            depth.append(1 + max(depth[a], depth[b]))
        return index, sign

    def price(a: int, b: int, L: int) -> int:
        """Work of a new node; nothing for one that exists."""
        key = (a, b, L) if (degree[a], a) <= (degree[b], b) else (b, a, L)
        return 0 if key in known else (2 * degree[a] + 1) * (2 * degree[b] + 1)

    def fixed(rank: int) -> bool:
        """Powers of two keep the grouping of their tree: its nodes are the ones that others can share."""
        return rank & (rank - 1) == 0

    # those without a choice first, so that the others find nodes to share
    functions = sorted(functions, key=lambda item: (not fixed(len(item[1].ns)), len(item[1].ns)))
    tops: list[tuple[int, int, float]] = []
    for _, function in functions:
        rank = len(function.ns)
        ids = [
            leaf[species[el], n, l] for el, n, l in zip(function.elements[1:], function.ns, function.ls, strict=True)
        ]
        degrees = [*function.ls, *function.LS]
        powers, sign = [0] * rank, 1  # powers of i carried by each object
        pairs = coupling_tree(rank)
        for t, (a, b) in enumerate(pairs[:-1]):
            L = degrees[rank + t]
            if t == len(pairs) - 2 and not fixed(rank):
                last = pairs[-1][1] if pairs[-1][0] == rank + t else pairs[-1][0]
                if rank + t in pairs[-1]:
                    # three objects at the root: any two may be coupled first
                    x, y, z = a, b, last
                    lx, ly, lz = degrees[x], degrees[y], degrees[z]
                    to_x = _regrouping_factor(lx, ly, lz)
                    to_y = to_x * _regrouping_factor(ly, lz, lx)
                    choices = ((x, y, z, 1.0), (y, z, x, to_x), (z, x, y, to_y))
                    u, v, w, ratio = min(choices, key=lambda c: price(ids[c[0]], ids[c[1]], degrees[c[2]]))
                    index, swapped = node(ids[u], ids[v], degrees[w])
                    power = powers[x] + powers[y] + powers[z] + 3 * ((lx + ly - lz) % 2)
                    factor = sign * swapped * ratio * _phase(power) * (-1) ** lz / math.sqrt(2 * lz + 1)
                    tops.append((index, ids[w], factor))
                    break
            index, swapped = node(ids[a], ids[b], L)
            ids.append(index)
            powers.append(powers[a] + powers[b] + 3 * ((degrees[a] + degrees[b] - L) % 2))
            sign *= swapped
        else:
            a, b = pairs[-1]
            L = degrees[a]
            tops.append((ids[a], ids[b], sign * _phase(powers[a] + powers[b]) * (-1) ** L / math.sqrt(2 * L + 1)))

    couplings = sorted({(degree[a], degree[b], L) for a, b, L in known})
    coupling_index = {key: t for t, key in enumerate(couplings)}
    offsets += [0] * len(known)
    order = sorted(known, key=lambda k: (depth[known[k]], degree[k[0]], degree[k[1]], k[2], k[0], k[1]))
    nodes = np.empty((len(order), 4), np.int32)
    for row, (a, b, L) in zip(nodes, order, strict=True):
        offsets[known[a, b, L]] = size
        row[:] = coupling_index[degree[a], degree[b], L], offsets[a], offsets[b], size
        size += 2 * L + 1

    uses = np.zeros(len(degree), np.int64)
    for a, b, _ in tops:
        uses[a] += 1
        uses[b] += 1
    sides = [(a, b) if (uses[a], a) >= (uses[b], b) else (b, a) for a, b, _ in tops]
    walk = sorted(range(len(tops)), key=lambda k: (offsets[sides[k][0]], offsets[sides[k][1]]))
    groups: list[list[int]] = []
    for position, k in enumerate(walk):
        left = sides[k][0]
        if not groups or groups[-1][0] != offsets[left]:
            groups.append([offsets[left], 2 * degree[left] + 1, position, 0])
        groups[-1][3] += 1
    return ElementGraph(
        leaf_offsets=leaf_offsets,
        n_leaves=n_leaves,
        n_components=size,
        nodes=nodes,
        groups=np.array(groups, np.int32).reshape(-1, 4),
        right=np.array([offsets[sides[k][1]] for k in walk], np.int32),
        factor=np.array([tops[k][2] for k in walk]),
        functions=np.array([functions[k][0] for k in walk], np.int64),
        couplings=couplings,
    )


def right_nodes(groups: np.ndarray, right: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The groups of functions by left node (graph.groups, graph.right), turned round.

    Returns int32 (n, 4), [offset of the right node, 2L+1, first entry, number of entries], entries (n_functions, 2),
    [offset of the left node, function], and the components that belong to no right node.
    """
    functions = np.concatenate([np.arange(first, first + n) for _, _, first, n in groups] or [np.zeros(0, np.int64)])
    left, size = np.repeat(groups[:, 0], groups[:, 3]), np.repeat(groups[:, 1], groups[:, 3])
    order = np.argsort(right[functions], kind="stable")
    entries = np.stack([left, functions], axis=1)[order]
    offsets, first, count = np.unique(right[functions][order], return_index=True, return_counts=True)
    nodes = np.stack([offsets, size[order][first], first, count], axis=1)
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
