"""Cost of an atom of each element in units of a bond's, counted from the potential's shape.

Operations of an evaluation with its gradient: both loops over bonds and the geometry that they need; for an atom the
contraction of moments in both directions with their tangents, the coupled nodes and the functions likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pacehpc.backends.graph import real_coupling
from pacehpc.backends.shape import make_shape

if TYPE_CHECKING:
    from pacehpc.potential import Potential

GEOMETRY = 60  # operations of a bond besides its moments
ENTRY, NODE, FUNCTION = 16, 20, 10  # per entry of a coupling, per component of a node, per component of a function


def bond_operations(potential: Potential) -> float:
    """Operations of a bond in an evaluation with its gradient, the mean over kinds of bonds of the potential."""
    shape = make_shape(potential)
    used = shape.bond_class[shape.bond_class >= 0]
    if not len(used):
        return float(GEOMETRY)
    return float(np.mean([6 * J * (lmax + 1) ** 2 + GEOMETRY for J, lmax, _ in (shape.classes[c] for c in used)]))


def evaluation_operations(potential: Potential, n_bonds: int, species: np.ndarray) -> float:
    """Operations of an evaluation with its gradient; species: atoms of each element, (n_elements,)."""
    costs = atom_costs(potential)
    atoms = np.array([costs[element] for element in potential.elements])
    return bond_operations(potential) * (n_bonds + float(atoms @ species))


def atom_costs(potential: Potential) -> dict[str, float]:
    """Cost of an atom of each element, its bonds excluded, in units of the mean cost of a bond of the potential."""
    shape = make_shape(potential)
    if not shape.classes:
        return dict.fromkeys(potential.elements, 1.0)
    bond = bond_operations(potential)
    entries = {key: int(np.count_nonzero(real_coupling(*key))) for t in shape.elements for key in t.graph.couplings}
    # numbers of coupling types count over all elements, in the order of make_shape
    by_type = np.array([entries[key] for key in sorted(entries)] or [0])
    found = {}
    for e, (element, table) in enumerate(zip(potential.elements, shape.elements, strict=True)):
        graph = table.graph
        base = sum(
            10 * J * n * (lmax + 1) ** 2 for J, lmax, n in (shape.classes[c] for c in shape.bond_class[e] if c >= 0)
        )
        nodes = ENTRY * int(by_type[graph.nodes[:, 0]].sum()) + NODE * graph.n_components
        functions = (FUNCTION + 4 * shape.n_densities) * int((graph.groups[:, 1] * graph.groups[:, 3]).sum())
        found[element] = float((base + nodes + functions) / bond)
    return found
