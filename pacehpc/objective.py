"""Loss, gradient and metrics of a potential over all ranks.

    L = (1-κ) Σ_s w_s h(ΔE_s/N_s) + κ Σ_i w_i h(|ΔF_i|) + λ Σ_s w_s Σ_ab [(V_s/N_s) Δσ_ab]²
        + L1 Σ|c_B| + L2 Σ c_B² + w0 I_0 + w1 I_1 + w2 I_2 + w_orth O

with h(r) = r², or Huber's loss (`metrics.huber`).

Every rank evaluates its own structures. One evaluation is one Bcast of [command, x] from the root and one Allreduce of
[maxima and seconds of each rank | stop requests | terms, gradient] as integers (see fixed_point), so that the sums
have the same bits on any number of ranks. Regularisation is added afterwards.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pacehpc import backends, fixed_point, metrics
from pacehpc.backends.interface import EvaluatorOptions, LossWeights, Prediction, Sums
from pacehpc.errors import PacehpcError
from pacehpc.gram import gram
from pacehpc.parallel import Ranks
from pacehpc.regularisation import regularisation
from pacehpc.shard import shard
from pacehpc.sketch import RowPlan, Sizes, Sketcher
from pacehpc.spread_columns import SpreadColumns
from pacehpc.structures import Structures

if TYPE_CHECKING:
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

LOSS_KEYS = ("kappa", "L1_coeffs", "L2_coeffs", "w0_rad", "w1_rad", "w2_rad", "w_orth", "stress")
KINDS = ("energy", "forces")  # further keys of a loss: {"type": "square" or "huber", "delta": number}
# commands to the ranks: end, evaluations, predictions, a sketched Jacobian, products with it
STOP, GRADIENT, VALUE, TEST, PREDICT, PREDICT_TEST = range(6)
SKETCH, PRODUCTS, TIMES, TRANSPOSED_TIMES, WEIGHTED_GRAM = range(6, 11)
_ARGUMENTS = 5  # of a command
_MAX = len(metrics.MAXIMA)


class Objective:
    """value, gradient = objective(x): the loss of `potential`'s shape on `data`.

    Making one and calling it is done by all ranks together. Either every rank calls `objective(x)` (the root's x
    counts), or the root calls it and the others run `serve()` until the root calls `close()`.

    metrics: dict of the last evaluation by the names of the columns of metrics.txt.
    x: the trainable part of the potential's parameters at the start.
    """

    def __init__(
        self,
        potential: Potential,
        data: Any,
        loss: Mapping[str, Any] | None = None,
        backend: str = "auto",
        ranks: Ranks | None = None,
        trainable: np.ndarray | None = None,
        test: Any | None = None,
        stop: Callable[[], bool] | None = None,
        wait: str = "spin",
        options: EvaluatorOptions = EvaluatorOptions(),
    ) -> None:
        """Compile the kernels and lay out this rank's structures.

        Args:
            potential: its shape, and where the parameters start.
            data, test: a Dataset, which every rank holds whole, or this rank's `Shard` or `Structures`.
            loss: keys of `fit.loss`, zero (or square) where absent; kappa a number or "auto".
            backend: "auto", "cpu", "cuda" or "reference".
            ranks: that evaluate together; None: this process alone.
            trainable: bool (n_parameters,), None = all; x and the gradient hold only these.
            stop: asked on every rank in each evaluation, whether all should stop.
            wait: "spin" or "yield", how the other ranks wait for the root (see Ranks.receive).
            options: of the evaluators.

        Raises:
            PacehpcError: an unknown key of the loss, a kappa that cannot be, a backend that cannot run here.
        """
        self.ranks = ranks = Ranks() if ranks is None else ranks
        self.backend = agreed_backend(backend, ranks)
        self.potential = potential.copy()
        self._parameters = np.array(self.potential.parameters, dtype=np.float64)
        self.trainable = (
            np.ones(len(self._parameters), dtype=bool) if trainable is None else np.asarray(trainable, bool)
        )
        self.x = self._parameters[self.trainable]
        self.shards = {"train": shard(data, potential, ranks)}
        if test is not None:
            self.shards["test"] = shard(test, potential, ranks)
        self.loss = _loss_settings(loss)
        if self.loss["kappa"] == "auto":
            self.loss["kappa"] = kappa_auto(self.shards["train"].structures, ranks)
        self.kappa = float(self.loss["kappa"])
        deltas = (_delta(key, self.loss[key]) for key in KINDS)
        self._weights = weights = LossWeights(self.kappa, float(self.loss["stress"]), *deltas)

        n_radial = sum(c.size for c in self.potential.radcoefficients.values())
        if self.backend != "reference" and not self.trainable[:n_radial].any():
            options = replace(options, radial_gradient=False)  # saves up to half of an evaluation
        start = time.perf_counter()
        virials = bool(options.virials)
        self._row_kernels, self._rows_with_stress = False, virials or weights.stress > 0
        compile_on_nodes(self.backend, self.potential, ranks, weights, virials)
        self._evaluators = {
            name: part.evaluator(self.backend, self.potential, weights, options) for name, part in self.shards.items()
        }
        self.compile_seconds = time.perf_counter() - start
        # memory and batches of this rank's evaluators, where the backend tells
        self.reports = {n: e.report for n, e in self._evaluators.items() if e.report}

        # (structures, atoms, bonds) of each rank; on the root
        s = self.shards["train"].structures
        n_bonds = self.shards["train"].n_bonds
        self.shard_sizes = ranks.gather((s.n_structures, s.n_atoms, n_bonds))
        self.n_evaluations = 0
        self.rank_seconds = np.zeros(ranks.size)  # time of each rank's own part
        self.evaluation_seconds = 0.0  # wall time of all evaluations
        self.metrics: dict[str, float] = {}
        self.stop_requested = False
        self._stop = stop
        self._wait = wait
        self._message = np.zeros(1 + _ARGUMENTS + len(self.x))
        sizes = ranks.gather(Sizes.of(s, len(potential.elements), n_bonds, weights.stress > 0))
        self.sizes = None if sizes is None else Sizes.added(sizes)
        """Of the training set over all ranks, on the root."""
        self._jacobian: SpreadColumns | None = None
        self._first_structure = sum(ranks.gather_everywhere(s.n_structures)[: ranks.rank])
        self._all_trainable = bool(self.trainable.all())
        self._head = ranks.size * (_MAX + 1) + 1
        self._send, self._receive = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def __call__(self, x: np.ndarray, gradient: bool = True) -> tuple[float, np.ndarray | None]:
        """Loss and gradient (n,) at x (n,), the trainable parameters; sets `metrics`. gradient False: None instead."""
        value, slope, self.metrics = self.evaluate(x, GRADIENT if gradient else VALUE)
        return value, slope

    def evaluate(self, x: np.ndarray, command: int = GRADIENT) -> tuple[float, np.ndarray | None, dict[str, float]]:
        """(loss, gradient or None, metrics) at x; command TEST: of the test set, without gradient."""
        start = time.perf_counter()
        command, x = self._announce(command, x)
        total, own = self._reduce(command, x)
        found = self._finish(command, x, total, own)
        self.evaluation_seconds += time.perf_counter() - start
        return found

    def evaluate_test(self, x: np.ndarray) -> dict[str, float]:
        """Metrics of the test set at x."""
        return self.evaluate(x, TEST)[2]

    def predict(self, x: np.ndarray, which: str = "train") -> Prediction | None:
        """Atomic energies, forces and virials at x on the root, in the order of the data; None on other ranks."""
        command, x = self._announce(PREDICT if which == "train" else PREDICT_TEST, x)
        return self._predict(command, x)

    def sketch(self, x: np.ndarray, plan: RowPlan, seed: int, renewal: int) -> SketchedJacobian:
        """A sketched Jacobian of the training set's weighted residuals at x; the ranks keep it until the next one."""
        arguments = (seed, renewal, plan.combinations, plan.together, plan.energies)
        squares = self._sketch(*self._announce(SKETCH, x, arguments), arguments)
        return SketchedJacobian(squares, lambda command, v: self._multiply(*self._announce(command, v)))

    def compile_rows_ahead(self) -> None:
        """Start compiling, in the background on one rank of each node, what `sketch` and `products` need."""
        if self.ranks.node_rank == 0:
            backends.prepare_row_kernels_ahead(self.backend, self.potential, self._rows_with_stress)

    def products(
        self, x: np.ndarray, plan: RowPlan, seed: int, renewal: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Products of the columns of the same sketch on the root, as `gram` returns them."""
        arguments = (seed, renewal, plan.combinations, plan.together, plan.energies)
        return self._sketch(*self._announce(PRODUCTS, x, arguments), arguments)

    def stage_seconds(self, x: np.ndarray) -> dict[str, float]:
        """Seconds of each stage of loss and gradient on this rank's structures, without the other ranks."""
        return self._evaluators["train"].stage_seconds(self.full(x))

    def close(self) -> None:
        """End the `serve()` of the other ranks."""
        self._announce(STOP, self.x)

    def serve(self) -> None:
        """Take part in what the root asks for, until it calls `close()`."""
        while True:
            command, x = self._announce(STOP, self.x)
            if command == STOP:
                return
            if command in (PREDICT, PREDICT_TEST):
                self._predict(command, x)
            elif command in (SKETCH, PRODUCTS):
                self._sketch(command, x, tuple(self._message[1 : 1 + _ARGUMENTS].astype(int).tolist()))
            elif command in (TIMES, TRANSPOSED_TIMES, WEIGHTED_GRAM):
                self._multiply(command, x)
            else:
                self._reduce(command, x)

    def potential_at(self, x: np.ndarray) -> Potential:
        """A copy of the potential with the trainable parameters x (n,)."""
        potential = self.potential.copy()
        potential.parameters = self.full(x)
        return potential

    def full(self, x: np.ndarray) -> np.ndarray:
        """All parameters (n_parameters,), of the trainable ones x (n,)."""
        if self._all_trainable:
            return np.array(x, dtype=np.float64)
        parameters = self._parameters.copy()
        parameters[self.trainable] = x
        return parameters

    def _announce(self, command: int, x: np.ndarray, arguments: Sequence[int] = ()) -> tuple[int, np.ndarray]:
        """The root's command and x on every rank; its arguments are in the message."""
        if self.ranks.root and np.shape(x) != self.x.shape:
            raise ValueError(f"x has shape {np.shape(x)}; this objective has {len(self.x)} trainable parameters")
        if self.ranks.size == 1:
            return command, np.array(x, dtype=np.float64)
        self._message[0], self._message[1 + _ARGUMENTS :] = command, x
        self._message[1 : 1 + len(arguments)] = arguments
        self.ranks.receive(self._message, patiently=self._wait == "yield")
        return int(self._message[0]), self._message[1 + _ARGUMENTS :].copy()

    def _reduce(self, command: int, x: np.ndarray) -> tuple[np.ndarray, Sums]:
        """Sum over ranks of [maxima and seconds of each rank | stop requests | terms, gradient]; this rank's sums."""
        start = time.perf_counter()
        with_gradient = command == GRADIENT
        evaluator = self._evaluators["test" if command == TEST else "train"]
        sums = evaluator.evaluate(self.full(x), gradient=with_gradient)
        n_terms, n_gradient = len(metrics.TERMS), sums.encoded_gradient.shape[1] if with_gradient else 0
        size = self._head + fixed_point.LIMBS * (n_terms + n_gradient)
        if len(self._send) < size:
            self._send = np.zeros(size, np.int64)
            self._receive = self._send if self.ranks.size == 1 else np.zeros(size, np.int64)
        send, receive = self._send[:size], self._receive[:size]
        send[: self._head] = 0
        # maxima and seconds travel as the bits of float64 in a slot of each rank: the others add 0
        slot = self.ranks.rank * (_MAX + 1)
        send[slot : slot + _MAX] = sums.maxima.view(np.int64)
        send[self._head - 1] = self._stop is not None and self._stop()
        limbs = send[self._head :].reshape(fixed_point.LIMBS, -1)
        limbs[:, :n_terms] = sums.encoded_terms
        if with_gradient:
            limbs[:, n_terms:] = sums.encoded_gradient
        send[slot + _MAX] = np.float64(time.perf_counter() - start).view(np.int64)
        if self.ranks.size > 1:
            self.ranks.sum_into(send, receive)
        self.stop_requested = bool(receive[self._head - 1] > 0)
        self.n_evaluations += 1
        return receive, sums

    def _finish(
        self, command: int, x: np.ndarray, total: np.ndarray, own: Sums
    ) -> tuple[float, np.ndarray | None, dict[str, float]]:
        summed = fixed_point.decode(total[self._head :].reshape(fixed_point.LIMBS, -1))
        terms, gradient = summed[: len(metrics.TERMS)], summed[len(metrics.TERMS) :]
        slots = total[: self._head - 1].view(np.float64).reshape(self.ranks.size, _MAX + 1)
        self.rank_seconds += slots[:, _MAX]
        maxima = slots[:, :_MAX].max(axis=0)
        if maxima[-1] > 0:
            terms = np.full_like(terms, np.inf)  # a step that leads nowhere: the line search takes a shorter one
        data = {
            "e_loss_contrib": (1.0 - self.kappa) * terms[0] if self.kappa < 1.0 else 0.0,
            "f_loss_contrib": self.kappa * terms[1] if self.kappa else 0.0,
            "s_loss_contrib": self.loss["stress"] * terms[2] if self.loss["stress"] else 0.0,
        }
        contributions, slope = regularisation(self.potential, self.full(x), self.loss)
        reg = sum(contributions.values())
        loss = float(sum(data.values()) + reg)
        found = {"loss": loss, "reg_loss": float(reg), **{k: float(v) for k, v in data.items()}, **contributions}
        found |= metrics.finish(terms, maxima)
        found |= {"nfuncs": self.potential.n_functions, "ncoefs": len(self._parameters)}
        if command != GRADIENT:
            return loss, None, found
        slope += own.in_parameters(gradient)
        return loss, slope if self._all_trainable else slope[self.trainable], found

    def _sketch(self, command: int, x: np.ndarray, arguments: Sequence[int]) -> Any:
        """The ranks' part of `sketch` and `products`; on the root the squares of the first, and the second."""
        seed, renewal, combinations, together, energies = arguments
        if not self._row_kernels:
            compile_rows_on_nodes(self.backend, self.potential, self.ranks, self._rows_with_stress)
            self._row_kernels = True
        sketcher = Sketcher(
            self._evaluators["train"], self.shards["train"].structures, self._weights, self._first_structure,
            self.trainable,
        )  # fmt: skip
        self._jacobian = None  # its memory is needed
        rows = sketcher.rows(self.full(x), RowPlan(combinations, together, bool(energies)), seed, renewal)
        if command == PRODUCTS:
            return gram(rows, self.ranks)
        self._jacobian = SpreadColumns(rows, self.ranks)
        return self._jacobian.squares()

    def _multiply(self, command: int, v: np.ndarray) -> Any:
        """The ranks' part of products with the sketched Jacobian, and the result on the root."""
        if command == TIMES:
            return self._jacobian.times(v)
        if command == TRANSPOSED_TIMES:
            return self._jacobian.transposed_times(v[: self._jacobian.n_rows])
        return self._jacobian.weighted_gram(v)

    def _predict(self, command: int, x: np.ndarray) -> Prediction | None:
        which = "train" if command == PREDICT else "test"
        part = self.shards[which]
        prediction = self._evaluators[which].predict(self.full(x))
        parts = self.ranks.gather((part.rows, part.structures.atoms_per_structure, prediction))
        return None if parts is None else _in_order(parts)


class SketchedJacobian:
    """The root's hold on a sketched Jacobian J, (n_rows, n), whose columns are spread over the ranks.

    Attributes:
        squares: sum of squares of each column, (n,).
    """

    def __init__(self, squares: np.ndarray, multiply: Callable[[int, np.ndarray], Any]) -> None:
        """multiply: a command and a vector (n,) -> its result."""
        self.squares, self._multiply = squares, multiply

    def times(self, v: np.ndarray) -> np.ndarray:
        """J v of v (n,), (n_rows,)."""
        return self._multiply(TIMES, v)

    def transposed_times(self, w: np.ndarray) -> np.ndarray:
        """Jᵀ w of w (n_rows,), (n,)."""
        sent = np.zeros(len(self.squares))
        sent[: len(w)] = w
        return self._multiply(TRANSPOSED_TIMES, sent)

    def weighted_gram(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """J diag(weights) Jᵀ of weights (n,) as `gram` returns it."""
        return self._multiply(WEIGHTED_GRAM, weights)


def agreed_backend(name: str, ranks: Ranks) -> str:
    """The backend that `name` stands for, the same on all ranks: 'auto' is the cpu where one of them has no GPU to use.

    Called by all ranks together. Raises PacehpcError as backends.resolve does, on all of them.
    """
    if ranks.size == 1 or name != "auto":
        return ranks.on_each(lambda: backends.resolve(name))
    reason = backends.why_no_gpu()
    reasons = ranks.gather(None if reason is None else (reason.present, str(reason)))
    if ranks.root:
        missing = [(rank, *found) for rank, found in enumerate(reasons) if found is not None]
        if len(missing) == len(reasons) and not any(present for _, present, _ in missing):
            log.info("No GPU here: using the cpu backend.")
        elif missing:
            log.warning(
                "%d of %d ranks cannot use a GPU; using the cpu backend on all. Rank %d: %s",
                len(missing), len(reasons), missing[0][0], missing[0][2],
            )  # fmt: skip
        name = "cpu" if missing else "cuda"
    return ranks.broadcast(name)


def compile_on_nodes(
    backend: str, potential: Potential, ranks: Ranks, loss: LossWeights, virials: bool = False
) -> None:
    """Compile the kernels of evaluators on one rank of each node: all of its ranks would start a compiler each.

    Called by all ranks together, before evaluators are made; virials: which make them whatever the loss.
    """
    if ranks.node_rank == 0:
        backends.prepare_kernels(backend, potential, loss, virials)
    ranks.barrier()


def compile_rows_on_nodes(backend: str, potential: Potential, ranks: Ranks, stress: bool = False) -> None:
    """The same of the kernels of `Evaluator.rows`; stress: of evaluators that make virials."""
    if ranks.node_rank == 0:
        backends.prepare_row_kernels(backend, potential, stress)
    ranks.barrier()


def _loss_settings(loss: Mapping[str, Any] | None) -> dict[str, Any]:
    given = dict(loss or {})
    for key in given:
        if key not in (*LOSS_KEYS, *KINDS):
            raise PacehpcError(f"loss: unknown key `{key}`; known are {', '.join((*LOSS_KEYS, *KINDS))}.")
    settings = dict.fromkeys(LOSS_KEYS, 0.0) | dict.fromkeys(KINDS) | given
    kappa = settings["kappa"]
    if kappa != "auto" and not (isinstance(kappa, int | float) and 0.0 <= kappa <= 1.0):
        raise PacehpcError(
            f"loss: kappa is {kappa}; give a number from 0 (energies alone) to 1 (forces alone), or auto."
        )
    return settings


def _delta(key: str, kind: Mapping[str, Any] | None) -> float:
    """Where the loss of an error becomes linear, as `LossWeights` has it; 0 of a square loss."""
    if kind is None or kind.get("type", "square") == "square":
        return 0.0
    delta = kind.get("delta")
    if kind["type"] != "huber" or not isinstance(delta, int | float) or not delta > 0:
        raise PacehpcError(
            f"loss.{key}: must be {{type: square}} or {{type: huber, delta: number above 0}}, not {dict(kind)}."
        )
    return float(delta)


def kappa_auto(structures: Structures, ranks: Ranks) -> float:
    """σ_E²/(σ_E² + σ_F²) over all ranks: sample deviation (n - 1) of E^ref/N, population deviation of |F^ref|."""
    counted_e, counted_f = structures.w_energy != 0, structures.w_forces != 0  # others may be unknown
    energies = np.where(counted_e, structures.energy / structures.atoms_per_structure, 0.0)
    forces = np.where(counted_f, np.linalg.norm(structures.forces, axis=1), 0.0)
    n_e, n_f, sum_e, sum_f = _sums_over_ranks(
        [counted_e.astype(float), counted_f.astype(float), energies, forces], structures, ranks
    )
    n_e, n_f = max(n_e, 1.0), max(n_f, 1.0)
    squares_e, squares_f = _sums_over_ranks(
        [counted_e * (energies - sum_e / max(n_e, 1.0)) ** 2, counted_f * (forces - sum_f / n_f) ** 2],
        structures,
        ranks,
    )
    variance_e, variance_f = squares_e / max(n_e - 1.0, 1.0), squares_f / n_f
    if variance_e + variance_f == 0.0:
        raise PacehpcError(
            "fit.loss.kappa: auto needs energies or forces that differ between structures; give a number."
        )
    return float(variance_e / (variance_e + variance_f))


def _sums_over_ranks(columns: list[np.ndarray], structures: Structures, ranks: Ranks) -> np.ndarray:
    """Sums of columns over structures or atoms of all ranks, the same bits on any number of ranks."""
    starts = structures.shard_starts
    by_length = {structures.n_structures: starts, structures.n_atoms: structures.atom_offsets[starts]}
    encoded = np.zeros((fixed_point.LIMBS, len(columns)), np.int64)
    if structures.n_structures:
        parts = [np.add.reduceat(column, by_length[len(column)]) for column in columns]
        encoded = np.stack([fixed_point.encode(part).sum(axis=1) for part in parts], axis=1)
    return fixed_point.decode(ranks.sum(encoded))


def _in_order(parts: list[tuple[np.ndarray | None, np.ndarray, Prediction]]) -> Prediction:
    """The ranks' predictions as one, structures in the order of their rows (rank after rank where rows are None)."""
    energies = np.concatenate([p.energies for _, _, p in parts])
    forces = np.concatenate([p.forces for _, _, p in parts])
    virials = np.concatenate([p.virials for _, _, p in parts])
    if any(rows is None for rows, _, _ in parts):
        return Prediction(energies, forces, virials)
    rows = np.concatenate([rows for rows, _, _ in parts])
    counts = np.concatenate([counts for _, counts, _ in parts])
    order = np.argsort(rows, kind="stable")
    atoms = np.argsort(np.repeat(rows, counts), kind="stable")
    return Prediction(energies[atoms], forces[atoms], virials[order])
