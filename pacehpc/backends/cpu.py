"""The cpu backend: kernels compiled by the host's compiler for the potential at hand."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np

from pacehpc import fixed_point, metrics
from pacehpc.backends.bondwise import angular_size, row_size, tile_rows
from pacehpc.backends.compile import compile_ahead, compile_library, lanes, load_library
from pacehpc.backends.cpu_rows import CpuRows, Given, aligned
from pacehpc.backends.interface import (
    AtomRows,
    EvaluatorOptions,
    LossWeights,
    Prediction,
    Rows,
    Sums,
    predicts_virials,
)
from pacehpc.backends.layout import Layout, make_layout
from pacehpc.backends.memory import default_batch_atoms, keeps_moments, tile_numbers
from pacehpc.backends.records import record
from pacehpc.backends.shape import Coefficients, make_shape
from pacehpc.backends.tables import BOND_RECORD, put_tables, structure_arrays
from pacehpc.machine import kernel_threads
from pacehpc.potential import Potential
from pacehpc.structures import Structures, virial_matrix

STAGES = (
    "atomic base", "nodes", "densities", "embedding", "density adjoint", "node adjoint", "moment adjoint", "forces",
    "residuals", "tangent moments", "tangent base", "node tangents", "density tangents", "density gradient",
    "node gradient", "radial gradient", "shard sums",
)  # fmt: skip


def prepare(potential: Potential, loss: LossWeights) -> float:
    """Compile the kernels of a potential into the cache; returns the seconds it took, 0 if they were there."""
    return compile_library(make_shape(potential).header(loss.stress > 0))[1]


def prepare_ahead(potential: Potential, stress: bool) -> None:
    """Start compiling the kernels of a potential in the background."""
    compile_ahead(make_shape(potential).header(stress))


class CpuEvaluator:
    """Loss, gradient and predictions of one rank's structures; everything that depends on positions is made once."""

    name = "cpu"

    def __init__(
        self,
        potential: Potential,
        structures: Structures,
        loss: LossWeights,
        options: EvaluatorOptions = EvaluatorOptions(),
    ) -> None:
        self.structures = structures
        self.loss = loss
        self.with_virials = predicts_virials(loss, structures, options)
        self.shape = make_shape(potential)
        self.coefficients = Coefficients(potential, self.shape)
        self._library = load_library(self.shape.header(loss.stress > 0))
        self._threads = options.threads or kernel_threads()
        self._problem = np.zeros(1, record("Problem"))
        self._problem["radial_fixed"] = not options.radial_gradient
        self._problem["with_virials"] = self.with_virials
        self._kept: dict[str, np.ndarray] = {}  # arrays that the kernels point to
        self._build_tables(potential)
        self._build_structures(potential, options)
        self._place(structures.bond_vector)
        if structures.energy is not None:
            self.layout.bond_place = np.zeros(0, np.int64)  # bonds of a fit stay: moments take its memory
        self._make_moments()

    @property
    def report(self) -> str:
        """Empty: memory is predicted and logged before an evaluator is made."""
        return ""

    def update(self, bond_vector: np.ndarray) -> None:
        """New vectors of the same bonds, (n_bonds, 3) in Å; those that are not shorter than their rcut are left out."""
        if len(self.layout.bond_place) != len(bond_vector):
            raise ValueError("the bonds of a fit stay as they are")
        self._place(bond_vector)
        self._make_moments()

    def _place(self, bond_vector: np.ndarray) -> None:
        """Bond records and core repulsion."""
        s, given = self.structures, np.zeros(1, record("GivenBonds"))
        arrays = {
            "vectors": np.ascontiguousarray(bond_vector, np.float64),
            "offsets": np.ascontiguousarray(s.bond_offsets, np.int64),
            "places": self.layout.bond_place,
        }
        for name, array in arrays.items():
            given[name] = array.ctypes.data
        self._kept["core_forces"][:] = 0  # the kernels add to them
        self._library.prepare_bonds(*(ctypes.c_void_p(a.ctypes.data) for a in (self._problem, given)))

    def _make_moments(self) -> None:
        self._library.prepare_moments(ctypes.c_void_p(self._problem.ctypes.data))

    def evaluate(self, parameters: np.ndarray, gradient: bool = True) -> Sums:
        """The data part of the loss, its gradient, and the sums behind the metrics."""
        self._run(parameters, gradient)
        virials = self._structure_virials() if self.loss.stress > 0 else None
        terms, maxima = self._errors.sums(self._kept["structure_energies"], self._kept["atom_forces"][:, :3], virials)
        if not gradient:
            return Sums(terms, maxima)
        maxima[-1] = max(maxima[-1], float(self._kept["too_large"].any()))
        return Sums(terms, maxima, self._kept["gradient_sums"].sum(axis=0), self._in_parameters)

    def predict(self, parameters: np.ndarray) -> Prediction:
        """Atomic energies, forces and virials (NaN unless the evaluator was made with virials)."""
        self._run(parameters, gradient=False)
        virials = (
            self._structure_virials() if self.with_virials else np.full((self.structures.n_structures, 3, 3), np.nan)
        )
        return Prediction(self._kept["atom_energies"].copy(), self._kept["atom_forces"][:, :3].copy(), virials)

    def rows(
        self, parameters: np.ndarray, kind: str, directions: np.ndarray | None = None, strains: np.ndarray | None = None
    ) -> Iterator[Rows]:
        """Derivatives of energies and of combinations of forces, see `Evaluator.rows`; strains need virials."""
        if strains is not None and not self.with_virials:
            raise ValueError("strains need an evaluator that makes virials (EvaluatorOptions.virials)")
        yield from self._rows.rows(self._set(parameters), kind, directions, strains)

    def atom_rows(self, parameters: np.ndarray, kind: str) -> Iterator[AtomRows]:
        """Values of the functions of each atom, see `Evaluator.atom_rows`."""
        yield from self._rows.atom_rows(self._set(parameters), kind)

    @cached_property
    def _rows(self) -> CpuRows:
        given = Given(
            self.structures, self.layout, self.shape, self.coefficients, self._problem, self._orders,
            self._bond_counts(), self._threads, self.with_virials,
        )  # fmt: skip
        return CpuRows(given)

    def _bond_counts(self) -> np.ndarray:
        """Bonds of each atom to each neighbour element that the kernels read, int64 (n_atoms, n_elements)."""
        s, n = self.structures, len(self.shape.elements)
        centre = np.repeat(np.arange(s.n_atoms), np.diff(s.bond_offsets))
        other = s.species[s.bond_atom]
        used = self._needed[s.species[centre], other]
        return np.bincount(centre[used] * n + other[used], minlength=s.n_atoms * n).reshape(-1, n)

    def _set(self, parameters: np.ndarray) -> np.ndarray:
        """Make the kernels' coefficients those of `parameters`, which are returned as float64."""
        parameters = np.asarray(parameters, float)
        if parameters.shape != (self.coefficients.n_parameters,):
            raise ValueError(f"{parameters.shape} parameters given, {self.coefficients.n_parameters} expected")
        self.coefficients.set(parameters)
        return parameters

    def stage_seconds(self, parameters: np.ndarray) -> dict[str, float]:
        """Seconds of one evaluation by stage, the largest over threads."""
        seconds = np.zeros((self._threads, len(STAGES)))
        self._problem["stage_seconds"] = seconds.ctypes.data
        try:
            self._run(parameters, gradient=True)
        finally:
            self._problem["stage_seconds"] = 0
        return dict(zip(STAGES, seconds.max(axis=0).tolist(), strict=True))

    def _run(self, parameters: np.ndarray, gradient: bool) -> None:
        self._set(parameters)
        if gradient:
            self._kept["gradient_sums"][:] = 0
            self._kept["too_large"][:] = 0
        if self.structures.n_atoms:
            self._library.evaluate(self._problem.ctypes.data_as(ctypes.c_void_p), int(gradient))

    def _structure_virials(self) -> np.ndarray:
        s = self.structures
        sums = (
            np.add.reduceat(self._kept["atom_virials"], s.atom_offsets[:-1], axis=0) if s.n_atoms else np.zeros((0, 6))
        )
        return virial_matrix(sums)

    def _put(self, array: np.ndarray) -> int:
        """Address of an array that stays alive with the evaluator."""
        self._tables.append(np.ascontiguousarray(array))
        return self._tables[-1].ctypes.data

    def _keep(self, **arrays: np.ndarray) -> None:
        """Keep arrays under the names of the problem's fields, which get their addresses."""
        for name, array in arrays.items():
            self._kept[name] = array
            self._problem[name] = array.ctypes.data

    def _build_tables(self, potential: Potential) -> None:
        P, shape, n = self._problem, self.shape, len(potential.elements)
        self._tables: list[np.ndarray] = []
        address = self.coefficients.values.ctypes.data
        self._orders = put_tables(P, potential, shape, self.coefficients, address, self._put)
        n_functions = max(len(t.positions) for t in shape.elements)
        n_radial, n_first = max(t.n_radial for t in shape.elements), max(t.n_first for t in shape.elements)
        P["max_functions"], P["n_radial_gradient"], P["n_first_gradient"] = n_functions, n_radial, n_first
        P["n_gradient"] = n * (n_functions * shape.n_densities + n_radial + n_first)
        # where the sums of each element, padded to those of the largest, stand: functions, radial, first
        rows = np.arange(int(P["n_gradient"][0])).reshape(n, -1)
        parts = np.split(rows, np.cumsum([n_functions * shape.n_densities, n_radial]), axis=1)
        sizes = [(len(t.positions) * shape.n_densities, t.n_radial, t.n_first) for t in shape.elements]
        places = [row[: size[k]] for k, part in enumerate(parts) for row, size in zip(part, sizes, strict=True)]
        for e, order in enumerate(self._orders):
            places[e] = places[e].reshape(-1, shape.n_densities)[np.argsort(order)].ravel()
        # without this evaluator, which would live on with its sums
        self._in_parameters = partial(self.coefficients.gradient_of, np.concatenate(places))

    def _build_structures(self, potential: Potential, options: EvaluatorOptions) -> None:
        P, s, shape, width = self._problem, self.structures, self.shape, lanes()
        n, nd = len(potential.elements), shape.n_densities
        needed = self._needed = np.ones((n, n), bool) if shape.core else shape.bond_class >= 0
        store_moments = keeps_moments(s) if options.store_moments is None else options.store_moments
        batch_atoms = options.batch_atoms or default_batch_atoms(shape)
        tile_lanes = tile_numbers(shape, store_moments)
        layout = self.layout = make_layout(s, n, width, batch_atoms, needed)

        self._keep(**structure_arrays(s, layout), batches=layout.batches, shard_batches=layout.shard_batches)
        if s.energy is not None:
            self._errors = metrics.Errors(s, self.loss.energy_delta, self.loss.force_delta)
        P["n_atoms"], P["n_structures"] = s.n_atoms, s.n_structures
        P["n_tiles"], P["n_batches"] = layout.n_tiles, len(layout.batches)
        P["kappa"], P["stress_weight"] = self.loss.kappa, self.loss.stress
        P["energy_delta"], P["force_delta"] = self.loss.energy_delta, self.loss.force_delta

        rows = tile_rows(shape, layout, options.bondwise)
        P["row_size"], P["angular_size"] = row_size(shape), angular_size(shape)
        slots = layout.tile_slots.sum(axis=1, dtype=np.int64)[rows >= 0]
        P["most_angular"], P["most_rows"] = slots.max(initial=0), (rows[rows >= 0] + slots).max(initial=0)
        if store_moments:
            sizes = np.array([t.n_moments for t in shape.elements], np.int64)[layout.tile_element] * (rows < 0)
            starts = np.r_[0, np.cumsum(sizes)]
            self._keep(moment_start=starts[:-1].copy(), moments=aligned(int(starts[-1]), width))
        core, strained = s.n_atoms if shape.core else 1, s.n_atoms if self.with_virials else 1
        self._keep(
            tile_rows=rows,
            bonds=aligned(layout.n_slots, BOND_RECORD, width),
            core_slope=aligned(layout.n_slots if shape.core else 1, width),
            core_cutoff=aligned(core, 1),
            core_energy=aligned(core, 1),
            core_forces=aligned(core, 4),
            core_virials=aligned(core, 6),
            atom_energies=aligned(s.n_atoms),
            atom_forces=aligned(s.n_atoms, 4),
            atom_virials=aligned(strained, 6),
            structure_energies=aligned(s.n_structures),
            residuals=aligned(s.n_atoms, 4),
            strain_residuals=aligned(strained, 6),
        )
        for name in ("core_cutoff", "core_energy", "core_forces", "core_virials", "atom_forces"):
            self._kept[name][:] = 0

        n_shards = len(layout.shard_batches) - 1
        threads = self._threads = max(1, min(self._threads, n_shards))
        P["n_threads"], P["n_shards"] = threads, n_shards
        work = np.r_[0, np.cumsum(_cost(layout))][layout.shard_batches]
        thread_shards = np.abs(work[:, None] - np.linspace(0, work[-1], threads + 1)).argmin(axis=0)
        thread_shards[0], thread_shards[-1] = 0, n_shards
        most_tiles = int(np.diff(layout.batches[:, :2], axis=1).max(initial=1)) if s.energy is not None else 1
        p = P[0]
        scratch = 2 * p["max_moments"] + 2 * p["max_components"] + p["max_y"]
        scratch += p["most_angular"] * p["angular_size"] + p["most_rows"] * p["row_size"]
        P["tile_workspace"] = tile_lanes * width
        P["workspace_size"] = (scratch + most_tiles * tile_lanes) * width
        self._keep(
            thread_shards=thread_shards,
            workspace=aligned(threads, p["workspace_size"]),
            gradient_functions=aligned(threads, n, p["max_functions"] * nd + width),
            gradient_radial=aligned(threads, n, p["n_radial_gradient"], width),
            gradient_first=aligned(threads, n, p["n_first_gradient"], width),
            gradient_sums=np.zeros((threads, fixed_point.LIMBS, p["n_gradient"]), np.int64),
            too_large=np.zeros(threads, np.int64),
        )


def _cost(layout: Layout) -> np.ndarray:
    """Work of each batch in units of a slot."""
    slots = np.r_[0, np.cumsum(layout.tile_slots.sum(axis=1, dtype=np.int64))]
    first, last = layout.batches[:, 0], layout.batches[:, 1]
    return slots[last] - slots[first] + 20 * (last - first)
