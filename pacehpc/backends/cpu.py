"""The cpu backend: kernels compiled by the host's compiler for the potential at hand."""

from __future__ import annotations

import ctypes
import re
from functools import cache, cached_property, partial

import numpy as np

from pacehpc import fixed_point, metrics
from pacehpc.backends.bondwise import angular_size, row_size, tile_rows
from pacehpc.backends.compile import compile_library, kernel_folder, lanes, load_library
from pacehpc.backends.graph import right_nodes
from pacehpc.backends.interface import EvaluatorOptions, LossWeights, Prediction, Sums, predicts_virials
from pacehpc.backends.layout import RUN, Layout, make_layout
from pacehpc.backends.memory import keeps_moments
from pacehpc.backends.shape import Coefficients, bond_type_record, make_shape
from pacehpc.errors import PacehpcError
from pacehpc.machine import kernel_threads
from pacehpc.physics.parameters import EmbeddingKind
from pacehpc.potential import Potential
from pacehpc.structures import Structures, virial_matrix

BOND_RECORD = 8
STAGES = (
    "atomic base", "nodes", "densities", "embedding", "density adjoint", "node adjoint", "moment adjoint", "forces",
    "residuals", "tangent moments", "tangent base", "node tangents", "density tangents", "density gradient",
    "node gradient", "radial gradient", "shard sums",
)  # fmt: skip


