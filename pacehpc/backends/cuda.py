"""The cuda backend: the kernels of kernels/evaluate.cu on one GPU, through CuPy's RawModule.

Everything but the parameters stays on the device: bonds, moments where they fit, targets. An evaluation uploads the
coefficients, queues the kernels of all batches without waiting, and downloads one buffer [terms | maxima | gradient].
Sums have a fixed order within a virtual shard and are integers beyond (see fixed_point), so that they have the same
bits every time and on any number of ranks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pacehpc import fixed_point, metrics
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.device import chosen_device, describe, load_cupy
from pacehpc.backends.device_batches import Batch, Places, filled_sizes, incoming_bonds
from pacehpc.backends.device_launch import Launcher
from pacehpc.backends.device_memory import (
    WORK_BOND,
    batches,
    counted_batches,
    memory_needs,
    most_rows,
    piece_starts,
    row_items,
    row_memory,
    size_of,
    state_size,
    work_arrays,
    work_per_atom,
)
from pacehpc.backends.device_rows import each_a_shard, structure_rows
from pacehpc.backends.interface import (
    AtomRows,
    EvaluatorOptions,
    LossWeights,
    Prediction,
    Rows,
    Sums,
    check_rows,
    predicts_virials,
)
from pacehpc.backends.layout import make_layout
from pacehpc.backends.memory import keeps_moments
from pacehpc.backends.records import record
from pacehpc.backends.shape import Coefficients, make_shape
from pacehpc.backends.source import LANES, module_of
from pacehpc.backends.tables import put_tables, structure_arrays
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential
from pacehpc.structures import Structures, virial_matrix

log = logging.getLogger("pacehpc")

MEMORY_FRACTION = 0.9  # of the memory that is free at the start, less what other ranks on the device get
FORCE_WARPS = 8  # as in evaluate.cu
SHARED = {"dG": "w", "X": "dPhi_bar", "vectors": "bond_rows"}
"""Work arrays of the kernels in the memory of others, which are not needed at the same time."""
N_TERMS, N_MAXIMA = len(metrics.TERMS), 4  # the last of metrics.MAXIMA, too_large, is made on the host


class CudaEvaluator:
    """Loss, gradient and predictions of one rank's structures on one GPU."""

    name = "cuda"

    def __init__(
        self,
        potential: Potential,
        structures: Structures,
        loss: LossWeights,
        options: EvaluatorOptions = EvaluatorOptions(),
    ) -> None:
        """Raises CudaUnavailable (a PacehpcError) if there is no device to use."""
        self._cupy = cupy = load_cupy()
        index, self.ranks_on_device = chosen_device(options, cupy.cuda.runtime.getDeviceCount())
        self.device = describe(index)
        self.structures, self.loss = structures, loss
        self.with_virials = predicts_virials(loss, structures, options)
        self.shape = make_shape(potential)
        self.coefficients = Coefficients(potential, self.shape)
        self._potential, self._options = potential, options
        self._elements = potential.elements
        with cupy.cuda.Device(index):
            self._stream = cupy.cuda.Stream()
            self._pool = cupy.cuda.MemoryPool()
            share = int(MEMORY_FRACTION * self.device.free_memory / self.ranks_on_device)
            self._limit = min(share, options.memory_limit) if options.memory_limit else share
            self._pool.set_limit(size=self._limit)
            properties = cupy.cuda.runtime.getDeviceProperties(index)
            multiprocessors = properties["multiProcessorCount"]
        with self.on_device():
            module = module_of(cupy, self.shape.header(self.with_virials))
            self._launch = Launcher(cupy, module, self._stream, multiprocessors, options.block, options.profile)
            self._graphs: dict[bool, Any] = {}  # by whether the gradient is made; None: launched once, not yet recorded
            self._records = True
            self._check_sizes()
            self._build_tables()
            self._build_structures(options.batch_bytes)

    @property
    def report(self) -> str:
        """Batches and memory, for the log."""
        moments = "stored" if self.moments_stored else "made for each batch"
        return (
            f"peak memory {size_of(self.peak_bytes)} of {size_of(self._limit)} allowed, "
            f"{counted_batches(len(self.batches))}, moments {moments}"
        )

    @property
    def peak_bytes(self) -> int:
        """Device memory that this evaluator holds; nothing more is taken during evaluations."""
        with self._cupy.cuda.Device(self.device.index):  # a pool counts device by device
            return self._pool.total_bytes()

    def evaluate(self, parameters: np.ndarray, gradient: bool = True) -> Sums:
        """The data part of the loss, its gradient, and the sums behind the metrics."""
        self._check(parameters)
        s = self.structures
        n_terms = fixed_point.LIMBS * N_TERMS
        head = n_terms + N_MAXIMA + 1
        if s.n_structures:
            with self.on_device():
                self._upload(parameters)
                self._run_evaluation(gradient)
                result = (self._result if gradient else self._result[:head]).get()
        else:
            result = np.zeros(head + fixed_point.LIMBS * self._columns, np.int64)
        terms = result[:n_terms].reshape(fixed_point.LIMBS, N_TERMS)
        maxima = np.append(result[n_terms : head - 1].view(np.float64), float(result[head - 1] > 0))
        if not gradient:
            return Sums(terms, maxima)
        return Sums(terms, maxima, result[head:].reshape(fixed_point.LIMBS, self._columns), self.in_parameters)

    def _run_evaluation(self, gradient: bool) -> None:
        """The kernels of an evaluation: one by one the first time, from the second on as one graph.

        Nothing but the contents of arrays changes between evaluations, so the graph stays valid. Ranges of the profiler
        and times of kernels need single launches, and so does a device or driver that cannot record.
        """
        single = self._options.profile or self._launch.timed is not None or not self._records
        if single or gradient not in self._graphs:
            self._queue_evaluation(gradient)
            if not single:
                self._graphs[gradient] = None
            return
        if self._graphs[gradient] is None:
            try:
                self._graphs[gradient] = self._record(gradient)
            except RuntimeError as error:  # CuPy's errors of the runtime are such
                title = self.device.title
                log.info("%s: kernels are launched one by one, as they cannot be recorded (%s)", title, error)
                self._records = False
                self._queue_evaluation(gradient)
                return
        self._graphs[gradient].launch(self._stream)

    def _record(self, gradient: bool) -> Any:
        """A graph of all kernels of an evaluation, which have run before and are loaded."""
        self._stream.begin_capture()
        try:
            self._queue_evaluation(gradient)
        finally:
            graph = self._stream.end_capture()
        return graph

    def _queue_evaluation(self, gradient: bool) -> None:
        """All kernels of an evaluation of loss terms, or also of the gradient."""
        self._result.fill(0)
        for batch in self.batches:
            self.first_pass(batch, targets=True)
            pieces = batch.work["n_pieces"].item()
            self._launch("add_terms", pieces * (N_TERMS + N_MAXIMA) * LANES, batch.problem, batch.work)
            if gradient:
                self._rows[: batch.n_rows * self._columns].fill(0)
                self._second_pass(batch)
                self._launch("add_rows", pieces * self._columns, batch.problem, batch.work)

    def update(self, bond_vector: np.ndarray) -> None:
        """New vectors of the same bonds, (n_bonds, 3) in Å; those that are not shorter than their rcut are left out.

        Of an evaluator without targets: the bonds of a fit stay as they are.
        """
        offsets = self.structures.bond_offsets
        if not self.structures.n_bonds:
            return
        with self.on_device():
            for batch in self.batches:
                vectors = bond_vector[offsets[batch.atoms.start] : offsets[batch.atoms.stop]]
                self._prepare(batch, vectors)

    def predict(self, parameters: np.ndarray) -> Prediction:
        """Atomic energies, forces and virials (NaN unless the evaluator was made with virials)."""
        self._check(parameters)
        s = self.structures
        energies, forces = np.zeros(s.n_atoms), np.zeros((s.n_atoms, 3))
        virials = np.full((s.n_structures, 3, 3), np.nan)
        if not s.n_structures:
            return Prediction(energies, forces, virials)
        with self.on_device():
            self._upload(parameters)
            for batch in self.batches:
                self.first_pass(batch)
            for batch in self.batches:
                energies[batch.atoms] = batch.arrays["atom_energies"].get()
                forces[batch.atoms] = batch.arrays["atom_forces"].get().reshape(-1, 4)[:, :3]
                if self.with_virials:
                    atoms = batch.arrays["atom_virials"].get().reshape(-1, 6)
                    starts = s.atom_offsets[batch.structures.start : batch.structures.stop] - batch.atoms.start
                    sums = np.add.reduceat(atoms, starts, axis=0)
                    virials[batch.structures] = virial_matrix(sums)
        return Prediction(energies, forces, virials)

    def rows(
        self, parameters: np.ndarray, kind: str, directions: np.ndarray | None = None, strains: np.ndarray | None = None
    ) -> Iterator[Rows]:
        """See `Evaluator.rows`; by an evaluator of its own in what memory is left. Strains need virials."""
        self._check(parameters)
        _, q = check_rows(self.structures, kind, directions, strains)
        if strains is not None and not self.with_virials:
            raise ValueError("strains need an evaluator that makes virials (EvaluatorOptions.virials)")
        if not self.structures.n_structures:
            return
        options = replace(
            self._options, virials=self.with_virials, store_moments=self.moments_stored,
            memory_limit=max(self._limit - self.peak_bytes, 1),
        )  # fmt: skip
        loss = LossWeights(kappa=0.5 if q else 0.0)
        kernels = CudaEvaluator(self._potential, each_a_shard(self.structures), loss, options)
        with kernels.on_device():
            kernels._upload(parameters)
        yield from structure_rows(kernels, len(parameters), kind, directions, strains)

    def atom_rows(self, parameters: np.ndarray, kind: str) -> Iterator[AtomRows]:
        """Values of the functions of each atom, see `Evaluator.atom_rows`; by the cpu backend."""
        host = CpuEvaluator(self._potential, self.structures, self.loss)
        yield from host.atom_rows(parameters, kind)

    def second_pass(self, batch: Batch) -> np.ndarray:
        """Rows of gradient sums of a batch along its residuals, (n_rows, n_columns)."""
        rows = self._rows[: batch.n_rows * self._columns]
        rows.fill(0)
        self._second_pass(batch)
        return rows.get().reshape(batch.n_rows, self._columns)

    def stage_seconds(self, parameters: np.ndarray) -> dict[str, float]:
        """Seconds of one loss and gradient kernel by kernel, each timed by events of the device."""
        self._launch.timed = found = {}
        try:
            self.evaluate(parameters)
            return found
        finally:
            self._launch.timed = None

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """This evaluator's device, stream and memory pool; waits for the stream at the end."""
        cupy = self._cupy
        with cupy.cuda.Device(self.device.index), self._stream, cupy.cuda.using_allocator(self._pool.malloc):
            yield
            self._stream.synchronize()

    def _check(self, parameters: np.ndarray) -> None:
        if np.shape(parameters) != (self.coefficients.n_parameters,):
            raise ValueError(f"{np.shape(parameters)} parameters given, {self.coefficients.n_parameters} expected")

    def _tiles(self, batch: Batch, *names: str) -> None:
        for name in names:
            self._launch(name, batch.n_tiles * LANES, batch.problem, batch.work)

    def _moments(self, batch: Batch, name: str) -> None:
        block = self._launch.moment_block
        self._launch(name, batch.n_tiles * block, batch.problem, batch.work, block=block)

    def first_pass(self, batch: Batch, targets: bool = False) -> None:
        """Energies, forces and adjoints of a batch; targets: residuals as well."""
        if not self.moments_stored:
            self._moments(batch, "make_batch_moments")
        self._tiles(
            batch, "make_leaves", "couple_nodes", "make_energies", "adjoint_of_densities", "adjoint_of_nodes",
            "adjoint_of_moments",
        )  # fmt: skip
        self._launch("make_bond_forces", batch.n_tiles * FORCE_WARPS * LANES, batch.problem, batch.work)
        self._tiles(batch, "gather_forces")
        n = batch.structures.stop - batch.structures.start
        self._launch("make_residuals", n * LANES, batch.problem, batch.work, np.int32(targets))

    def _second_pass(self, batch: Batch) -> None:
        if self.loss.kappa > 0 or self.loss.stress > 0:
            self._moments(batch, "make_moment_tangents")
        else:
            self._tiles(batch, "clear_moment_tangents")
        self._tiles(batch, "make_leaf_tangents", "couple_node_tangents", "make_density_tangent")
        rows = batch.work["n_items"].item() * LANES
        self._launch("make_density_gradient", rows, batch.problem, batch.work)
        if self._options.radial_gradient:
            self._tiles(batch, "make_node_gradient")
        self._launch("make_radial_gradient", rows, batch.problem, batch.work)

    def _upload(self, parameters: np.ndarray) -> None:
        self.coefficients.set(np.asarray(parameters, np.float64))
        self._coefficients.set(self.coefficients.values, stream=self._stream)

    def _check_sizes(self) -> None:
        """The compiler's structs are what the records here say."""
        names = ("Problem", "Work", "ElementTable", "PairTable", "BondType", "RightTable")
        result = self._cupy.zeros(len(names) + 1, np.int64)
        self._launch("sizes", 1, result)
        expected = [record(name).itemsize for name in names]
        expected.append(state_size(self.shape))
        found = result.get().tolist()
        if found != expected:
            raise PacehpcError(f"the kernels' structs have {found} bytes, {expected} expected: install pacehpc again.")

    def _to_device(self, array: np.ndarray) -> Any:
        values = np.ascontiguousarray(array).reshape(-1) if array.size else np.zeros(1, array.dtype)
        if values.dtype.names:  # records, of which CuPy knows nothing
            values = values.view(np.uint8)
        result = self._cupy.empty(values.size, values.dtype)
        result.set(values)  # cupy.asarray would keep pinned host memory of the same size
        return result

    def _build_tables(self) -> None:
        shape, potential, c = self.shape, self._potential, self.coefficients
        # coefficients, and the columns of rows of gradients: functions of every element, then radial, then first
        self._columns = len(c.values)
        self._coefficients = self._cupy.empty(self._columns, np.float64)
        self._kept: list[Any] = []

        def keep(array: np.ndarray) -> int:
            self._kept.append(self._to_device(array))
            return self._kept[-1].data.ptr

        problem = self._problem = np.zeros(1, record("Problem"))
        # groups of the same size share right nodes
        orders = put_tables(problem, potential, shape, c, self._coefficients.data.ptr, keep, by_size=True)
        places = np.arange(self._columns)  # where the sums by each coefficient stand: those of functions by right nodes
        nd = shape.n_densities
        for start, order in zip(c.starts[:, 0], orders, strict=True):
            rows = start + np.arange(len(order) * nd).reshape(-1, nd)
            places[start + nd * order[:, None] + np.arange(nd)] = rows
        problem["kappa"], problem["stress_weight"] = self.loss.kappa, self.loss.stress
        problem["energy_delta"], problem["force_delta"] = self.loss.energy_delta, self.loss.force_delta
        problem["radial_fixed"] = not self._options.radial_gradient

        work = self._work = np.zeros(1, record("Work"))
        work["element_columns"] = keep(np.ascontiguousarray(c.starts))
        work["columns"] = self._columns
        # without this evaluator, whose memory would live on with the sums
        self.in_parameters = partial(self.coefficients.gradient_of, places)

    def _build_structures(self, batch_bytes: int | None) -> None:
        """Batches and all arrays; when they do not fit, work arrays of half the size are tried."""
        s = self.structures
        self.batches, self._n_batches, self.moments_stored, self.batch_bytes = [], 0, False, 0
        if not s.n_structures:
            return
        self._most_rows = most_rows(self.shape)
        self._starts = s.shard_starts if s.shards is not None else piece_starts(s)
        resident, moments, whole = self._needs(stored=True)
        stored = self._options.store_moments
        if stored is None:  # where recomputing costs more than reading, and a fifth of the work fits beside
            stored = keeps_moments(s) and resident + moments + whole // 5 < self._limit
        self.moments_stored = bool(stored)
        resident, moments, whole = self._needs(self.moments_stored)
        least = self._work_per_atom() * int(s.atoms_per_structure.max())
        target = batch_bytes or max(min(whole, self._limit - resident - moments), least)
        while not self._fits(target):
            # the failed attempt's arrays are gone only here, outside the exception that held their frame
            self._release()
            if self._n_batches < s.n_structures:
                target //= 2
                made = counted_batches(self._n_batches)
                log.warning("%s: out of memory with %s; retrying with more, smaller batches", self.device.title, made)
            elif self.moments_stored:
                self.moments_stored, target = False, min(whole, self._limit)
                log.warning("%s: out of memory; moments are made for each batch from now on", self.device.title)
            else:
                raise PacehpcError(
                    f"{self.device.title}: not even one structure at a time fits into {size_of(self._limit)}: use "
                    "more ranks on other devices, raise backend.gpu_config.mem_limit, or split the largest structure."
                )

    def _fits(self, batch_bytes: int) -> bool:
        """Make all arrays with work arrays of `batch_bytes`; whether there was memory for them."""
        try:
            self._allocate(batch_bytes)
        except self._cupy.cuda.memory.OutOfMemoryError:
            return False
        return True

    @property
    def _shards(self) -> np.ndarray:
        """Atoms of each virtual shard."""
        s = self.structures
        return np.diff(s.atom_offsets[np.append(self._starts, s.n_structures)])

    def _needs(self, stored: bool) -> tuple[int, int, int]:
        s = self.structures
        return memory_needs(self.shape, self._shards, s.n_bonds, stored, s.energy is not None)

    def _work_per_atom(self) -> int:
        s, fitting = self.structures, self.structures.energy is not None
        rows = row_memory(self.shape, self._shards) // max(1, s.n_atoms) if fitting else 0
        return work_per_atom(self.shape, self.moments_stored, fitting) + rows

    def _release(self) -> None:
        for name in ("_rows", "_result", "_workspace"):
            self.__dict__.pop(name, None)
        self.batches = []
        self._pool.free_all_blocks()

    def _allocate(self, batch_bytes: int) -> None:
        cupy, s = self._cupy, self.structures
        cuts = batches(s, self._starts, self._work_per_atom(), WORK_BOND, batch_bytes)
        self._n_batches, self.batch_bytes = len(cuts), batch_bytes
        size = fixed_point.LIMBS * (N_TERMS + self._columns) + N_MAXIMA + 1
        self._result = cupy.zeros(size, np.int64)
        made = []
        for cut in cuts:
            made.append(self._make_batch(cut))
        self._allocate_work(made)
        self.batches = made
        for batch in made:
            self._prepare(batch, s.bond_vector[s.bond_offsets[batch.atoms.start] : s.bond_offsets[batch.atoms.stop]])
            if s.energy is not None:
                batch.places = None

    def _make_batch(self, cut: slice) -> Batch:
        """Bonds and targets of a run of structures on the device."""
        cupy, shape, n = self._cupy, self.shape, len(self._elements)
        s = self.structures.select(cut)
        needed = np.ones((n, n), bool) if shape.core else shape.bond_class >= 0
        inside = self._starts[(self._starts > cut.start) & (self._starts < cut.stop)] - cut.start
        s.shards = np.concatenate([[0], inside, [s.n_structures]])
        layout = make_layout(s, n, LANES, max(1, s.n_atoms), needed)
        if layout.n_slots * LANES >= 2**31:
            raise PacehpcError("a batch of the cuda backend is too large for its index: lower gpu_config.mem_limit.")
        problem, work = self._problem.copy(), self._work.copy()
        places = Places.of(layout)
        items, piece_rows = row_items(layout, self._most_rows)
        given = structure_arrays(s, layout) | incoming_bonds(s, layout, places)
        given |= {"row_items": items, "piece_rows": piece_rows, "piece_structures": s.shards}
        if s.energy is not None:
            given["low"] = np.ones(s.n_structures) if s.low is None else np.asarray(s.low, np.float64)
        arrays = {name: self._to_device(array) for name, array in given.items()}
        work["n_pieces"], work["n_items"] = len(piece_rows) - 1, len(items)
        sizes = filled_sizes(s, layout.n_slots, self.shape.core, self.with_virials)
        if self.moments_stored:
            sizes["G"] = layout.n_tiles * self.shape.max_moments * LANES
        arrays |= {name: cupy.zeros(max(1, size), np.float64) for name, size in sizes.items()}
        for name, array in arrays.items():
            for target in (problem, work):
                if name in target.dtype.names:
                    target[name] = array.data.ptr
        problem["n_atoms"], problem["n_structures"], problem["n_tiles"] = s.n_atoms, s.n_structures, layout.n_tiles
        work["result"] = self._result.data.ptr
        offsets = self.structures.atom_offsets
        atoms = slice(int(offsets[cut.start]), int(offsets[cut.stop]))
        return Batch(cut, atoms, layout.n_tiles, layout.n_slots, piece_rows, problem, work, arrays, places)

    def _allocate_work(self, made: list[Batch]) -> None:
        """Work arrays that all batches share, as large as the largest needs."""
        tiles, slots = max(b.n_tiles for b in made), max(b.n_slots for b in made)
        sizes = work_arrays(self.shape, self.moments_stored, self.structures.energy is not None)
        self._workspace = {
            name: self._cupy.empty(max(1, tiles * size * LANES), np.float64) for name, size in sizes.items()
        }
        rows = max(b.n_rows for b in made) if self.structures.energy is not None else 0
        self._rows = self._workspace["rows"] = self._cupy.zeros(max(1, rows * self._columns), np.float64)
        most = max(b.structures.stop - b.structures.start for b in made)
        self._workspace["terms"] = self._cupy.empty(most * (N_TERMS + N_MAXIMA), np.float64)
        self._workspace["bond_rows"] = self._cupy.empty(max(1, slots * LANES * 4), np.float64)
        for batch in made:
            for name, array in self._workspace.items():
                batch.work[name] = array.data.ptr
            for name, shared in SHARED.items():
                batch.work[name] = batch.work[shared]

    def _prepare(self, batch: Batch, bond_vector: np.ndarray) -> None:
        """Once per set of positions: bond records, core repulsion, stored moments."""
        vectors = batch.places.by_slot(bond_vector).reshape(-1)
        if vectors.size:
            self._workspace[SHARED["vectors"]][: vectors.size].set(vectors, stream=self._stream)
        self._tiles(batch, "make_bond_records")
        if self.shape.core:
            self._tiles(batch, "make_core_repulsion", "gather_core_forces")
        if self.moments_stored:
            self._moments(batch, "make_batch_moments")
