"""A potential as a program: kernels and tables behind the C interface of `kernels/program.h`.

The tables of a potential are one block of bytes whose pointers count from its start, so that it can be handed to
`pace_open` from memory or be part of a file. The kernels are compiled by shape, as those of the cpu backend are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pacehpc.backends.bondwise import angular_size, row_size
from pacehpc.backends.compile import lanes
from pacehpc.backends.graph import element_functions
from pacehpc.backends.records import record
from pacehpc.backends.shape import Coefficients, Shape, make_shape
from pacehpc.backends.tables import Put, put_tables
from pacehpc.potential import Potential

INTERFACE = 1
"""PACE_INTERFACE of kernels/program.h."""
ALIGNMENT = 64  # bytes: a cache line


class Block:
    """Bytes that grow by arrays, each on a cache line of its own; begins with `reserved` zeros."""

    def __init__(self, reserved: int) -> None:
        self.data = bytearray(-(-reserved // ALIGNMENT) * ALIGNMENT)

    def put(self, array: np.ndarray) -> int:
        """Append an array and return its offset."""
        offset, raw = len(self.data), np.ascontiguousarray(array).tobytes()
        self.data += raw + bytes(-len(raw) % ALIGNMENT or ALIGNMENT)
        return offset


@dataclass
class Grades:
    """What extrapolation grades of one element's atoms need.

    inverse: (n, n), γ_i = max |B_i @ inverse| with B_i the functions of the element, sorted by (rank, neighbour
    elements, ns, ls, LS); full: with such rows for each density, times ∂F/∂ρ_p.
    """

    inverse: np.ndarray
    full: bool = False


def potential_tables(potential: Potential, grades: dict[str, Grades] | None = None) -> tuple[Shape, bytes]:
    """Shape of a potential and its tables for `pace_open`; grades: of each element."""
    shape = make_shape(potential, stress=False)
    tables, problem = np.zeros(1, record("PotentialTables")), np.zeros(1, record("Problem"))
    block, coefficients = Block(tables.nbytes), Coefficients(potential, shape)
    coefficients.set(potential.parameters)
    put_tables(problem, potential, shape, coefficients, block.put(coefficients.values), block.put)
    problem["row_size"], problem["angular_size"] = row_size(shape), angular_size(shape)
    tables["interface"], tables["lanes"], tables["densities"] = INTERFACE, lanes(), shape.n_densities
    tables["elements"] = block.put(np.frombuffer(b"".join(e.encode() + b"\0" for e in potential.elements), np.uint8))
    tables["problem"] = block.put(problem)
    if grades is not None:
        records = [
            _grade_table(potential, shape, e, grades[name], block.put) for e, name in enumerate(potential.elements)
        ]
        tables["grades"] = block.put(np.concatenate(records))
    block.data[: tables.nbytes] = tables.tobytes()
    return shape, bytes(block.data)


def _grade_table(potential: Potential, shape: Shape, e: int, grades: Grades, put: Put) -> np.ndarray:
    """The record GradeTable of an element, (1,), whose arrays `put` keeps."""
    element, table = potential.elements[e], shape.elements[e]
    species = {name: mu for mu, name in enumerate(potential.elements)}
    rank1, higher = element_functions(potential, element)
    functions = dict([*rank1, *higher])

    def order(position: int) -> tuple:
        f = functions[position]
        return len(f.ns), [species[name] for name in f.elements[1:]], f.ns, f.ls, f.LS

    column = {position: k for k, position in enumerate(sorted(functions, key=order))}
    kernel_order = [column[p] for p in (*(p for p, _ in rank1), *table.positions.tolist())]
    parts = [part[kernel_order] for part in grades.inverse.reshape(-1, len(column), grades.inverse.shape[1])]
    if grades.full:
        parts += [np.zeros_like(parts[0])] * (shape.n_densities - len(parts))
    inverse = np.concatenate(parts)
    inverse = np.pad(inverse, [(0, 0), (0, -inverse.shape[1] % 8)])
    moments = [np.zeros((shape.bases[e, mu].shape[1], len(rank1))) for mu in range(len(species))]
    for k, (mu, n, _) in enumerate(table.first_positions):
        moments[mu][:, k] = shape.bases[e, mu][n]
    used = [m for mu, m in enumerate(moments) if shape.bond_class[e, mu] >= 0]
    row = np.zeros(1, record("GradeTable"))
    row["inverse"], row["factors"] = put(inverse), put(table.graph.factor)
    row["rank1"] = put(np.concatenate([*used, np.zeros((1, len(rank1)))]))  # never empty
    row["n_columns"], row["n_rank1"], row["full"] = inverse.shape[1], len(rank1), grades.full
    return row
