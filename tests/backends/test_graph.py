"""Tables of nodes and functions."""

from __future__ import annotations

import numpy as np
import pytest

from pacehpc.backends.graph import right_nodes
from pacehpc.backends.shape import make_shape


def test_functions_turned_round(case):
    """By right nodes the bilinear form is that of the groups; a component is in one right node or in none."""
    potential, _ = case("alni_mixed")
    graph = make_shape(potential).elements[0].graph
    rng = np.random.default_rng(0)
    Phi, c = rng.normal(size=graph.n_components), rng.normal(size=len(graph.right))
    expected = 0.0
    for left, size, first, n in graph.groups:
        for k in range(first, first + n):
            expected += c[k] * Phi[left : left + size] @ Phi[graph.right[k] : graph.right[k] + size]
    nodes, entries, others = right_nodes(graph.groups, graph.right, graph.n_components)
    found = 0.0
    for right, size, first, n in nodes:
        for left, k in entries[first : first + n]:
            found += c[k] * Phi[left : left + size] @ Phi[right : right + size]
    assert found == pytest.approx(expected, rel=1e-12)
    assert sorted(entries[:, 1]) == list(range(len(graph.right)))
    inside = np.concatenate([np.arange(right, right + size) for right, size, *_ in nodes])
    assert sorted([*inside, *others]) == list(range(graph.n_components))
