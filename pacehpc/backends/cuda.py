"""The cuda backend: the kernels of kernels/evaluate.cu on one GPU, through CuPy's RawModule.

Everything but the parameters stays on the device: bonds, moments where they fit, targets. An evaluation uploads the
coefficients, queues the kernels of all batches without waiting, and downloads one buffer [terms | maxima | gradient].
Sums have a fixed order within a virtual shard and are integers beyond (see fixed_point), so that they have the same
bits every time and on any number of ranks.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pacehpc import fixed_point, metrics
from pacehpc.backends.graph import right_nodes
from pacehpc.backends.interface import EvaluatorOptions, LossWeights, Prediction, Sums, predicts_virials
from pacehpc.backends.layout import Layout, make_layout
from pacehpc.backends.memory import keeps_moments
from pacehpc.backends.shape import Coefficients, Shape, bond_type_record, make_shape
from pacehpc.backends.source import LANES, cuda_source, record
from pacehpc.errors import PacehpcError
from pacehpc.physics.parameters import EmbeddingKind
from pacehpc.potential import Potential
from pacehpc.structures import Structures, virial_matrix

log = logging.getLogger("pacehpc")

MEMORY_FRACTION = 0.9  # of the memory that is free at the start, less what other ranks on the device get
BLOCK, MOMENT_BLOCK = 128, 256  # threads
FORCE_WARPS = 8  # as in evaluate.cu
BLOCKS_PER_MULTIPROCESSOR = 16
RESIDENT_BOND, RESIDENT_ATOM = 84, 300  # bytes that stay, padding included: records, places; targets, results
WORK_BOND = 32  # bytes of a batch: force on the other end
PADDING = 1.2  # of work arrays: tiles that are not full
ROW_BYTES = 2**20  # most that the rows of gradient sums of a virtual shard may take, if it is more than one row
PIECES, PIECE_ATOMS = 256, 384  # where the data has no virtual shards: how many, of how many atoms at least
N_TERMS, N_MAXIMA = len(metrics.TERMS), 4  # the last of metrics.MAXIMA, too_large, is made on the host
BOND_RECORD = 8
HIDES_ALL = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that mean: no GPU
CAPABILITY = {12: (7, 0), 13: (7, 5)}  # the oldest devices that the compiler of CUDA 12, and 13, knows


@dataclass(frozen=True)
class Device:
    """One GPU as the log lists it; memory in bytes, versions as CUDA's numbers (12090 is 12.9)."""

    index: int
    name: str
    uuid: str
    free_memory: int
    total_memory: int
    driver: int
    runtime: int

    @property
    def title(self) -> str:
        return f"GPU {self.index} {self.name}"

    def __str__(self) -> str:
        free, total = self.free_memory / 2**30, self.total_memory / 2**30
        versions = f"driver CUDA {_version(self.driver)}, runtime {_version(self.runtime)}"
        return f"{self.title} {self.uuid}, {free:.1f} of {total:.1f} GiB free, {versions}"


class CudaUnavailable(PacehpcError):
    """Why CUDA cannot be used; `present` is whether there is a device at all."""

    def __init__(self, message: str, present: bool) -> None:
        super().__init__(message)
        self.present = present


