"""Rows of the linearised model on the cpu backend (kernels/rows.cpp); made when rows are first asked for.

In the pass of rows a lane is one row of one structure, or of a part of its atoms where a batch has few structures, so
that every sum stays in its lane. Which lanes go together depends on the batch and on the number of rows alone, and so
do the bits of a row.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pacehpc.backends.compile import compile_ahead, compile_library, lanes, load_library
from pacehpc.backends.interface import ATOM_ROWS, AtomRows, Rows, check_rows, motions
from pacehpc.backends.layout import Layout
from pacehpc.backends.records import record
from pacehpc.backends.shape import Coefficients, Shape, make_shape
from pacehpc.potential import Potential
from pacehpc.structures import Structures

PIECE_BYTES = 2**25  # of the values of a run of structures, where a batch does not take more
WRITING = 1.0  # writing the sums of a group, in units of one atom per lane
PART_ATOMS = (4, 8, 16, 32, 64, 10**9)  # sizes of parts to try


@dataclass
class Given:
    """What an evaluator gives its rows."""

    structures: Structures
    layout: Layout
    shape: Shape
    coefficients: Coefficients
    problem: np.ndarray
    """record("Problem"), (1,)."""
    orders: list[np.ndarray]
    """For each element, its functions in the order of their gradient."""
    bond_counts: np.ndarray
    """int64 (n_atoms, n_elements): bonds of each atom that the kernels read."""
    n_threads: int
    virials: bool


def prepare(potential: Potential, stress: bool) -> None:
    """Compile the kernels of rows for a potential into the cache."""
    compile_library(make_shape(potential).header(stress), "rows")


def prepare_ahead(potential: Potential, stress: bool) -> None:
    """Start compiling the kernels of rows in the background."""
    compile_ahead(make_shape(potential).header(stress), "rows")


class CpuRows:
    """Rows of the structures of an evaluator."""

    def __init__(self, evaluator: Given) -> None:
        self._of = evaluator
        self._library = load_library(evaluator.shape.header(evaluator.virials), "rows")
        self._kept: list[np.ndarray] = []
        self._lanes: tuple[tuple[int, int], dict[str, np.ndarray]] | None = None
        s, layout, shape = evaluator.structures, evaluator.layout, evaluator.shape
        n = self._n_elements = len(shape.elements)
        species = s.species.astype(np.int64)
        # structure by structure and element by element, atoms with many neighbours first
        owner = np.repeat(np.arange(s.n_structures), s.atoms_per_structure)
        bonds = evaluator.bond_counts
        self._sorted = np.lexsort((-bonds.sum(axis=1), species, owner))
        self._counts = np.bincount(owner * n + species, minlength=s.n_structures * n).reshape(-1, n)
        self._starts = s.atom_offsets[:-1, None] + np.c_[np.zeros(len(self._counts), np.int64), self._counts].cumsum(1)
        self._place = np.zeros(s.n_atoms, np.int64)
        width = lanes()
        for lane in range(width):
            used = layout.tile_count > lane
            self._place[layout.tile_atoms[used, lane]] = np.flatnonzero(used) * width + lane
        self._most_tiles = int(np.diff(layout.batches[:, :2], axis=1).max(initial=1))
        p = evaluator.problem[0]
        self._first = int(2 * p["max_moments"] + 2 * p["max_components"] + p["max_y"])
        self._first += int(p["most_angular"] * p["angular_size"] + p["most_rows"] * p["row_size"])
        self._pairs = self._pair_table()
        self._sums, self._factors = self._parameter_sums()

    def rows(
        self, parameters: np.ndarray, kind: str, directions: np.ndarray | None, strains: np.ndarray | None
    ) -> Iterator[Rows]:
        """See `Evaluator.rows`."""
        of, s = self._of, self._of.structures
        n_energies, q = check_rows(s, kind, directions, strains)
        if not s.n_structures:
            return
        of.coefficients.set(parameters)
        n_rows, n_parameters = n_energies + q, len(parameters)
        plan, width = np.zeros(1, record("RowPlan")), lanes()
        arrays = self._lanes_for(n_energies, q) | {
            "pairs": self._pairs,
            "sums": self._sums,
            "factors": self._factors,
            "sorted_atoms": self._sorted,
            "element_start": np.ascontiguousarray(self._starts),
            "atom_place": self._place,
            "atom_bonds": np.ascontiguousarray(of.bond_counts, np.int32),
        }
        p = of.problem[0]
        most = np.array([of.bond_counts[s.species == e].max(axis=0, initial=0).sum() for e in range(self._n_elements)])
        slots = int(most.max(initial=0)) + 1
        nd = of.shape.n_densities
        parts = np.array([p["max_components"]] * 2 + [nd * p["max_components"], nd, nd, p["max_moments"]])
        state = int((-(-parts // width)).sum()) * width  # StatePlaces in rows.cpp
        sums = p["max_functions"] * of.shape.n_densities + p["n_radial_gradient"] + p["n_first_gradient"]
        size = self._first + p["tile_workspace"] // width + nd * p["max_components"] + (self._most_tiles + 1) * state
        size += 2 * p["max_moments"] + 2 * p["max_components"] + p["max_y"]
        size += slots * (p["angular_size"] + p["row_size"] + 8 + 2) + self._n_elements * sums + self._n_transformed + 8
        size += -(-int(p["max_functions"]) // width)
        arrays["workspace"] = aligned(of.n_threads, int(size) * width)
        for name, array in arrays.items():
            plan[name] = array.ctypes.data
        plan["workspace_size"], plan["max_slots"] = size * width, slots
        plan["n_transformed"], plan["n_radial"] = self._n_transformed, self._n_radial
        plan["n_parameters"], plan["n_rows"], plan["n_energies"] = n_parameters, n_rows, n_energies
        for first, last in self._pieces(8 * n_rows * n_parameters):
            structures = slice(int(of.layout.batches[first, 2]), int(of.layout.batches[last - 1, 3]))
            atoms = slice(int(s.atom_offsets[structures.start]), int(s.atom_offsets[structures.stop]))
            factors, moving, strained = motions(kind, directions, strains, structures, atoms)
            motion = aligned(n_rows, atoms.stop - atoms.start, 4)
            motion[:, :, :3], motion[:, :, 3] = moving, factors[:, None]
            values = np.empty((structures.stop - structures.start, n_rows, n_parameters))
            plan["first_batch"], plan["last_batch"] = first, last
            plan["first_structure"], plan["first_atom"] = structures.start, atoms.start
            plan["n_atoms"] = atoms.stop - atoms.start
            plan["motions"], plan["values"] = motion.ctypes.data, values.ctypes.data
            if of.virials:  # the kernels' strains are those of the residuals, of opposite sign
                voigt = -strained[:, :, (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
                strain = np.repeat(voigt, s.atoms_per_structure[structures], axis=1)
                plan["strains"] = strain.ctypes.data
            self._library.rows(
                _address(of.problem), _address(plan), ctypes.c_int64(of.n_threads), ctypes.c_int64(self._most_tiles)
            )
            yield Rows(structures, values)

    def atom_rows(self, parameters: np.ndarray, kind: str) -> Iterator[AtomRows]:
        """See `Evaluator.atom_rows`."""
        if kind not in ATOM_ROWS:
            raise ValueError(f"rows of kind {kind!r}: choose one of {', '.join(ATOM_ROWS)}")
        of, s, shape = self._of, self._of.structures, self._of.shape
        if not s.n_structures:
            return
        of.coefficients.set(parameters)
        n, nd, width = self._n_elements, shape.n_densities, lanes()
        columns, rank1, n_columns = self._columns()
        factors = [table.graph.factor for table in shape.elements]
        plan, p = np.zeros(1, record("AtomPlan")), of.problem[0]
        size = int(self._first + p["max_moments"] + p["tile_workspace"] // width + p["max_moments"])
        slopes = np.zeros((s.n_atoms, nd))
        arrays = {
            "atom_rows": np.zeros(s.n_atoms, np.int64),
            "values": np.zeros(n, np.uint64),
            "columns": _addresses(columns),
            "factors": _addresses(factors),
            "n_columns": np.array(n_columns, np.int64),
            "rank1": _addresses(rank1),
            "pairs": self._pairs,
            "workspace": aligned(of.n_threads, size * width),
        }
        if kind == "full":
            arrays["slopes"] = slopes
        for name, array in arrays.items():
            plan[name] = array.ctypes.data
        plan["workspace_size"] = size * width
        for first, last in self._pieces(8 * max(n_columns) * max(1, s.n_atoms // s.n_structures)):
            structures = slice(int(of.layout.batches[first, 2]), int(of.layout.batches[last - 1, 3]))
            inside = np.arange(s.atom_offsets[structures.start], s.atom_offsets[structures.stop])
            atoms = [inside[s.species[inside] == e] for e in range(n)]
            values = [np.empty((len(a), m)) for a, m in zip(atoms, n_columns, strict=True)]
            for a in atoms:
                arrays["atom_rows"][a] = np.arange(len(a))
            arrays["values"][:] = [v.ctypes.data for v in values]
            plan["first_batch"], plan["last_batch"] = first, last
            self._library.atom_rows(_address(of.problem), _address(plan), *_integers(of.n_threads))
            if kind == "full":
                for e, a in enumerate(atoms):
                    own = slopes[a, : shape.elements[e].ndensity]
                    values[e] = (own[:, :, None] * values[e][:, None, :]).reshape(len(a), -1)
            yield AtomRows(atoms, values)

    def _pieces(self, bytes_of_structure: int) -> Iterator[tuple[int, int]]:
        """Runs of batches, first and last, at least one for each thread."""
        batches = self._of.layout.batches
        cost = np.r_[0, np.cumsum((batches[:, 3] - batches[:, 2]) * bytes_of_structure)]
        first = 0
        while first < len(batches):
            last = int(np.searchsorted(cost, cost[first] + PIECE_BYTES, side="right")) - 1
            last = min(max(last, first + self._of.n_threads), len(batches))
            yield first, last
            first = last

    def _keep(self, array: np.ndarray) -> int:
        self._kept.append(np.ascontiguousarray(array))
        return self._kept[-1].ctypes.data

    def _pair_table(self) -> np.ndarray:
        """How sums of radial coefficients and rank 1 become parameters; those of rank 1 are numbered last."""
        table = np.zeros(self._n_elements**2, record("RowPair"))
        n_radial = self._n_transformed = self._of.coefficients.n_radial
        self._rank1: list[np.ndarray] = [np.zeros((0, 2), np.int64)]  # (parameter, place among the transformed sums)
        for row, pair in zip(table, self._of.coefficients.pairs, strict=True):
            used = pair.rank1 >= 0
            places = np.full(pair.rank1.shape, -1)
            places[used] = self._n_transformed + np.arange(used.sum())
            self._rank1.append(np.stack([pair.rank1[used], places[used]], axis=1))
            self._n_transformed += int(used.sum())
            row["basis"], row["rank1"] = self._keep(pair.basis), self._keep(places)
            row["n_basis"], row["J"] = pair.basis.shape
            row["n_radial"], row["parameter"] = pair.n_radial, pair.parameter
        self._n_radial = n_radial
        return table

    def _parameter_sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the sum of each parameter stands among the lanes of a group, and its factor."""
        of, nd, p = self._of, self._of.shape.n_densities, self._of.problem[0]
        size = int(p["max_functions"] * nd + p["n_radial_gradient"] + p["n_first_gradient"])
        transformed = self._n_elements * size
        sums = np.full(of.coefficients.n_parameters, transformed + self._n_transformed)  # that stays 0
        factors = np.ones(len(sums))
        sums[: self._n_radial] = transformed + np.arange(self._n_radial)
        for parameters, places in (part.T for part in self._rank1):
            sums[parameters] = transformed + places
        for e, (positions, element, order) in enumerate(
            zip(of.coefficients.function_parameters, of.shape.elements, of.orders, strict=True)
        ):
            parameters = positions[order].ravel()
            used = np.flatnonzero(parameters >= 0)
            sums[parameters[used]] = e * size + used
            factors[parameters[used]] = np.repeat(element.graph.factor[order], nd)[used]
        return sums, factors

    def _columns(self) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Columns of functions of rank ≥ 2, by element; of rank 1, by pair of elements; number of columns."""
        of, n = self._of, self._n_elements
        columns, rank1, n_columns = [], [], []
        for e, positions in enumerate(of.coefficients.function_parameters):
            first = [pair.rank1[:, 0] for pair in of.coefficients.pairs[e * n : (e + 1) * n]]
            every = np.sort(np.concatenate([positions[:, 0], *(f[f >= 0] for f in first)]))
            columns.append(np.searchsorted(every, positions[:, 0]).astype(np.int64))
            rank1 += [np.where(f >= 0, np.searchsorted(every, f), -1).astype(np.int64) for f in first]
            n_columns.append(len(every))
        return columns, rank1, n_columns

    def _lanes_for(self, n_energies: int, q: int) -> dict[str, np.ndarray]:
        """Which row of which structure, or part of one, each lane of the groups of each batch takes."""
        if self._lanes is None or self._lanes[0] != (n_energies, q):
            plan = lane_plan(self._of.layout.batches, self._counts, n_energies, q, lanes())
            self._lanes = (n_energies, q), plan
        return self._lanes[1]


def lane_plan(batches: np.ndarray, counts: np.ndarray, n_energies: int, q: int, width: int) -> dict[str, np.ndarray]:
    """Groups of `width` lanes for the rows of each batch's structures, by the names of RowPlan's fields.

    Of three kinds: `width` rows of one structure that move atoms, whose lanes have the same atom; the rest of such
    rows; energies, which move nothing. In the latter two, lanes with similar numbers of atoms go together, and where a
    batch has few of their rows, or structures of different sizes, the atoms of large structures are cut into parts.

    Args:
        batches: `Layout.batches`.
        counts: atoms of each structure and element, (n_structures, n_elements).
        n_energies, q: rows of each structure: of its energy, 0 or 1, and that move atoms.
        width: lanes.
    """
    groups, taken = [0], []
    every = np.arange(n_energies + q)
    energies, whole, rest = np.split(every, [n_energies, n_energies + q // width * width])
    for first, last in batches[:, 2:].tolist():
        own = counts[first:last]
        one = np.ones(len(own), np.int64)
        found = [_grouped(own, one, whole, width)[1:]] if len(whole) else []
        for rows in (rest, energies):
            if len(rows):
                parts = [np.maximum(one, -(-own.sum(axis=1) // most)) for most in PART_ATOMS]
                plans = [_grouped(own, p, rows, width) for p in parts]
                found.append(min(plans, key=lambda plan: plan[0])[1:])
        structure, part, parts, row = (np.concatenate(field) for field in zip(*found, strict=True))
        # structure by structure, so that an atom's state is read again while it is in the caches
        order = np.argsort(structure[::width], kind="stable")[:, None] * width + np.arange(width)
        structure, part, parts, row = (field[order.ravel()] for field in (structure, part, parts, row))
        taken.append(np.stack([np.where(structure < 0, -1, first + structure), part, parts, row]))
        groups.append(groups[-1] + len(structure) // width)
    structure, part, parts, row = (np.ascontiguousarray(field) for field in np.concatenate(taken, axis=1))
    starts = np.zeros(len(structure), np.int64)
    starts[np.unique(structure * len(every) + row, return_index=True)[1]] = 1
    return {
        "batch_groups": np.array(groups, np.int64),
        "lane_structure": structure,
        "lane_part": part,
        "lane_parts": parts,
        "lane_row": row,
        "lane_starts": starts,
    }


def _grouped(
    counts: np.ndarray, parts: np.ndarray, rows: np.ndarray, width: int
) -> tuple[float, *tuple[np.ndarray, ...]]:
    """Cost, in atoms, of structures cut into so many parts, and structure, part, parts and row of each lane."""
    structure = np.repeat(np.arange(len(counts)), parts)
    part = np.arange(len(structure)) - np.repeat(np.cumsum(parts) - parts, parts)
    steps = -(-(counts[structure] - part[:, None]).clip(0) // parts[structure, None])
    order = np.lexsort((*steps.T, steps.sum(axis=1)))[::-1]
    n_rows = len(rows)
    structure, part = np.repeat(structure[order], n_rows), np.repeat(part[order], n_rows)
    row = np.tile(rows, len(order))
    steps = np.repeat(steps[order], n_rows, axis=0)
    starts = np.arange(0, len(row), width)
    cost = np.maximum.reduceat(steps, starts, axis=0).sum() + WRITING * len(starts)
    rest = (0, -len(row) % width)
    lanes_taken = (np.pad(a, rest, constant_values=-1) for a in (structure, part, parts[structure], row))
    return float(cost), *lanes_taken


def aligned(*shape: int) -> np.ndarray:
    """float64 array that starts on a cache line (64 bytes), not initialised."""
    size = int(np.prod(shape))
    raw = np.empty(size + 8)
    start = -raw.ctypes.data % 64 // 8
    return raw[start : start + size].reshape(shape)


def _address(record_of_one: np.ndarray) -> ctypes.c_void_p:
    return record_of_one.ctypes.data_as(ctypes.c_void_p)


def _integers(*values: int) -> tuple[ctypes.c_int64, ...]:
    return tuple(ctypes.c_int64(value) for value in values)


def _addresses(arrays: list[np.ndarray]) -> np.ndarray:
    return np.array([array.ctypes.data for array in arrays], np.uint64)
