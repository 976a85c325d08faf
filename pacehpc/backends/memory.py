"""Memory of the cpu backend, predicted from shapes and counts before anything is allocated."""

from __future__ import annotations

import numpy as np

from pacehpc.backends.bondwise import angular_size, prefers_bonds, row_size
from pacehpc.backends.layout import RUN
from pacehpc.backends.shape import Shape
from pacehpc.structures import Structures

BOND = 28  # bytes of a bond in Structures: neighbour and vector
SLOT = 68  # of a bond in the kernels' order: record and neighbour
LAYING_OUT, LEFT = 130, 30  # of a bond in a run: while it is laid out, and what the allocator keeps of that afterwards
ATOM = 76  # of an atom in Structures: species, offset, forces, weight
KERNEL_ATOM = 112  # residuals, forces and their targets, energies, tiles
METRICS_ATOM = 72  # while errors are summed
CORE_ATOM, VIRIAL_ATOM = 48, 96
STRUCTURE = 300
FUNCTION = 700  # tables, and what is needed to make them
SPREAD = 1.2  # slots of a tile above the mean number of neighbours, in √(neighbours of an element)


def keeps_moments(structures: Structures) -> bool:
    """Whether to keep G of every atom where memory allows: reading it costs less than making it of many bonds."""
    return structures.n_bonds >= 24 * structures.n_atoms


def tile_numbers(shape: Shape, moments_stored: bool) -> int:
    """Numbers that an atom keeps from the first pass for the second: nodes, their adjoints, y, F' and F'', moments."""
    moments = 0 if moments_stored else shape.max_moments
    return 2 * shape.max_components + shape.max_y + 2 * shape.n_densities + moments


def default_batch_atoms(shape: Shape) -> int:
    """Atoms in a batch: few enough that its nodes stay in a core's share of the last cache, enough to fill tiles."""
    fitting = 4 * 2**20 // (8 * tile_numbers(shape, moments_stored=False))
    return int(np.clip(fitting, 64, 256 if len(shape.elements) < 3 else 768))


def structures_memory(n_atoms: int, n_bonds: int, n_structures: int) -> float:
    """Bytes of `Structures`."""
    return float(BOND * n_bonds + ATOM * n_atoms + STRUCTURE * n_structures)


def evaluator_memory(
    shape: Shape,
    atoms_of_element: np.ndarray,
    n_bonds: int,
    lanes: int,
    store_moments: bool,
    stress: bool = False,
    threads: int = 1,
) -> float:
    """Most bytes that a CpuEvaluator, its making and its evaluations add to a process that holds the structures.

    atoms_of_element: (n_elements,); n_bonds: of all atoms.
    """
    batch_atoms = default_batch_atoms(shape)
    n_atoms, n = int(np.sum(atoms_of_element)), len(shape.elements)
    present = max(1, int(np.count_nonzero(atoms_of_element)))
    # the last tile of each element of a batch is half empty
    lanes_of_atoms = n_atoms + 0.5 * lanes * present * -(-n_atoms // batch_atoms)
    padded = lanes_of_atoms / max(n_atoms, 1)
    per_pair = n_bonds / max(n_atoms * present, 1)
    slots = padded * (n_bonds + SPREAD * n_atoms * present * np.sqrt(per_pair * (1 - 1 / present)))
    bonds = slots * (SLOT + 8 * shape.core)
    atoms = n_atoms * (KERNEL_ATOM + CORE_ATOM * shape.core + VIRIAL_ATOM * stress)
    average = np.outer(np.ones(n), np.asarray(atoms_of_element) > 0) * (slots / max(lanes_of_atoms * present, 1))
    bondwise = prefers_bonds(shape, np.arange(n), average)
    moments = 0.0
    if store_moments:
        sizes = np.array([table.n_moments for table in shape.elements]) * ~bondwise
        moments = 8.0 * padded * float(sizes @ np.asarray(atoms_of_element, float))

    nd = shape.n_densities
    functions = max(len(t.positions) for t in shape.elements) * nd
    radial = max(t.n_radial for t in shape.elements) + max(t.n_first for t in shape.elements)
    gradient = n * (functions + radial)
    # sums of each thread and their encoding; their total, what is sent and received, decoded sums
    sums = 8.0 * (threads * (n * (functions + lanes * radial) + 3 * gradient) + 14 * gradient)
    tiles = batch_atoms / lanes + present
    scratch = 2 * shape.max_moments + 2 * shape.max_components + shape.max_y
    workspace = threads * 8.0 * lanes * (tile_numbers(shape, store_moments) * tiles + scratch)
    if bondwise.any():
        rows = tiles * row_size(shape) + angular_size(shape)
        workspace += threads * 8.0 * lanes * rows * present * float(average.max())
    tables = FUNCTION * sum(len(t.positions) for t in shape.elements)
    run = min(n_bonds, RUN)
    laying_out = 24 * n_bonds + LAYING_OUT * run
    placing = bonds + 8 * n_bonds + LEFT * run
    running = bonds + moments + METRICS_ATOM * n_atoms + LEFT * run
    return float(atoms + sums + workspace + tables + max(laying_out, placing, running))