def load_cupy() -> Any:
    """The cupy module, checked to have a device, a sufficient driver and NVRTC.

    Raises CudaUnavailable with the reason.
    """
    try:
        import cupy
    except ImportError as error:
        raise CudaUnavailable(
            f"backend 'cuda' needs CuPy, which cannot be imported ({_reason(error)}): pip install 'pacehpc[cuda12]' or "
            "'pacehpc[cuda13]', whichever CUDA version the driver supports (nvidia-smi shows it).",
            _device_files(),
        ) from None
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "InsufficientDriver" in str(error) and _device_files():
            raise CudaUnavailable(
                f"backend 'cuda': the driver is too old for this CuPy ({error}): install the CuPy of an older CUDA "
                "(pacehpc[cuda12]) or a newer driver.",
                True,
            ) from None
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            asked = os.environ["CUDA_VISIBLE_DEVICES"]
            raise CudaUnavailable(
                f"backend 'cuda': no CUDA device can be used here ({error}). CUDA_VISIBLE_DEVICES is '{asked}': "
                "unset it, or name devices that `nvidia-smi -L` lists.",
                _device_files() and asked.strip() not in HIDES_ALL,
            ) from None
        raise CudaUnavailable(
            f"backend 'cuda': no CUDA device can be used here ({error}): `nvidia-smi` shows whether the driver sees "
            "one.",
            _device_files(),
        ) from None
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        raise CudaUnavailable(
            f"backend 'cuda' compiles its kernels with NVRTC, which cannot be loaded ({error}): pip install "
            "nvidia-cuda-nvrtc-cu12 (CUDA 12) or nvidia-cuda-nvrtc (CUDA 13), or load the cluster's CUDA module.",
            True,
        ) from None
    try:
        cupy._core.core.assemble_cupy_compiler_options(())  # looks for headers, which CuPy hands to every compilation
    except AttributeError:
        pass  # not in this CuPy: it says so when it compiles
    except RuntimeError as error:
        raise CudaUnavailable(
            f"backend 'cuda': CuPy compiles nothing without CUDA's headers ({error}): pip install "
            "nvidia-cuda-runtime-cu12 (CUDA 12) or nvidia-cuda-runtime (CUDA 13), or load the cluster's CUDA module.",
            True,
        ) from None
    reasons = [_too_old(cupy, index) for index in range(count)]
    if all(reasons):
        raise reasons[0]
    return cupy


def _too_old(cupy: Any, index: int) -> CudaUnavailable | None:
    """Why the kernels cannot be compiled for a device; None where they can."""
    digits = cupy.cuda.Device(index).compute_capability  # "90" is 9.0
    found, cuda = (int(digits[:-1]), int(digits[-1])), cupy.cuda.nvrtc.getVersion()[0]
    least = CAPABILITY[min(max(cuda, 12), 13)]
    if found >= least:
        return None
    return CudaUnavailable(
        f"backend 'cuda': GPU {index} has compute capability {found[0]}.{found[1]}, but CUDA {cuda} compiles the "
        f"kernels for {least[0]}.{least[1]} and newer: choose another one with CUDA_VISIBLE_DEVICES, or the backend "
        "cpu.",
        True,
    )


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _reason(error: ImportError) -> str:
    """The cause in one line: CuPy's own message has it last, between rules."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip("= ")]
    return lines[-1] if lines else type(error).__name__


def _device_files() -> bool:
    """Whether the machine has an NVIDIA device, seen without CUDA."""
    from pathlib import Path

    return any(Path("/dev").glob("nvidia[0-9]*"))


def describe(index: int) -> Device:
    """Name, UUID, memory and versions of a visible device, this process's own from now on. Raises CudaUnavailable."""
    cupy = load_cupy()
    if too_old := _too_old(cupy, index):
        raise too_old
    device = cupy.cuda.Device(index)
    device.use()  # to go back to device 0 would give every rank a context there, and a context takes memory
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(index)
    raw = properties.get("uuid")
    # CuPy cuts it at a zero byte, which one UUID in 16 holds: then the bus names the device
    if isinstance(raw, bytes) and len(raw) >= 16:
        text = raw[:16].hex()
        uuid = "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    else:
        uuid = "PCI " + runtime.deviceGetPCIBusId(index)
    free, total = device.mem_info
    return Device(
        index=index,
        name=_text(properties["name"]),
        uuid=uuid,
        free_memory=free,
        total_memory=total,
        driver=runtime.driverGetVersion(),
        runtime=runtime.runtimeGetVersion(),
    )


def made_with() -> str:
    """What the bits of kernels depend on beside the potential: devices, NVRTC, and a hash of the sources."""
    cupy = load_cupy()
    runtime = cupy.cuda.runtime
    devices = sorted({_text(runtime.getDeviceProperties(k)["name"]) for k in range(runtime.getDeviceCount())})
    nvrtc = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    return f"{', '.join(devices)}, NVRTC {nvrtc}, {hashlib.sha256(cuda_source('').encode()).hexdigest()[:8]}"


