"""A potential as a program: kernels and tables behind the C interface of `kernels/program.h`.

The tables of a potential are one block of bytes whose pointers count from its start, so that it can be handed to
`pace_open` from memory or be part of a file. The kernels are compiled by shape, as those of the cpu backend are.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from pacehpc.backends.bondwise import angular_size, row_size
from pacehpc.backends.compile import compile_library, lanes, load_library
from pacehpc.backends.graph import element_functions
from pacehpc.backends.records import record
from pacehpc.backends.shape import Coefficients, Shape, make_shape
from pacehpc.backends.tables import Put, put_tables
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential

INTERFACE = 2
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


class _Results(ctypes.Structure):
    """PaceResults of kernels/program.h."""

    _fields_ = (
        ("energy", ctypes.c_double), ("virial", ctypes.c_double * 9), ("energies", ctypes.c_void_p),
        ("forces", ctypes.c_void_p), ("pair_virials", ctypes.c_void_p), ("site_virials", ctypes.c_void_p),
        ("grades", ctypes.c_void_p),
    )  # fmt: skip


class Program:
    """A potential that evaluates atoms with images, through the C interface; positions in Å, energies in eV."""

    def __init__(self, potential: Potential, threads: int = 1) -> None:
        shape, tables = potential_tables(potential)
        self._library = load_library(shape.header(stress=False), "program")
        self._library.pace_open.restype = ctypes.c_void_p
        self._tables = np.zeros(len(tables) + ALIGNMENT, np.uint8)  # the program reads them as long as it lives
        start = -self._tables.ctypes.data % ALIGNMENT
        self._tables[start : start + len(tables)] = np.frombuffer(tables, np.uint8)
        address = ctypes.c_void_p(self._tables.ctypes.data + start)
        self._program = ctypes.c_void_p(self._library.pace_open(address, threads))
        if not self._program:
            raise PacehpcError(
                "kernels/program.h and backends/program.py do not belong together: install pacehpc again."
            )

    def __del__(self) -> None:
        if getattr(self, "_program", None):
            self._library.pace_close(self._program)

    def find_neighbours(
        self, starts: np.ndarray, n_centres: np.ndarray, elements: np.ndarray, positions: np.ndarray, skin: float
    ) -> None:
        """New lists: atoms starts[s]:starts[s+1] are structure s, its n_centres[s] own atoms first, then images.

        Args:
            starts: int64 (n_structures + 1,).
            n_centres: int64 (n_structures,).
            elements: int32 (n_atoms,), indices into the potential's elements.
            positions: float64 (n_atoms, 3), finite.
            skin: what the lists reach beyond the cutoffs.
        """
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (starts, n_centres, elements, positions)]
        count, reach = ctypes.c_int64(len(n_centres)), ctypes.c_double(skin)
        self._library.pace_find_neighbours(self._program, count, *pointers, reach)

    def evaluate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies (n_atoms,), 0 of images, and forces (n_atoms, 3), those on images not yet given to their atoms."""
        energies, forces = np.zeros(len(positions)), np.zeros((len(positions), 3))
        results = _Results(energies=energies.ctypes.data, forces=forces.ctypes.data)
        self._library.pace_evaluate(self._program, ctypes.c_void_p(positions.ctypes.data), ctypes.byref(results))
        return energies, forces


@dataclass
class Grades:
    """What extrapolation grades of one element's atoms need.

    inverse: (n, n), γ_i = max |B_i @ inverse| with B_i the functions of the element, sorted by (rank, neighbour
    elements, ns, ls, LS); full: with such rows for each density, times ∂F/∂ρ_p.
    """

    inverse: np.ndarray
    full: bool = False


def prepare_program(potential: Potential) -> None:
    """Compile what `PaceCalculator` runs into the cache."""
    compile_library(make_shape(potential).header(stress=False), "program")


def potential_tables(potential: Potential, grades: dict[str, Grades] | None = None) -> tuple[Shape, bytes]:
    """Shape of a potential and its tables for `pace_open`; grades: of each element."""
    shape = make_shape(potential)
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
    densities = max(1, len(grades.inverse) // max(1, len(column)))
    parts = [part[kernel_order] for part in np.split(grades.inverse, densities)]
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
