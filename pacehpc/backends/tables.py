"""The tables of a potential and the targets of its structures, as the kernels of every compiled backend read them.

A backend gives `put(array) -> address`, which keeps a copy where its kernels can read it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pacehpc.backends.graph import right_nodes
from pacehpc.backends.layout import Layout
from pacehpc.backends.records import record
from pacehpc.backends.shape import Coefficients, Shape, bond_type_record
from pacehpc.physics.parameters import EmbeddingKind
from pacehpc.potential import Potential
from pacehpc.structures import Structures

Put = Callable[[np.ndarray], int]

BOND_RECORD = 8
"""Numbers of a bond's record (enum BondItem of the kernels)."""
LAYOUT = ("bond_atoms", "tile_element", "tile_atoms", "tile_count", "tile_slots", "tile_slot_offset")
"""Arrays of a layout that the kernels read."""


def put_tables(
    problem: np.ndarray,
    potential: Potential,
    shape: Shape,
    coefficients: Coefficients,
    address: int,
    put: Put,
    by_size: bool = False,
) -> list[np.ndarray]:
    """Write the tables of a potential and their addresses into a record of `Problem`.

    Args:
        problem: record("Problem"), (1,).
        potential: embeddings and bonds.
        shape: its shape.
        coefficients: its coefficients in the kernels' order.
        address: where the kernels find `coefficients.values`.
        put: keeps an array for the kernels.
        by_size: sort the groups of functions by the size of their left node.

    Returns:
        For each element, the functions in the order of their gradient: by right nodes, int32 (n_functions,).
    """
    elements, n, nd = potential.elements, len(potential.elements), shape.n_densities
    records, rights = np.zeros(n, record("ElementTable")), np.zeros(n, record("RightTable"))
    pairs, bond_types = np.zeros(n * n, record("PairTable")), np.zeros(n * n, record("BondType"))
    order = []
    for e, (element, table) in enumerate(zip(elements, shape.elements, strict=True)):
        graph, row, embedding = table.graph, records[e], potential.embeddings[element]
        groups = graph.groups
        if by_size:
            groups = groups[np.argsort(groups[:, 1], kind="stable")]
        row["nodes"], row["groups"], row["right"] = put(graph.nodes), put(groups), put(graph.right)
        nodes, entries, others = right_nodes(groups, graph.right, graph.n_components)
        rights[e] = put(nodes), put(entries), put(others), len(nodes), len(others)
        order.append(entries[:, 1])
        row["c"], row["c_radial"], row["c_first"] = address + 8 * coefficients.starts[e]
        terms = np.tile([0.0, 1.0], (nd, 1))
        terms[: embedding.ndensity] = np.reshape(embedding.fs_parameters, (-1, 2))[: embedding.ndensity]
        row["embedding"], row["embedding_kind"] = put(terms), EmbeddingKind[embedding.npot]
        row["rho_core_cut"], row["drho_core_cut"] = embedding.rho_core_cut, embedding.drho_core_cut
        row["n_nodes"], row["n_groups"], row["n_functions"] = len(graph.nodes), len(groups), len(graph.right)
        row["n_components"], row["n_leaves"] = graph.n_components, graph.n_leaves
        row["n_moments"], row["n_y"] = table.n_moments, shape.n_y(e)
        for mu, other in enumerate(elements):
            pair = pairs[e * n + mu]
            pair["bond_class"] = shape.bond_class[e, mu]
            pair["leaf_offset"], pair["moment_offset"] = graph.leaf_offsets[mu], table.moment_offsets[mu]
            pair["radial_offset"], pair["first_offset"] = table.radial_offsets[mu], table.first_offsets[mu]
            for name, value in bond_type_record(potential.bonds[element, other], (element, other)).items():
                bond_types[e * n + mu][name] = value
    problem["n_elements"] = n
    for name, array in (("elements", records), ("rights", rights), ("pairs", pairs), ("bond_types", bond_types)):
        problem[name] = put(array)
    problem["max_components"], problem["max_moments"] = shape.max_components, shape.max_moments
    problem["max_y"] = shape.max_y
    return order


def structure_arrays(structures: Structures, layout: Layout) -> dict[str, np.ndarray]:
    """What the kernels read of structures and their layout, by the names of `Problem`'s fields; bonds apart."""
    arrays = {name: getattr(layout, name) for name in LAYOUT}
    arrays["atom_offsets"] = np.ascontiguousarray(structures.atom_offsets, np.int64)
    arrays["volumes"] = np.ascontiguousarray(structures.volumes, np.float64)
    if structures.energy is not None:
        arrays |= targets(structures)
    return arrays


def targets(structures: Structures) -> dict[str, np.ndarray]:
    """Reference values and weights by the names of `Problem`'s fields; rows of NaN where a stress does not count."""
    s = structures
    forces = np.zeros((s.n_atoms, 4))
    forces[:, :3] = s.forces
    stress = np.full((s.n_structures, 6), np.nan)
    if s.stress is not None:
        stress[s.has_stress] = s.stress[s.has_stress]
    return {
        "energy": np.ascontiguousarray(s.energy, np.float64),
        "w_energy": np.ascontiguousarray(s.w_energy, np.float64),
        "forces": forces,
        "w_forces": np.ascontiguousarray(s.w_forces, np.float64),
        "stress": stress,
    }
