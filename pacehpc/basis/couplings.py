"""Coupling of ν angular momenta to a scalar: trees, intermediate L, terms over m, and which functions are independent.

Leaves are coupled in pairs (1,2), (3,4), ..., then the results in pairs, until one is left; of an odd number of leaves
the last one is coupled at the very end, of an odd number of results the last one passes to the next level.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from pacehpc.errors import PacehpcError
from pacehpc.physics.clebsch_gordan import coupling_matrix

DROPPED = 1e-15
"""Terms of smaller magnitude are left out."""
DEPENDENT = 1e-8
"""A function whose part outside the span of the earlier ones is smaller than this, relative to itself, is dependent."""


LARGEST_TENSOR = 100_000_000
"""Functions with more combinations of m than this (0.8 GB) are refused."""


@cache
def coupling_tree(rank: int) -> tuple[tuple[int, int], ...]:
    """Pairs of nodes that are coupled, in the order in which they arise; the last pair couples to L = 0.

    Nodes 0..rank-1 are the leaves, node rank + k is the result of pair k.
    """
    level, last = list(range(rank)), []
    if rank > 1 and rank % 2:
        level, last = level[:-1], level[-1:]
    pairs: list[tuple[int, int]] = []

    def couple(left: int, right: int) -> int:
        pairs.append((left, right))
        return rank + len(pairs) - 1

    while len(level) > 1:
        results = [couple(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        level = results + level[2 * len(results) :]
    if last:
        couple(level[0], last[0])
    return tuple(pairs)


@cache
def couplings(ls: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """All LS that the triangle rules allow for ls coupled to L = 0, in lexicographic order.

    Rank 1 and 2 have no intermediate L: the answer is ((),) where ls can be coupled to 0, else ().
    """
    rank = len(ls)
    if rank == 1:
        return ((),) if ls[0] == 0 else ()
    *inner, root = coupling_tree(rank)
    found: list[tuple[int, ...]] = []

    def extend(nodes: tuple[int, ...]) -> None:
        k = len(nodes) - rank
        if k == len(inner):
            if nodes[root[0]] == nodes[root[1]]:
                found.append(nodes[rank:])
            return
        left, right = (nodes[i] for i in inner[k])
        choices = range(abs(left - right), left + right + 1)
        if k == len(inner) - 1:  # the root couples this last result with a node that is known by now
            partner = nodes[root[0] if root[1] == rank + k else root[1]]
            choices = [partner] if partner in choices else []
        for total in choices:
            extend((*nodes, total))

    extend(ls)
    return tuple(found)


def complete_couplings(ls: tuple[int, ...], LS: tuple[int, ...]) -> tuple[int, ...] | None:
    """LS with its last entry, which follows from the others and which a file may leave out; None if it is not allowed.

    An LS of rank ν has ν - 2 entries (none below rank 3) that fulfil the triangle rules.
    """
    rank = len(ls)
    if len(LS) == rank - 3:
        left, right = coupling_tree(rank)[-1]
        partner = left if right == 2 * rank - 3 else right
        if partner >= rank + len(LS):
            return None
        LS = (*LS, (*ls, *LS)[partner])
    if len(LS) != max(rank - 2, 0) or sum(ls) % 2:
        return None
    if rank == 1:
        return LS if ls[0] == 0 else None
    nodes = (*ls, *LS, 0)
    for k, (left, right) in enumerate(coupling_tree(rank)):
        if not abs(nodes[left] - nodes[right]) <= nodes[rank + k] <= nodes[left] + nodes[right]:
            return None
    return LS


def _coupling_tensor(ls: tuple[int, ...], LS: tuple[int, ...], subtrees: dict | None = None) -> np.ndarray:
    """C(m_1, ..., m_ν) for every m, flat in C order with m_t = -l_t..l_t: (Π (2 l_t + 1),) float64.

    `subtrees` keeps the tensors of intermediate nodes for other LS of the same ls.
    """
    rank = len(ls)
    if rank == 1:
        return np.ones(1)
    _check_size(ls)
    subtrees = {} if subtrees is None else subtrees
    pairs = coupling_tree(rank)
    nodes = (*ls, *LS, 0)

    def shape(node: int) -> tuple:
        """The couplings below a node: what its tensor depends on."""
        if node < rank:
            return (node,)
        left, right = pairs[node - rank]
        return (shape(left), shape(right), nodes[node])

    def tensor(node: int) -> np.ndarray:
        """(products of the leaves' m, 2 L + 1)."""
        if node < rank:
            return np.eye(2 * ls[node] + 1)
        key = shape(node)
        if key not in subtrees:
            left, right = pairs[node - rank]
            a, b = tensor(left), tensor(right)
            product = np.tensordot(a, coupling_matrix(nodes[left], nodes[right], nodes[node]), axes=(1, 0))
            product = np.tensordot(product, b, axes=(1, 1)).transpose(0, 2, 1)
            product = product.reshape(len(a) * len(b), -1)
            if node == 2 * rank - 2:
                return product
            subtrees[key] = product
        return subtrees[key]

    return tensor(2 * rank - 2)[:, 0]


def _check_size(ls: tuple[int, ...]) -> None:
    if math.prod(2 * l + 1 for l in ls) > LARGEST_TENSOR:
        raise PacehpcError(f"functions of rank {len(ls)} with nl {list(ls)} have too many terms; lower lmax_by_orders")


@cache
def m_terms(ls: tuple[int, ...], LS: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Terms of B = Σ C(ms) Re Π_t A_{l_t m_t}: half of them (first non-zero m positive), doubled.

    Returns read-only arrays: ms (n, rank) int64, in lexicographic order, and values (n,) float64.
    Terms with |C| <= 1e-15 are left out; factors are not merged (see `merged_terms`).
    Source: Drautz, Phys. Rev. B 99, 014104 (2019), eq. 27; Bochkarev et al., Phys. Rev. Materials 6, 013804 (2022).
    """
    tensor = _coupling_tensor(ls, LS)
    flat = np.arange(len(tensor))
    mirrored = len(tensor) - 1 - flat  # -m, since m runs symmetrically around 0 in every factor
    kept = np.flatnonzero((np.abs(tensor) > DROPPED) & (flat >= mirrored))
    ms = np.stack(np.unravel_index(kept, [2 * l + 1 for l in ls]), axis=1) - np.array(ls)
    values = np.where(kept == mirrored[kept], 1.0, 2.0) * tensor[kept]
    ms.flags.writeable = values.flags.writeable = False
    return ms, values


def canonical_ms(ms: np.ndarray, classes: tuple[int, ...]) -> np.ndarray:
    """The representative of each row of ms (n, rank) among its reorderings within equal classes and their mirror -m.

    Columns of one class (adjacent) are sorted in descending order; of m and -m the lexicographically larger is taken.
    """
    rows = []
    for signed in (ms, -ms):
        signed = signed.copy()
        for label in set(classes):
            columns = [t for t, c in enumerate(classes) if c == label]
            if len(columns) > 1:
                signed[:, columns] = -np.sort(-signed[:, columns], axis=1)
        rows.append(signed)
    different = rows[0] != rows[1]
    first = different.argmax(axis=1)
    here = np.arange(len(ms))
    mirrored_larger = rows[1][here, first] > rows[0][here, first]
    return np.where(mirrored_larger[:, None], rows[1], rows[0])


@cache
def merged_terms(
    couplings: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...], classes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Terms of several functions with the same factors, merged where they are equal.

    Args:
        couplings: (ls, LS, order) of each function; order sorts its factors by (element, n, l)
        classes: label of each sorted factor; factors with one label have the same (element, n, l)

    Returns:
        ms (n, rank) int64 of the sorted factors, in lexicographic order, and values (n_functions, n) float64 (half,
        doubled).
    """
    terms = [m_terms(ls, LS) for ls, LS, _ in couplings]
    columns = [ms[:, list(order)] for (ms, _), (_, _, order) in zip(terms, couplings, strict=True)]
    unique, inverse = np.unique(canonical_ms(np.concatenate(columns), classes), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    values = np.zeros((len(couplings), len(unique)))
    start = 0
    for row, (_, term_values) in zip(values, terms, strict=True):
        np.add.at(row, inverse[start : start + len(term_values)], term_values)
        start += len(term_values)
    kept = np.abs(values).max(axis=0) > DROPPED
    return unique[kept], values[:, kept]


def number_of_invariants(ls: tuple[int, ...], classes: tuple[int, ...]) -> int:
    """How many scalars ls can be coupled to that stay the same when factors of one class are exchanged.

    The multiplicity of L = 0 is the number of (unordered within classes) sets of m with Σ m = 0 less that with Σ m = 1.
    """
    counts = np.ones(1, dtype=np.int64)  # by Σ m, from the lowest to the highest
    for label in dict.fromkeys(classes):
        l, size = ls[classes.index(label)], classes.count(label)
        sets = np.zeros((size + 1, 2 * l * size + 1), dtype=np.int64)  # by size and Σ (l + m)
        sets[0, 0] = 1
        for m in range(2 * l + 1):
            for k in range(1, size + 1):
                sets[k, m:] += sets[k - 1, : sets.shape[1] - m]
        counts = np.convolve(counts, sets[size])
    centre = len(counts) // 2
    return int(counts[centre] - counts[centre + 1 : centre + 2].sum())


@cache
def independent_couplings(ls: tuple[int, ...], groups: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The couplings LS, in lexicographic order, whose functions do not vanish and are linearly independent.

    Args:
        ls: one l for each factor
        groups: a label for each factor; equal labels mean equal (element, n). Factors with equal label and l are equal,
            so that terms that differ by their order merge.

    A coupling is kept if its function is independent of those kept before it. The functions of couplings that differ
    are orthonormal before like factors are symmetrised; symmetrising is a projection, and vectors are compared in its
    image with a relative tolerance of 1e-8.
    """
    if sum(ls) % 2:
        return ()
    _check_size(ls)
    candidates = couplings(ls)
    classes = tuple(groups.index(group) + len(ls) * l for group, l in zip(groups, ls, strict=True))
    if len(set(classes)) == len(ls) or not candidates:
        return candidates
    number = number_of_invariants(ls, classes)
    if number == 0:
        return ()
    shape = [2 * l + 1 for l in ls]
    subtrees: dict = {}
    ms = np.stack(np.unravel_index(np.arange(np.prod(shape, dtype=np.int64)), shape), axis=1) - np.array(ls)
    scalar = np.flatnonzero(ms.sum(axis=1) == 0)
    keys = canonical_ms(ms[scalar], classes) @ np.cumprod([1, *shape[:0:-1]], dtype=np.int64)[::-1]
    _, orbit, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    scale = 1 / np.sqrt(sizes)
    kept: list[tuple[int, ...]] = []
    span = np.zeros((0, len(sizes)))
    for LS in candidates:
        vector = np.bincount(orbit, _coupling_tensor(ls, LS, subtrees)[scalar], len(sizes)) * scale
        norm = np.linalg.norm(vector)
        if norm <= DEPENDENT:
            continue
        vector /= norm
        for _ in range(2):  # the second pass removes the round-off of the first
            vector -= (span @ vector) @ span
        residual = np.linalg.norm(vector)
        if residual > DEPENDENT:
            kept.append(LS)
            span = np.vstack([span, vector / residual])
        if len(kept) == number:
            break
    return tuple(kept)
