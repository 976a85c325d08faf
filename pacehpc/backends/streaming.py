"""Evaluation of data that do not fit into memory: piece by piece from the prepared file, again in each evaluation.

Sums are exact integers made over virtual shards (see fixed_point), and pieces are whole virtual shards, so the results
have the same bits as those of data in memory. Reading and laying out the bonds costs time in each evaluation: more
ranks, each with less data, are faster as soon as there are any.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pacehpc import backends
from pacehpc.backends.interface import Evaluator, LossWeights, Prediction, Sums
from pacehpc.structures import Structures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

T = TypeVar("T")

BYTES_OF_A_BOND = 280  # while a piece is read, laid out and evaluated


@dataclass(frozen=True)
class Stream:
    """The part of a prepared file that belongs to a rank, read in pieces of at most `max_bonds` where shards allow."""

    path: Path
    rank: int
    size: int
    max_bonds: int

    def pieces(self, potential: Potential) -> Iterator[Structures]:
        """The rank's structures with their bonds, in order."""
        from pacehpc.dataset.store import Store

        with Store(self.path, potential) as store:
            yield from store.read_pieces(self.rank, self.size, self.max_bonds)


class StreamingEvaluator:
    """An evaluator (see interface) that holds the bonds of one piece at a time."""

    def __init__(
        self, backend: str, potential: Potential, stream: Stream, loss: LossWeights, **options: object
    ) -> None:
        """backend, options: of the evaluators of the pieces."""
        self.name = backend
        self._potential, self._stream, self._loss, self._options = potential, stream, loss, options
        self._reported = False

    def _each(self, function: Callable[[Evaluator], T]) -> Iterator[T]:
        """What function(evaluator) gives for every piece; one evaluator lives at a time."""
        for piece in self._stream.pieces(self._potential):
            evaluator = backends.create_evaluator(self.name, self._potential, piece, self._loss, **self._options)
            if not self._reported and hasattr(evaluator, "report"):
                log.info("First piece of the data: %s", evaluator.report)
            self._reported = True
            found = function(evaluator)
            del piece, evaluator  # before the next piece is read
            yield found

    def evaluate(self, parameters: np.ndarray, gradient: bool = True) -> Sums:
        """The data part of the loss at `parameters`."""
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

    def stage_seconds(self, parameters: np.ndarray) -> dict[str, float]:
        """Seconds of each stage of one evaluation, summed over pieces; reading them is left out."""
        total: Counter[str] = Counter()
        for seconds in self._each(lambda evaluator: evaluator.stage_seconds(parameters)):
            total.update(seconds)
        return dict(total)

    def predict(self, parameters: np.ndarray) -> Prediction:
        """Energies, forces and virials at `parameters`."""
        parts = list(self._each(lambda evaluator: evaluator.predict(parameters)))
        return Prediction(*(np.concatenate([getattr(p, k) for p in parts]) for k in ("energies", "forces", "virials")))