def prepare(potential: Potential, loss: LossWeights) -> float:
    """Compile the kernels of a potential into the cache; returns the seconds it took, 0 if they were there."""
    return compile_library(make_shape(potential, stress=loss.stress > 0).header)[1]


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
        self.shape = make_shape(potential, stress=self.with_virials)
        self.coefficients = Coefficients(potential, self.shape)
        self._library = load_library(self.shape.header)
        self._threads = options.threads or kernel_threads()
        self._problem = _Records.problem()
        self._problem.radial_fixed = not options.radial_gradient
        self._kept: dict[str, np.ndarray] = {}  # arrays that the kernels point to
        self._build_tables(potential)
        self._build_structures(potential, options)
        if structures.energy is None:
            self.update(structures.bond_vector)
        else:
            self._place_once(structures.bond_vector)
            self._prepare()  # its moments take memory that placing has given back

    @property
    def report(self) -> str:
        """Empty: memory is predicted and logged before an evaluator is made."""
        return ""

    def update(self, bond_vector: np.ndarray) -> None:
        """New vectors of the same bonds, (n_bonds, 3) in Å; those that are not shorter than their rcut are left out."""
        source, squared_rcut = self._bond_table
        if len(bond_vector):
            vectors = np.take(np.ascontiguousarray(bond_vector.T), source, axis=1)
            vectors *= np.einsum("ksw,ksw->sw", vectors, vectors) < squared_rcut
            self._kept["bonds"][:, :3] = vectors.transpose(1, 0, 2)
        self._prepare()

    def _place_once(self, bond_vector: np.ndarray) -> None:
        """Bonds of a fit, whose structures stay as they are: without a table, in runs that need little memory."""
        s, n, width, place = self.structures, len(self.shape.elements), lanes(), self.layout.bond_place
        rcut = np.array([record.rcut for record in self._bond_types]).reshape(n, n)
        bonds = self._kept["bonds"]
        bonds[:, :3] = 0
        for first in range(0, s.n_bonds, RUN):
            used = first + np.flatnonzero(place[first : first + RUN] >= 0)
            centre = s.species[np.searchsorted(s.bond_offsets, used, side="right") - 1]
            vectors = bond_vector[used]
            seen = np.einsum("bd,bd->b", vectors, vectors) < rcut[centre, s.species[s.bond_atom[used]]] ** 2
            vectors *= seen[:, None]
            slot, lane = np.divmod(place[used], width)
            first_axis = slot * (BOND_RECORD * width) + lane
            for axis in range(3):
                bonds.reshape(-1)[first_axis + axis * width] = vectors[:, axis]
        self.layout.bond_place = np.zeros(0, np.int64)  # not needed again

    def _prepare(self) -> None:
        self._kept["core_forces"][:] = 0  # the kernels add to them
        self._library.prepare(ctypes.byref(self._problem))

    @cached_property
    def _bond_table(self) -> tuple[np.ndarray, np.ndarray]:
        """Bond of each slot and lane, and its rcut²; both (n_slots, lanes), rcut² = 0 in unused lanes."""
        s, n, place = self.structures, len(self.shape.elements), self.layout.bond_place
        rcut = np.array([record.rcut for record in self._bond_types]).reshape(n, n)
        used = np.flatnonzero(place >= 0)
        centre = np.repeat(s.species, np.diff(s.bond_offsets))[used]
        source = np.zeros((self.layout.n_slots, lanes()), np.intp)
        squared_rcut = np.zeros(source.shape)
        source.reshape(-1)[place[used]] = used
        squared_rcut.reshape(-1)[place[used]] = rcut[centre, s.species[s.bond_atom[used]]] ** 2
        return source, squared_rcut

    def evaluate(self, parameters: np.ndarray, gradient: bool = True) -> Sums:
        """The data part of the loss, its gradient, and the sums behind the metrics."""
        self._run(parameters, gradient)
        virials = self._structure_virials() if self.loss.stress > 0 else None
        terms, maxima = self._errors.sums(self._structure_energies, self._forces[:, :3], virials)
        if not gradient:
            return Sums(terms, maxima)
        maxima[-1] = max(maxima[-1], float(self._too_large.any()))
        return Sums(terms, maxima, self._gradient_sums.sum(axis=0), self._in_parameters)

    def predict(self, parameters: np.ndarray) -> Prediction:
        """Atomic energies, forces and virials (NaN unless the evaluator was made with virials)."""
        self._run(parameters, gradient=False)
        virials = (
            self._structure_virials() if self.with_virials else np.full((self.structures.n_structures, 3, 3), np.nan)
        )
        return Prediction(self._energies.copy(), self._forces[:, :3].copy(), virials)

    def stage_seconds(self, parameters: np.ndarray) -> dict[str, float]:
        """Seconds of one evaluation by stage, the largest over threads."""
        seconds = np.zeros((self._threads, len(STAGES)))
        self._problem.stage_seconds = seconds.ctypes.data
        try:
            self._run(parameters, gradient=True)
        finally:
            self._problem.stage_seconds = None
        return dict(zip(STAGES, seconds.max(axis=0).tolist(), strict=True))

    def _run(self, parameters: np.ndarray, gradient: bool) -> None:
        parameters = np.asarray(parameters, float)
        if parameters.shape != (self.coefficients.n_parameters,):
            raise ValueError(f"{parameters.shape} parameters given, {self.coefficients.n_parameters} expected")
        self.coefficients.set(parameters)
        if gradient:
            self._gradient_sums[:] = 0
            self._too_large[:] = 0
        if self.structures.n_atoms:
            self._library.evaluate(ctypes.byref(self._problem), int(gradient))

    def _structure_virials(self) -> np.ndarray:
        s = self.structures
        sums = np.add.reduceat(self._virials, s.atom_offsets[:-1], axis=0) if s.n_atoms else np.zeros((0, 6))
        return virial_matrix(sums)

    def _keep(self, name: str, array: np.ndarray) -> int:
        """Address of an array that stays alive with the evaluator."""
        self._kept[name] = array
        return array.ctypes.data

    def _build_tables(self, potential: Potential) -> None:
        P, shape, n = self._problem, self.shape, len(potential.elements)
        element_type, pair_type, bond_type = _Records.element(), _Records.pair(), _Records.bond()
        self._elements = (element_type * n)()
        self._rights = (_Records.right() * n)()
        function_order = []  # functions of each element in the order of their gradient
        self._pairs = (pair_type * (n * n))()
        self._bond_types = (bond_type * (n * n))()
        for e, (element, table) in enumerate(zip(potential.elements, shape.elements, strict=True)):
            graph, record, embedding = table.graph, self._elements[e], potential.embeddings[element]
            record.nodes = self._keep(f"nodes {e}", np.ascontiguousarray(graph.nodes))
            record.groups = self._keep(f"groups {e}", np.ascontiguousarray(graph.groups))
            record.right = self._keep(f"right {e}", graph.right)
            nodes, entries, others = right_nodes(graph.groups, graph.right, graph.n_components)
            function_order.append(entries[:, 1])
            turned = self._rights[e]
            turned.nodes, turned.entries = self._keep(f"right nodes {e}", nodes), self._keep(f"entries {e}", entries)
            turned.others = self._keep(f"other components {e}", others)
            turned.n_nodes, turned.n_others = len(nodes), len(others)
            record.c = self.coefficients.functions[e].ctypes.data
            record.c_radial = self.coefficients.radial[e].ctypes.data
            record.c_first = self.coefficients.first[e].ctypes.data
            powers = np.tile([0.0, 1.0], (shape.n_densities + 1, 1))
            powers[: embedding.ndensity] = np.reshape(embedding.fs_parameters, (-1, 2))[: embedding.ndensity]
            powers[shape.n_densities] = embedding.rho_core_cut, embedding.drho_core_cut
            record.embedding = self._keep(f"embedding {e}", powers)
            record.embedding_kind = EmbeddingKind[embedding.npot]
            record.n_nodes, record.n_groups, record.n_functions = len(graph.nodes), len(graph.groups), len(graph.right)
            record.n_components, record.n_leaves = graph.n_components, graph.n_leaves
            record.n_moments = table.n_moments
            record.n_y = shape.n_densities * int(graph.groups[:, 1].sum())
            for mu, other in enumerate(potential.elements):
                pair = self._pairs[e * n + mu]
                pair.bond_class = shape.bond_class[e, mu]
                pair.leaf_offset, pair.moment_offset = graph.leaf_offsets[mu], table.moment_offsets[mu]
                pair.radial_offset, pair.first_offset = table.radial_offsets[mu], table.first_offsets[mu]
                for name, value in bond_type_record(potential.bonds[element, other], (element, other)).items():
                    setattr(self._bond_types[e * n + mu], name, value)
        P.n_elements = n
        P.elements = ctypes.addressof(self._elements)
        P.rights = ctypes.addressof(self._rights)
        P.pairs = ctypes.addressof(self._pairs)
        P.bond_types = ctypes.addressof(self._bond_types)
        P.max_components = max(t.graph.n_components for t in shape.elements)
        P.max_moments = max(t.n_moments for t in shape.elements)
        P.max_y = max(r.n_y for r in self._elements)
        P.n_radial_gradient = max(t.n_radial for t in shape.elements)
        P.n_first_gradient = max(t.n_first for t in shape.elements)
        P.max_functions = max(len(t.positions) for t in shape.elements)
        P.n_gradient = n * (P.max_functions * shape.n_densities + P.n_radial_gradient + P.n_first_gradient)
        # where the sums of each element, padded to those of the largest, stand: functions, radial, first
        rows = np.arange(P.n_gradient).reshape(n, -1)
        parts = np.split(rows, np.cumsum([P.max_functions * shape.n_densities, P.n_radial_gradient]), axis=1)
        sizes = [(len(t.positions) * shape.n_densities, t.n_radial, t.n_first) for t in shape.elements]
        places = [row[: size[k]] for k, part in enumerate(parts) for row, size in zip(part, sizes, strict=True)]
        for e, order in enumerate(function_order):
            places[e] = places[e].reshape(-1, shape.n_densities)[np.argsort(order)].ravel()
        # without this evaluator, which would live on with its sums
        self._in_parameters = partial(self.coefficients.gradient_of, np.concatenate(places))

    def _build_structures(self, potential: Potential, options: EvaluatorOptions) -> None:
        P, s, shape, width = self._problem, self.structures, self.shape, lanes()
        n, nd = len(potential.elements), shape.n_densities
        needed = np.ones((n, n), bool) if shape.core else shape.bond_class >= 0
        # per tile: nodes, their adjoints, y, embedding derivatives, and moments if they are not stored
        store_moments = keeps_moments(s) if options.store_moments is None else options.store_moments
        tile_lanes = 2 * P.max_components + P.max_y + 2 * nd
        batch_atoms = options.batch_atoms
        if batch_atoms is None:
            batch_atoms = default_batch_atoms((tile_lanes + P.max_moments) * 8, n)
        tile_lanes += 0 if store_moments else P.max_moments
        layout = self.layout = make_layout(s, n, width, batch_atoms, needed)

        bonds = aligned(layout.n_slots, BOND_RECORD, width)
        P.bonds = self._keep("bonds", bonds)
        P.bond_atoms = self._keep("bond_atoms", layout.bond_atoms)
        P.core_slope = self._keep("core_slope", aligned(layout.n_slots if shape.core else 1, width))
        P.n_atoms, P.n_structures = s.n_atoms, s.n_structures
        P.n_tiles, P.n_batches = layout.n_tiles, len(layout.batches)
        P.tile_element = self._keep("tile_element", layout.tile_element)
        P.tile_atoms = self._keep("tile_atoms", layout.tile_atoms)
        P.tile_count = self._keep("tile_count", layout.tile_count)
        P.tile_slots = self._keep("tile_slots", layout.tile_slots)
        P.tile_slot_offset = self._keep("tile_slot_offset", layout.tile_slot_offset)
        P.batches = self._keep("batches", layout.batches)
        P.atom_offsets = self._keep("atom_offsets", np.ascontiguousarray(s.atom_offsets, np.int64))
        P.volumes = self._keep("volumes", np.ascontiguousarray(s.volumes, float))
        if s.energy is not None:
            self._build_targets(P, s)
        P.kappa, P.stress_weight = self.loss.kappa, self.loss.stress

        rows = tile_rows(shape, layout, options.bondwise)
        P.tile_rows = self._keep("tile_rows", rows)
        P.row_size, P.angular_size = row_size(shape), angular_size(shape)
        slots = layout.tile_slots.sum(axis=1, dtype=np.int64)[rows >= 0]
        P.most_angular, P.most_rows = int(slots.max(initial=0)), int((rows[rows >= 0] + slots).max(initial=0))
        if store_moments:
            sizes = np.array([t.n_moments for t in shape.elements], np.int64)[layout.tile_element] * (rows < 0)
            starts = np.r_[0, np.cumsum(sizes)]
            P.moment_start = self._keep("moment_start", starts[:-1].copy())
            P.moments = self._keep("moments", aligned(int(starts[-1]), width))
        for name, per_atom in (("core_cutoff", 1), ("core_energy", 1), ("core_forces", 4), ("core_virials", 6)):
            setattr(P, name, self._keep(name, aligned(s.n_atoms if shape.core else 1, per_atom)))
            self._kept[name][:] = 0
        self._energies = aligned(s.n_atoms)
        self._forces = aligned(s.n_atoms, 4)
        self._forces[:] = 0
        self._virials = aligned(s.n_atoms if self.with_virials else 1, 6)
        self._structure_energies = aligned(s.n_structures)
        P.atom_energies = self._energies.ctypes.data
        P.atom_forces = self._forces.ctypes.data
        P.atom_virials = self._virials.ctypes.data
        P.structure_energies = self._structure_energies.ctypes.data
        P.residuals = self._keep("residuals", aligned(s.n_atoms, 4))
        P.strain_residuals = self._keep("strain_residuals", aligned(s.n_atoms if self.with_virials else 1, 6))

        n_shards = len(layout.shard_batches) - 1
        threads = self._threads = max(1, min(self._threads, n_shards))
        P.n_threads, P.n_shards = threads, n_shards
        P.shard_batches = self._keep("shard_batches", layout.shard_batches)
        work = np.r_[0, np.cumsum(_cost(layout))][layout.shard_batches]
        thread_shards = np.abs(work[:, None] - np.linspace(0, work[-1], threads + 1)).argmin(axis=0)
        thread_shards[0], thread_shards[-1] = 0, n_shards
        P.thread_shards = self._keep("thread_shards", thread_shards)
        most_tiles = int(np.diff(layout.batches[:, :2], axis=1).max(initial=1)) if s.energy is not None else 1
        scratch = 2 * P.max_moments + 2 * P.max_components + P.max_y
        scratch += P.most_angular * P.angular_size + P.most_rows * P.row_size
        P.tile_workspace = tile_lanes * width
        P.workspace_size = (scratch + most_tiles * tile_lanes) * width
        P.workspace = self._keep("workspace", aligned(threads, P.workspace_size))
        function_size = P.max_functions * nd + width
        P.gradient_functions = self._keep("gradient_functions", aligned(threads, n, function_size))
        P.gradient_radial = self._keep("gradient_radial", aligned(threads, n, P.n_radial_gradient, width))
        P.gradient_first = self._keep("gradient_first", aligned(threads, n, P.n_first_gradient, width))
        self._gradient_sums = np.zeros((threads, fixed_point.LIMBS, P.n_gradient), np.int64)
        P.gradient_sums = self._gradient_sums.ctypes.data
        self._too_large = np.zeros(threads, np.int64)
        P.too_large = self._too_large.ctypes.data

    def _build_targets(self, P: ctypes.Structure, s: Structures) -> None:
        self._errors = metrics.Errors(s)
        P.energy = self._keep("energy", np.ascontiguousarray(s.energy, float))
        P.w_energy = self._keep("w_energy", np.ascontiguousarray(s.w_energy, float))
        forces = aligned(s.n_atoms, 4)
        forces[:, :3], forces[:, 3] = s.forces, 0
        P.forces = self._keep("forces", forces)
        P.w_forces = self._keep("w_forces", np.ascontiguousarray(s.w_forces, float))
        stress = np.full((s.n_structures, 6), np.nan) if s.stress is None else np.array(s.stress, float)
        stress[s.volumes <= 0] = np.nan
        P.stress = self._keep("stress", np.ascontiguousarray(stress))


