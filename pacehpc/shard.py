"""One rank's part of the data and its evaluator, in memory or read piece by piece from the prepared file.

Sums are exact integers over virtual shards (see fixed_point) and a piece is a run of whole virtual shards, so streamed
data give the same bits as data in memory. Reading and laying out the bonds costs time in every evaluation: more ranks
with less data each are faster.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pacehpc import backends
from pacehpc.backends.interface import AtomRows, Evaluator, EvaluatorOptions, LossWeights, Prediction, Rows, Sums
from pacehpc.dataset.store import Store
from pacehpc.parallel import Ranks
from pacehpc.structures import Structures

if TYPE_CHECKING:
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

T = TypeVar("T")

BYTES_OF_A_BOND = 280  # while a piece is read, laid out and evaluated


@dataclass
class Shard:
    """One rank's structures and their rows in the whole data, (n_structures,) int; None: ranks follow each other."""

    structures: Structures
    rows: np.ndarray | None = None
    stream: Stream | None = None
    """Where the bonds are read from, piece by piece; `structures` then has none. None: `structures` has them."""
    streamed_bonds: int = 0

    @property
    def n_bonds(self) -> int:
        """Bonds of the rank, in memory or not."""
        return self.streamed_bonds if self.stream is not None else self.structures.n_bonds

    @property
    def piece_memory(self) -> float:
        """Bytes while a piece of the streamed bonds is read and evaluated; 0 where bonds are in memory."""
        return 0.0 if self.stream is None else BYTES_OF_A_BOND * min(self.stream.max_bonds, self.streamed_bonds)

    def pieces(self, potential: Potential) -> Iterator[Structures]:
        """All structures with their bonds, in order, as much at once as fits into memory."""
        return iter([self.structures]) if self.stream is None else self.stream.pieces(potential)

    def reweighted(self, energy: np.ndarray, forces: np.ndarray) -> Shard:
        """With weights multiplied by factors of each structure, (n_structures,): of energies, and of its forces."""
        stream = self.stream
        if stream is not None:
            stream = replace(stream, factors=(energy, forces))
        return replace(self, structures=_reweighted(self.structures, energy, forces), stream=stream)

    def evaluator(
        self,
        backend: str,
        potential: Potential,
        loss: LossWeights,
        options: EvaluatorOptions = EvaluatorOptions(),
    ) -> Evaluator:
        """Create an evaluator of these structures."""
        if self.stream is None:
            return backends.create_evaluator(backend, potential, self.structures, loss, options)
        return StreamingEvaluator(backend, potential, self.stream, loss, options)


def shard(data: Any, potential: Potential, ranks: Ranks) -> Shard:
    """Return this rank's part of a Dataset, which every rank holds whole; a `Shard` is returned as it is."""
    if isinstance(data, Shard):
        return data
    if isinstance(data, Structures):
        return Shard(data)
    rows, bounds = data.shard_rows(ranks.rank, ranks.size), data.shard_bounds(ranks.rank, ranks.size)
    structures = data.structures(potential, rows)
    structures.shards = bounds
    return Shard(structures, rows)


@dataclass(frozen=True)
class Stream:
    """The part of a prepared file that belongs to a rank, read in pieces of at most `max_bonds` where shards allow."""

    path: Path
    rank: int
    size: int
    max_bonds: int
    factors: tuple[np.ndarray, np.ndarray] | None = None
    """On the weights that the file holds, see `Shard.reweighted`."""

    def pieces(self, potential: Potential) -> Iterator[Structures]:
        """The rank's structures with their bonds, in order."""
        begin = 0
        with Store(self.path, potential) as store:
            for piece in store.read_pieces(self.rank, self.size, self.max_bonds):
                end = begin + piece.n_structures
                if self.factors is not None:
                    piece = _reweighted(piece, *(factor[begin:end] for factor in self.factors))
                begin = end
                yield piece


def _reweighted(structures: Structures, energy: np.ndarray, forces: np.ndarray) -> Structures:
    """Structures with weights multiplied by factors of each, (n_structures,)."""
    return replace(
        structures,
        w_energy=structures.w_energy * energy,
        w_forces=structures.w_forces * np.repeat(forces, structures.atoms_per_structure),
    )


