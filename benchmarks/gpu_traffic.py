"""Rows of nodes that the GPU's stages read and write, tile by tile, through caches of a given size.

A row is one component of a tile's nodes, 32 doubles. The order is that of kernels/products.h and right_nodes.h.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from pacehpc.backends.graph import right_nodes
from pacehpc.backends.shape import Shape


class Rows:
    """Rows of a tile in a cache of `room` rows, the least recently used of which gives way; counts what passes."""

    def __init__(self, room: float) -> None:
        self._room, self._rows, self.moved = room, OrderedDict[tuple[str, int], bool](), 0

    def access(self, array: str, rows: Iterable[int], write: bool = False, read: bool = True) -> None:
        for row in rows:
            key = array, row
            self.moved += read and key not in self._rows
            self._rows[key] = self._rows.pop(key, False) or write
            if len(self._rows) > self._room:
                self.moved += self._rows.popitem(last=False)[1]

    def end(self) -> int:
        return self.moved + sum(self._rows.values())


def node_sizes(graph: object) -> np.ndarray:
    """Components (of a, of b, of the result) of every node."""
    numbers = sorted(set(graph.nodes[:, 0].tolist()))
    return np.array([[2 * n + 1 for n in graph.couplings[numbers.index(t)][:3]] for t in graph.nodes[:, 0].tolist()])


def coupled(rows: Rows, graph: object, nd: int, tangent: bool) -> None:
    for (_, a, b, c), (na, nb, nc) in zip(graph.nodes, node_sizes(graph), strict=True):
        for array in ("Phi", "dPhi") if tangent else ("Phi",):
            rows.access(array, range(a, a + na))
            rows.access(array, range(b, b + nb))
        rows.access("dPhi" if tangent else "Phi", range(c, c + nc), write=True, read=False)


def coupled_back(rows: Rows, graph: object, nd: int, tangent: bool) -> None:
    for (_, a, b, c), (na, nb, nc) in zip(graph.nodes[::-1], node_sizes(graph)[::-1], strict=True):
        for array in ("bar", "dbar") if tangent else ("bar",):
            rows.access(array, range(c, c + nc))
        for first, n in ((a, na), (b, nb)):
            for array in ("Phi", "dPhi") if tangent else ("Phi",):
                rows.access(array, range(first, first + n))
            rows.access("dbar" if tangent else "bar", range(first, first + n), write=True)
    if tangent:
        for array in ("bar", "dbar"):
            rows.access(array, range(graph.n_leaves), write=array == "dbar")


def densities(rows: Rows, graph: object, nd: int, tangent: bool) -> None:
    y = 0
    for left, size, first, n in graph.groups[np.argsort(graph.groups[:, 1], kind="stable")]:
        for right in graph.right[first : first + n]:
            rows.access("dPhi" if tangent else "Phi", range(right, right + size))
        for array in ("Phi", "dPhi") if tangent else ("Phi",):
            rows.access(array, range(left, left + size))
        if tangent:
            rows.access("y", range(y, y + nd * size))
        rows.access("dy" if tangent else "y", range(y, y + nd * size), write=True, read=False)
        y += nd * size


def by_right_nodes(rows: Rows, graph: object, nd: int, tangent: bool) -> None:
    groups = graph.groups[np.argsort(graph.groups[:, 1], kind="stable")]
    nodes, entries, others = right_nodes(groups, graph.right, graph.n_components)
    arrays, bar = (("Phi", "dPhi"), "dbar") if tangent else (("Phi",), "bar")
    rows.access(bar, others, write=True, read=False)
    for right, size, first, n in nodes:
        for array in arrays if tangent else ():
            rows.access(array, range(right, right + size))
        for left, _ in entries[first : first + n]:
            for array in arrays:
                rows.access(array, range(left, left + size))
        rows.access(bar, range(right, right + size), write=True, read=False)
    y = 0
    for left, size, _, _ in groups:
        for array in ("y", "dy") if tangent else ("y",):
            rows.access(array, range(y, y + nd * size))
        rows.access(bar, range(left, left + size), write=True)
        y += nd * size


WALKS = {
    "couple_nodes": (coupled, False),
    "make_energies": (densities, False),
    "adjoint_of_densities": (by_right_nodes, False),
    "adjoint_of_nodes": (coupled_back, False),
    "couple_node_tangents": (coupled, True),
    "make_density_tangent": (densities, True),
    "make_density_gradient": (by_right_nodes, True),
    "make_node_gradient": (coupled_back, True),
}


def node_bytes(shape: Shape, kernel: str, room: float = math.inf) -> float:
    """Bytes per atom that pass between memory and caches with room for `room` rows of a tile, in a stage on nodes.

    The mean of all elements. Without a limit every row is read or written once, the least that is possible.
    """
    walk, tangent = WALKS[kernel]
    found = []
    for table in shape.elements:
        rows = Rows(room)
        walk(rows, table.graph, shape.n_densities, tangent)
        found.append(8.0 * rows.end())
    return float(np.mean(found))