def device_options(gpu_ind: int | None, mem_limit: float, local_rank: int, ranks_per_node: int) -> EvaluatorOptions:
    """Options of the cuda backend from backend.gpu_config and a rank's place on its node.

    mem_limit: MB per rank, 0 = all. gpu_ind chooses the device of a single rank only; several ranks of a node share its
    devices by turns.
    """
    single = gpu_ind is not None and gpu_ind >= 0 and ranks_per_node == 1
    return EvaluatorOptions(
        device=gpu_ind if single else None,
        local_rank=local_rank,
        ranks_per_node=ranks_per_node,
        memory_limit=int(mem_limit * 10**6),
    )


def prepare(potential: Potential, loss: LossWeights) -> None:
    """Compile the kernels of a potential for this process's device into CuPy's cache (CUPY_CACHE_DIR)."""
    _module(load_cupy(), make_shape(potential, stress=loss.stress > 0).header).get_function("sizes")


def _module(cupy: Any, header: str) -> Any:
    return cupy.RawModule(code=cuda_source(header), options=("-std=c++17",), backend="nvrtc")


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
        count, device = cupy.cuda.runtime.getDeviceCount(), options.device
        local_rank, ranks_per_node = options.local_rank, options.ranks_per_node
        if device is not None and not 0 <= device < count:
            raise PacehpcError(f"GPU {device} was asked for, but only {count} are visible (numbered from 0).")
        index = local_rank % count if device is None else device
        self.ranks_on_device = len(range(index, ranks_per_node, count)) if device is None else 1
        self.device = describe(index)
        self.structures, self.loss = structures, loss
        self.with_virials = predicts_virials(loss, structures, options)
        self.shape = make_shape(potential, stress=self.with_virials)
        self.coefficients = Coefficients(potential, self.shape)
        self._potential, self._options = potential, options
        self._elements = potential.elements
        block = options.block or BLOCK
        self._block, self._moment_block = block, min(block, MOMENT_BLOCK) if block < BLOCK else MOMENT_BLOCK
        with cupy.cuda.Device(index):
            self._stream = cupy.cuda.Stream()
            self._pool = cupy.cuda.MemoryPool()
            share = int(MEMORY_FRACTION * self.device.free_memory / self.ranks_on_device)
            self._limit = min(share, options.memory_limit) if options.memory_limit else share
            self._pool.set_limit(size=self._limit)
            properties = cupy.cuda.runtime.getDeviceProperties(index)
            self._multiprocessors = properties["multiProcessorCount"]
            self._most_blocks = BLOCKS_PER_MULTIPROCESSOR * self._multiprocessors
        with self._on_device():
            self._module = _module(cupy, self.shape.header)
            self._kernels: dict[str, Any] = {}
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
            f"peak memory {_size(self.peak_bytes)} of {_size(self._limit)} allowed, "
            f"{_count(len(self._batches))}, moments {moments}"
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
            with self._on_device():
                self._upload(parameters)
                self._run_evaluation(gradient)
                result = (self._result if gradient else self._result[:head]).get()
        else:
            result = np.zeros(head + fixed_point.LIMBS * self._columns, np.int64)
        terms = result[:n_terms].reshape(fixed_point.LIMBS, N_TERMS)
        maxima = np.append(result[n_terms : head - 1].view(np.float64), float(result[head - 1] > 0))
        if not gradient:
            return Sums(terms, maxima)
        return Sums(terms, maxima, result[head:].reshape(fixed_point.LIMBS, self._columns), self._in_parameters)

    def _run_evaluation(self, gradient: bool) -> None:
        """The kernels of an evaluation: one by one the first time, from the second on as one graph.

        Nothing but the contents of arrays changes between evaluations, so the graph stays valid. Ranges of the profiler
        and times of kernels need single launches, and so does a device or driver that cannot record.
        """
        single = self._options.profile or self._timed is not None or not self._records
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
        for batch in self._batches:
            self._first_pass(batch, targets=True)
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
        with self._on_device():
            for batch in self._batches:
                vectors = bond_vector[offsets[batch.atoms.start] : offsets[batch.atoms.stop]]
                if batch.n_slots:
                    batch.arrays["bonds"].set(batch.places.records(vectors).reshape(-1), stream=self._stream)
                self._prepare(batch)

    def predict(self, parameters: np.ndarray) -> Prediction:
        """Atomic energies, forces and virials (NaN unless the evaluator was made with virials)."""
        self._check(parameters)
        s = self.structures
        energies, forces = np.zeros(s.n_atoms), np.zeros((s.n_atoms, 3))
        virials = np.full((s.n_structures, 3, 3), np.nan)
        if not s.n_structures:
            return Prediction(energies, forces, virials)
        with self._on_device():
            self._upload(parameters)
            for batch in self._batches:
                self._first_pass(batch, targets=False)
            for batch in self._batches:
                energies[batch.atoms] = batch.arrays["atom_energies"].get()
                forces[batch.atoms] = batch.arrays["atom_forces"].get().reshape(-1, 4)[:, :3]
                if self.with_virials:
                    atoms = batch.arrays["atom_virials"].get().reshape(-1, 6)
                    starts = s.atom_offsets[batch.structures.start : batch.structures.stop] - batch.atoms.start
                    sums = np.add.reduceat(atoms, starts, axis=0)
                    virials[batch.structures] = virial_matrix(sums)
        return Prediction(energies, forces, virials)

    def stage_seconds(self, parameters: np.ndarray) -> dict[str, float]:
        """Seconds of one loss and gradient kernel by kernel, each timed by events of the device."""
        self._timed: dict[str, float] | None = {}
        try:
            self.evaluate(parameters)
            return self._timed
        finally:
            self._timed = None

    # ---- running ----

    _timed: dict[str, float] | None = None

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """This evaluator's device, stream and memory pool; waits for the stream at the end."""
        cupy = self._cupy
        with cupy.cuda.Device(self.device.index), self._stream, cupy.cuda.using_allocator(self._pool.malloc):
            yield
            self._stream.synchronize()

    def _check(self, parameters: np.ndarray) -> None:
        if np.shape(parameters) != (self.coefficients.n_parameters,):
            raise ValueError(f"{np.shape(parameters)} parameters given, {self.coefficients.n_parameters} expected")

    def _launch(self, name: str, threads: int, *arguments: Any, block: int | None = None) -> None:
        """Queue a kernel with a thread for each of `threads` items, or fewer that take several."""
        block = block or self._block_for(threads)
        grid = int(max(1, min(-(-int(threads) // block), self._most_blocks)))
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = self._kernels[name] = self._module.get_function(name)
        if self._options.profile:
            self._cupy.cuda.nvtx.RangePush(name)
        if self._timed is None:
            kernel((grid,), (block,), arguments)
        else:
            begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
            begin.record(self._stream)
            kernel((grid,), (block,), arguments)
            end.record(self._stream)
            end.synchronize()
            seconds = self._cupy.cuda.get_elapsed_time(begin, end) / 1000
            self._timed[name] = self._timed.get(name, 0.0) + seconds
        if self._options.profile:
            self._cupy.cuda.nvtx.RangePop()

    def _block_for(self, threads: int) -> int:
        """Threads of a block: fewer where there is so little to do that multiprocessors would have none."""
        block = self._block
        while block > LANES and threads <= block // 2 * self._multiprocessors:
            block //= 2
        return block

    def _tiles(self, batch: _Batch, *names: str) -> None:
        for name in names:
            self._launch(name, batch.n_tiles * LANES, batch.problem, batch.work)

    def _moments(self, batch: _Batch, name: str) -> None:
        block = self._moment_block
        self._launch(name, batch.n_tiles * block, batch.problem, batch.work, block=block)

    def _first_pass(self, batch: _Batch, targets: bool) -> None:
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

    def _second_pass(self, batch: _Batch) -> None:
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

    # ---- what stays on the device ----

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
        values = np.ascontiguousarray(array).reshape(-1)
        result = self._cupy.empty(values.size, values.dtype)
        result.set(values)  # cupy.asarray would keep pinned host memory of the same size
        return result

    def _build_tables(self) -> None:
        shape, potential, c = self.shape, self._potential, self.coefficients
        n, nd = len(potential.elements), shape.n_densities
        # coefficients, and the columns of rows of gradients: functions of every element, then radial, then first
        sizes = [part.size for part in (*c.functions, *c.radial, *c.first)]
        self._columns = int(np.sum(sizes))
        starts = (np.cumsum(sizes) - sizes).reshape(3, n).T
        self._coefficients = self._cupy.empty(self._columns, np.float64)
        addresses = self._coefficients.data.ptr + 8 * starts
        places = np.arange(self._columns)  # where the sums by each coefficient stand
        elements, pairs = np.zeros(n, record("ElementTable")), np.zeros(n * n, record("PairTable"))
        bonds, rights = np.zeros(n * n, record("BondType")), np.zeros(n, record("RightTable"))
        self._kept: list[Any] = []

        def keep(array: np.ndarray) -> int:
            self._kept.append(self._to_device(array if array.size else np.zeros(1, array.dtype)))
            return self._kept[-1].data.ptr

        for e, (element, table) in enumerate(zip(potential.elements, shape.elements, strict=True)):
            graph, row, embedding = table.graph, elements[e], potential.embeddings[element]
            groups = graph.groups[np.argsort(graph.groups[:, 1], kind="stable")]  # alike ones share right nodes
            row["nodes"], row["groups"], row["right"] = keep(graph.nodes), keep(groups), keep(graph.right)
            nodes, entries, others = right_nodes(groups, graph.right, graph.n_components)
            rows = starts[e, 0] + np.arange(len(entries) * nd).reshape(-1, nd)  # a row has them by right nodes
            places[starts[e, 0] + nd * entries[:, 1, None] + np.arange(nd)] = rows
            rights[e] = keep(nodes), keep(entries), keep(others), len(nodes), len(others)
            row["c"], row["c_radial"], row["c_first"] = addresses[e]
            powers = np.tile([0.0, 1.0], (nd + 1, 1))
            powers[: embedding.ndensity] = np.reshape(embedding.fs_parameters, (-1, 2))[: embedding.ndensity]
            powers[nd] = embedding.rho_core_cut, embedding.drho_core_cut
            row["embedding"], row["embedding_kind"] = keep(powers), EmbeddingKind[embedding.npot]
            row["n_nodes"], row["n_groups"], row["n_functions"] = len(graph.nodes), len(graph.groups), len(graph.right)
            row["n_components"], row["n_leaves"] = graph.n_components, graph.n_leaves
            row["n_moments"], row["n_y"] = table.n_moments, nd * int(graph.groups[:, 1].sum())
            for mu, other in enumerate(potential.elements):
                pair = pairs[e * n + mu]
                pair["bond_class"] = shape.bond_class[e, mu]
                pair["leaf_offset"], pair["moment_offset"] = graph.leaf_offsets[mu], table.moment_offsets[mu]
                pair["radial_offset"], pair["first_offset"] = table.radial_offsets[mu], table.first_offsets[mu]
                for name, value in bond_type_record(potential.bonds[element, other], (element, other)).items():
                    bonds[e * n + mu][name] = value
        problem = self._problem = np.zeros(1, record("Problem"))
        problem["n_elements"] = n
        for name, table in (("elements", elements), ("rights", rights), ("pairs", pairs), ("bond_types", bonds)):
            problem[name] = keep(table.view(np.uint8))
        problem["max_components"] = max(t.graph.n_components for t in shape.elements)
        problem["max_moments"] = max(t.n_moments for t in shape.elements)
        problem["max_y"] = elements["n_y"].max()
        problem["kappa"], problem["stress_weight"] = self.loss.kappa, self.loss.stress
        problem["radial_fixed"] = not self._options.radial_gradient

        work = self._work = np.zeros(1, record("Work"))
        work["element_columns"] = keep(starts)
        work["columns"] = self._columns
        # without this evaluator, whose memory would live on with the sums
        self._in_parameters = partial(self.coefficients.gradient_of, places)

    def _build_structures(self, batch_bytes: int | None) -> None:
        """Batches and all arrays; when they do not fit, work arrays of half the size are tried."""
        s = self.structures
        self._batches, self._n_batches, self.moments_stored, self.batch_bytes = [], 0, False, 0
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
                log.warning("%s: out of memory with %s; trying more", self.device.title, _count(self._n_batches))
            elif self.moments_stored:
                self.moments_stored, target = False, min(whole, self._limit)
                log.warning("%s: out of memory; moments are made for each batch from now on", self.device.title)
            else:
                raise PacehpcError(
                    f"{self.device.title}: not even one structure at a time fits into {_size(self._limit)}: use "
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
        self._batches = []
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
        self._batches = made
        for batch in made:
            self._prepare(batch)

    def _make_batch(self, cut: slice) -> _Batch:
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
        arrays: dict[str, Any] = {}

        def put(name: str, array: np.ndarray) -> None:
            arrays[name] = self._to_device(array if array.size else np.zeros(1, array.dtype))

        used = np.flatnonzero(layout.bond_place >= 0)
        places = _Places(used, *np.divmod(layout.bond_place[used], LANES), layout.n_slots)
        if s.energy is None:
            centre = np.repeat(s.species, np.diff(s.bond_offsets))[used]
            rcut = np.array([[self._potential.bonds[a, b].rcut for b in self._elements] for a in self._elements])
            places.squared_rcut = rcut[centre, s.species[s.bond_atom[used]]] ** 2
        put("bonds", places.records(s.bond_vector))
        put("bond_atoms", layout.bond_atoms)
        for name in ("tile_element", "tile_atoms", "tile_count", "tile_slots", "tile_slot_offset"):
            put(name, getattr(layout, name))
        put("atom_offsets", np.asarray(s.atom_offsets, np.int64))
        put("volumes", np.asarray(s.volumes, np.float64))
        if s.energy is not None:
            rows = np.zeros((s.n_atoms, 4))
            rows[:, :3] = s.forces
            stress = np.full((s.n_structures, 6), np.nan) if s.stress is None else np.array(s.stress, np.float64)
            stress[(s.volumes <= 0) | ~np.isfinite(stress).all(axis=1)] = np.nan
            low = np.ones(s.n_structures) if s.low is None else np.asarray(s.low, np.float64)
            for name, array in (("energy", s.energy), ("w_energy", s.w_energy), ("w_forces", s.w_forces)):
                put(name, np.asarray(array, np.float64))
            put("forces", rows)
            put("stress", stress)
            put("low", low)
        ends = s.bond_atom[used]
        order = np.argsort(ends, kind="stable")
        put("incoming", layout.bond_place[used][order].astype(np.int32))
        put("incoming_offset", np.searchsorted(ends[order], np.arange(s.n_atoms + 1)).astype(np.int64))
        items, piece_rows = row_items(layout, self._most_rows)
        put("row_items", items)
        put("piece_rows", piece_rows)
        put("piece_structures", s.shards)
        work["n_pieces"], work["n_items"] = len(piece_rows) - 1, len(items)

        def make(name: str, size: int) -> None:
            arrays[name] = cupy.zeros(max(1, size), np.float64)

        core, strained = s.n_atoms if shape.core else 0, s.n_atoms if self.with_virials else 0
        make("core_slope", layout.n_slots * LANES if shape.core else 0)
        for name, size in (
            ("core_cutoff", core), ("core_energy", core), ("core_forces", 4 * core), ("core_virials", 6 * core),
            ("atom_energies", s.n_atoms), ("atom_forces", 4 * s.n_atoms), ("atom_virials", 6 * strained),
            ("structure_energies", s.n_structures), ("residuals", 4 * s.n_atoms), ("strain_residuals", 6 * strained),
        ):  # fmt: skip
            make(name, size)
        if self.moments_stored:
            make("G", layout.n_tiles * int(problem["max_moments"][0]) * LANES)
        for name, array in arrays.items():
            for target in (problem, work):
                if name in target.dtype.names:
                    target[name] = array.data.ptr
        problem["n_atoms"], problem["n_structures"], problem["n_tiles"] = s.n_atoms, s.n_structures, layout.n_tiles
        work["result"] = self._result.data.ptr
        offsets = self.structures.atom_offsets
        atoms = slice(int(offsets[cut.start]), int(offsets[cut.stop]))
        batch = _Batch(cut, atoms, layout.n_tiles, layout.n_slots, int(piece_rows[-1]), problem, work, arrays)
        if s.energy is None:
            batch.places = places
        return batch

    def _allocate_work(self, made: list[_Batch]) -> None:
        """Work arrays that all batches share, as large as the largest needs."""
        P = self._problem[0]
        tiles, slots = max(b.n_tiles for b in made), max(b.n_slots for b in made)
        nodes, y, moments = int(P["max_components"]), int(P["max_y"]), int(P["max_moments"])
        sizes = {"Phi": nodes, "Phi_bar": nodes, "y": y, "w": moments, "state": state_size(self.shape)}
        if self.structures.energy is not None:
            sizes |= {"dPhi": nodes, "dPhi_bar": nodes, "dy": y}
        if not self.moments_stored:
            sizes["G"] = moments
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

    def _prepare(self, batch: _Batch) -> None:
        """Once per set of positions: bond records, core repulsion, stored moments."""
        self._tiles(batch, "make_bond_records")
        if self.shape.core:
            problem = batch.problem.copy()
            problem["core_forces"] = self._workspace["bond_rows"].data.ptr
            self._launch("make_core_repulsion", batch.n_tiles * LANES, problem, batch.work)
            self._tiles(batch, "gather_core_forces")
        if self.moments_stored:
            self._moments(batch, "make_batch_moments")


@dataclass
class _Places:
    """Where the bonds of a batch stand in its records."""

    used: np.ndarray
    """(n,): the bonds that kernels read."""
    slot: np.ndarray
    lane: np.ndarray
    n_slots: int
    squared_rcut: np.ndarray | None = None
    """(n,): where bonds may be longer than their rcut."""

    def records(self, bond_vector: np.ndarray) -> np.ndarray:
        """(n_slots, BOND_RECORD, LANES) with the vectors of the batch's bonds, (n_bonds, 3), in the first rows."""
        vectors = bond_vector[self.used]
        if self.squared_rcut is not None:
            vectors *= (np.einsum("bd,bd->b", vectors, vectors) < self.squared_rcut)[:, None]
        records = np.zeros((self.n_slots, BOND_RECORD, LANES))
        for axis in range(3):
            records[self.slot, axis, self.lane] = vectors[:, axis]
        return records


@dataclass
class _Batch:
    """A run of structures that goes through both passes together; records are passed to kernels by value."""

    structures: slice
    atoms: slice
    n_tiles: int
    n_slots: int
    n_rows: int
    problem: np.ndarray
    work: np.ndarray
    arrays: dict[str, Any]
    places: _Places | None = None
    """Only without targets, where `update` brings new vectors."""


def state_size(shape: Shape) -> int:
    """Numbers that an atom hands from stage to stage (enum State of the kernels)."""
    return 6 * shape.n_densities + 1


def work_per_atom(shape: Shape, moments_stored: bool, fitting: bool) -> int:
    """Bytes of a batch's work arrays per atom; without targets (fitting) there is no second pass."""
    nodes = max(t.graph.n_components for t in shape.elements)
    y = max(shape.n_densities * int(t.graph.groups[:, 1].sum()) for t in shape.elements)
    moments = max(t.n_moments for t in shape.elements) * (1 if moments_stored else 2)
    passes = 2 if fitting else 1
    return 8 * (2 * passes * nodes + passes * y + moments + state_size(shape))


def row_bytes(shape: Shape) -> int:
    """One row of gradient sums."""
    return 8 * sum(len(t.positions) * shape.n_densities + t.n_radial + t.n_first for t in shape.elements)


def most_rows(shape: Shape) -> int:
    """Rows of gradient sums that a virtual shard may have."""
    return max(1, ROW_BYTES // max(1, row_bytes(shape)))


def row_memory(shape: Shape, shards: np.ndarray) -> int:
    """Bytes of all rows of gradient sums; shards: atoms of each."""
    return int(np.minimum(-(-shards // LANES), most_rows(shape)).sum()) * row_bytes(shape)


def memory_needs(
    shape: Shape, shards: np.ndarray, n_bonds: int, moments_stored: bool, fitting: bool = True
) -> tuple[int, int, int]:
    """Bytes on the device of what stays there, of stored moments, and of the work arrays if all is one batch.

    shards: atoms of each virtual shard; n_bonds: of all atoms.
    """
    n_atoms = int(shards.sum())
    moments = 8 * max(t.n_moments for t in shape.elements) * n_atoms if moments_stored else 0
    work = work_per_atom(shape, moments_stored, fitting) * n_atoms + WORK_BOND * n_bonds
    rows = row_memory(shape, shards) if fitting else 0
    return RESIDENT_BOND * n_bonds + RESIDENT_ATOM * n_atoms, moments, int(PADDING * (work + rows)) + 2**16


def piece_starts(structures: Structures) -> np.ndarray:
    """First structures of about equal runs, for data without virtual shards."""
    n = int(np.clip(structures.n_atoms // PIECE_ATOMS, 1, min(PIECES, structures.n_structures)))
    ends = np.arange(n) * structures.n_atoms // n
    return np.unique(np.searchsorted(structures.atom_offsets[:-1], ends))


def batches(structures: Structures, starts: np.ndarray, per_atom: int, per_bond: int, limit: int) -> list[slice]:
    """Consecutive structures whose work arrays take up to `limit` bytes, at least one structure each.

    starts: first structure of each virtual shard; only shards that take more than `limit` alone are cut.
    """
    bonds = np.diff(structures.bond_offsets[structures.atom_offsets])
    costs = np.r_[0, np.cumsum(structures.atoms_per_structure * per_atom + bonds * per_bond)]
    ends = np.append(starts[1:], structures.n_structures)
    units: list[tuple[int, int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        whole = costs[end] - costs[start] <= limit
        units += [(start, end)] if whole else [(s, s + 1) for s in range(start, end)]
    cuts, first = [], 0
    for start, end in units:
        if start > first and costs[end] - costs[first] > limit:
            cuts.append(slice(first, start))
            first = start
    cuts.append(slice(first, structures.n_structures))
    return cuts


def row_items(layout: Layout, most_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of gradient sums of each piece: what a warp adds to one row, and where the rows of pieces start.

    Returns int64 (n_items, 5), [element, row, first tile, end, step], and (n_pieces + 1,). They depend on the piece
    alone, whatever is evaluated beside it.
    """
    items, starts = [], [0]
    for first, last in layout.batches[:, :2].tolist():
        elements, counts = np.unique(layout.tile_element[first:last], return_counts=True)
        ends = first + np.cumsum(counts)
        steps = np.minimum(counts, most_rows)
        for element, count, end, step in zip(*(a.tolist() for a in (elements, counts, ends, steps)), strict=True):
            items += [[element, starts[-1] + k, end - count + k, end, step] for k in range(step)]
        starts.append(starts[-1] + int(steps.max(initial=0)))
    return np.array(items, np.int64).reshape(-1, 5), np.array(starts, np.int64)


def _count(batches: int) -> str:
    return "1 batch" if batches == 1 else f"{batches} batches"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