class StreamingEvaluator:
    """An evaluator (see interface.Evaluator) that holds the bonds of one piece at a time."""

    def __init__(
        self,
        backend: str,
        potential: Potential,
        stream: Stream,
        loss: LossWeights,
        options: EvaluatorOptions = EvaluatorOptions(),
    ) -> None:
        """backend, options: of the evaluators of the pieces."""
        self.name = backend
        self._potential, self._stream, self._loss, self._options = potential, stream, loss, options
        self._reported = False

    @property
    def report(self) -> str:
        """Empty: the first piece is reported when it is evaluated."""
        return ""

    def evaluate(self, parameters: np.ndarray, gradient: bool = True) -> Sums:
        """Evaluate the data part of the loss at `parameters`."""
        total: Sums | None = None
        for sums in self._each(lambda evaluator: evaluator.evaluate(parameters, gradient)):
            if total is None:
                total = Sums(sums.encoded_terms.copy(), sums.maxima.copy(), None, sums.in_parameters)
                total.encoded_gradient = None if sums.encoded_gradient is None else sums.encoded_gradient.copy()
                continue
            total.encoded_terms += sums.encoded_terms
            np.maximum(total.maxima, sums.maxima, out=total.maxima)
            if gradient:
                total.encoded_gradient += sums.encoded_gradient
        return total

    def predict(self, parameters: np.ndarray) -> Prediction:
        """Energies, forces and virials at `parameters`."""
        parts = list(self._each(lambda evaluator: evaluator.predict(parameters)))
        return Prediction(*(np.concatenate([getattr(p, k) for p in parts]) for k in ("energies", "forces", "virials")))

    def rows(
        self, parameters: np.ndarray, kind: str, directions: np.ndarray | None = None, strains: np.ndarray | None = None
    ) -> Iterator[Rows]:
        """Derivatives of energies and of combinations of forces, see `Evaluator.rows`."""
        n_structures, n_atoms = 0, 0
        for piece in self._stream.pieces(self._potential):
            s, a = slice(n_structures, n_structures + piece.n_structures), slice(n_atoms, n_atoms + piece.n_atoms)
            n_structures, n_atoms = s.stop, a.stop
            u = None if directions is None else directions[:, a]
            strain = None if strains is None else strains[:, s]
            evaluator = self._evaluator(piece)
            for where, values in evaluator.rows(parameters, kind, u, strain):
                yield Rows(slice(s.start + where.start, s.start + where.stop), values)
            del piece, evaluator  # before the next piece is read

    def atom_rows(self, parameters: np.ndarray, kind: str) -> Iterator[AtomRows]:
        """Values of the functions of each atom, see `Evaluator.atom_rows`."""
        n_atoms = 0
        for piece in self._stream.pieces(self._potential):
            evaluator = self._evaluator(piece)
            for atoms, values in evaluator.atom_rows(parameters, kind):
                yield AtomRows([n_atoms + a for a in atoms], values)
            n_atoms += piece.n_atoms
            del piece, evaluator  # before the next piece is read

    def update(self, bond_vector: np.ndarray) -> None:
        """Not possible: the bonds are those of the file."""
        raise NotImplementedError("bonds that are read from a file cannot be replaced")

    def stage_seconds(self, parameters: np.ndarray) -> dict[str, float]:
        """Seconds of each stage of one evaluation, summed over pieces; reading them is left out."""
        total: Counter[str] = Counter()
        for seconds in self._each(lambda evaluator: evaluator.stage_seconds(parameters)):
            total.update(seconds)
        return dict(total)

    def _each(self, function: Callable[[Evaluator], T]) -> Iterator[T]:
        """What function(evaluator) gives for every piece; one evaluator lives at a time."""
        for piece in self._stream.pieces(self._potential):
            evaluator = self._evaluator(piece)
            found = function(evaluator)
            del piece, evaluator  # before the next piece is read
            yield found

    def _evaluator(self, piece: Structures) -> Evaluator:
        evaluator = backends.create_evaluator(self.name, self._potential, piece, self._loss, self._options)
        if not self._reported and evaluator.report:
            log.info("First piece of the data: %s", evaluator.report)
        self._reported = True
        return evaluator
