"""Rows of the linearised model on a GPU: the second pass again for each, with sums for every structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from pacehpc.backends.device_batches import Batch
from pacehpc.backends.interface import Rows, motions
from pacehpc.structures import VOIGT, Structures


class Kernels(Protocol):
    """What an evaluator on a GPU gives: the two passes of a batch, and the sums of the second."""

    structures: Structures
    with_virials: bool
    batches: list[Batch]
    in_parameters: Callable[[np.ndarray], np.ndarray]

    def on_device(self) -> AbstractContextManager[None]: ...

    def first_pass(self, batch: Batch) -> None: ...

    def second_pass(self, batch: Batch) -> np.ndarray:
        """Rows of gradient sums of the batch, (n_rows, n_columns)."""
        ...


def each_a_shard(structures: Structures) -> Structures:
    """The structures, each a virtual shard of its own, with reference values that nobody reads."""
    n, n_atoms = structures.n_structures, structures.n_atoms
    return replace(
        structures, energy=np.zeros(n), forces=np.zeros((n_atoms, 3)), w_energy=np.zeros(n), w_forces=np.zeros(n_atoms),
        stress=None, low=None, shards=np.arange(n + 1),
    )  # fmt: skip


def structure_rows(
    kernels: Kernels, n_parameters: int, kind: str, directions: np.ndarray | None, strains: np.ndarray | None
) -> Iterator[Rows]:
    """`Evaluator.rows` of structures that are virtual shards of their own; a piece is a batch."""
    s = kernels.structures
    for batch in kernels.batches:
        factors, moving, strained = motions(kind, directions, strains, batch.structures, batch.atoms)
        n = batch.structures.stop - batch.structures.start
        values = np.empty((n, len(factors), n_parameters))
        starts = batch.piece_rows[:-1]
        with kernels.on_device():
            kernels.first_pass(batch)
            for row, (factor, u, strain) in enumerate(zip(factors, moving, strained, strict=True)):
                _set(batch.arrays["residuals"], np.c_[u, np.full(len(u), factor)])
                if kernels.with_virials:  # the kernels' strains are those of the residuals, of opposite sign
                    voigt = -strain[:, *VOIGT]
                    _set(
                        batch.arrays["strain_residuals"],
                        np.repeat(voigt, s.atoms_per_structure[batch.structures], axis=0),
                    )
                sums = np.add.reduceat(kernels.second_pass(batch), starts, axis=0)
                for structure in range(n):
                    values[structure, row] = kernels.in_parameters(sums[structure])
        yield Rows(batch.structures, values)


def _set(array: Any, values: np.ndarray) -> None:
    array.set(np.ascontiguousarray(values, np.float64).reshape(-1))