def default_batch_atoms(bytes_per_atom: int, n_elements: int) -> int:
    """Atoms in a batch: few enough that its nodes stay in a core's share of the last cache, enough to fill tiles."""
    fitting = 4 * 2**20 // bytes_per_atom
    return int(np.clip(fitting, 64, 256 if n_elements < 3 else 768))


def aligned(*shape: int) -> np.ndarray:
    """float64 array that starts on a cache line (64 bytes), not initialised."""
    size = int(np.prod(shape))
    raw = np.empty(size + 8)
    start = -raw.ctypes.data % 64 // 8
    return raw[start : start + size].reshape(shape)


def _cost(layout: Layout) -> np.ndarray:
    """Work of each batch in units of a slot."""
    slots = np.r_[0, np.cumsum(layout.tile_slots.sum(axis=1, dtype=np.int64))]
    first, last = layout.batches[:, 0], layout.batches[:, 1]
    return slots[last] - slots[first] + 20 * (last - first)


_KINDS = {"index_t": ctypes.c_int64, "int64_t": ctypes.c_int64, "int": ctypes.c_int32, "double": ctypes.c_double}


class _Records:
    """ctypes twins of the structs in kernels/problem.h, read from that file so that they cannot differ."""

    @staticmethod
    @cache
    def _make(name: str) -> type[ctypes.Structure]:
        text = re.sub(r"//[^\n]*", "", (kernel_folder() / "problem.h").read_text())
        match = re.search(rf"struct {name} \{{(.*?)\}};", text, re.S)
        if match is None:
            raise PacehpcError("kernels/problem.h is damaged: install pacehpc again.")
        fields = []
        for declaration in filter(None, (d.strip() for d in match[1].split(";"))):
            kind, names = re.fullmatch(r"((?:const\s+)?\w+\*?)\s+(.*)", declaration, re.S).groups()
            ctype = ctypes.c_void_p if kind.endswith("*") else _KINDS[kind]
            fields += [(field.strip(), ctype) for field in names.split(",")]
        return type(name, (ctypes.Structure,), {"_fields_": fields})

    @classmethod
    def problem(cls) -> ctypes.Structure:
        return cls._make("Problem")()

    @classmethod
    def element(cls) -> type[ctypes.Structure]:
        return cls._make("ElementTable")

    @classmethod
    def right(cls) -> type[ctypes.Structure]:
        return cls._make("RightTable")

    @classmethod
    def pair(cls) -> type[ctypes.Structure]:
        return cls._make("PairTable")

    @classmethod
    def bond(cls) -> type[ctypes.Structure]:
        return cls._make("BondType")
