"""The order of B functions in active sets: by rank, neighbour elements, ns, ls, LS; not that of potential files."""

from __future__ import annotations

import numpy as np

from pacehpc.potential import Potential


def column_functions(potential: Potential, element: str) -> list:
    """All B functions on centres of `element` in the order in which a potential holds them: block by block."""
    return [f for block in potential.blocks if block.elements[0] == element for f in block.functions]


def column_order(potential: Potential, element: str) -> np.ndarray:
    """Positions, in the potential's order, of the columns of an active set of `element`, (n_functions,) int."""
    index = {name: k for k, name in enumerate(potential.elements)}
    functions = column_functions(potential, element)
    keys = [(f.rank, [index[name] for name in f.elements[1:]], f.ns, f.ls, f.LS) for f in functions]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.intp)
