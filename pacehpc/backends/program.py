"""A potential as a program: kernels and tables behind the C interface of `kernels/program.h`.

The tables of a potential are one block of bytes whose pointers count from its start, so that it can be handed to
`pace_open` from memory or be part of a file. The kernels are compiled by shape, as those of the cpu backend are.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from pacehpc.backends.bondwise import angular_size, row_size
from pacehpc.backends.compile import lanes
from pacehpc.backends.cpu import CpuEvaluator, _Records
from pacehpc.backends.graph import element_functions
from pacehpc.backends.shape import Coefficients, Shape, make_shape
from pacehpc.potential import Potential

INTERFACE = 1
ALIGNMENT = 64  # bytes: a cache line


class Block:
    """Bytes that grow by arrays, each on a cache line of its own."""

    def __init__(self, reserved: int) -> None:
        self.data = bytearray(-(-reserved // ALIGNMENT) * ALIGNMENT)

    def put(self, array) -> int:
        """Append the array and return its offset."""
        offset = len(self.data)
        raw = (
            bytes(array)
            if isinstance(array, ctypes.Array | ctypes.Structure)
            else np.ascontiguousarray(array).tobytes()
        )
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
    block = Block(48)

    class Tables:
        pass

    t = Tables()
    t._problem, t.shape, t.coefficients = _Records.problem(), shape, Coefficients(potential, shape)
    t.coefficients.set(potential.parameters)
    t._keep = lambda name, array: block.put(array)
    CpuEvaluator._build_tables(t, potential)
    for e, record in enumerate(t._elements):
        record.c = block.put(t.coefficients.functions[e])
        record.c_radial = block.put(t.coefficients.radial[e])
        record.c_first = block.put(t.coefficients.first[e])
    P = t._problem
    P.elements, P.rights = block.put(t._elements), block.put(t._rights)
    P.pairs, P.bond_types = block.put(t._pairs), block.put(t._bond_types)
    P.row_size, P.angular_size = row_size(shape), angular_size(shape)
    symbols = block.put(np.frombuffer(b"".join(e.encode() + b"\0" for e in potential.elements), np.uint8))
    grade_tables = 0
    if grades is not None:
        records = [_grade_table(potential, shape, e, grades[name], block) for e, name in enumerate(potential.elements)]
        grade_tables = block.put(np.array(records, np.int64))
    header = np.array([INTERFACE, lanes(), shape.n_densities, symbols, block.put(P), grade_tables], np.int64)
    block.data[: header.nbytes] = header.tobytes()
    return shape, bytes(block.data)


def _grade_table(potential: Potential, shape: Shape, e: int, grades: Grades, block: Block) -> list[int]:
    """Numbers of the kernels' GradeTable of an element, whose arrays go into the block."""
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
    arrays = inverse, np.concatenate([*used, np.zeros((1, len(rank1)))]), table.graph.factor
    return [*map(block.put, arrays), inverse.shape[1], len(rank1), int(grades.full)]
