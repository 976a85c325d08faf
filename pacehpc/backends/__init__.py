"""Backends by name. Importing this package imports none of them.

`resolve` turns what a user writes into a backend that can run here; the other functions take its result.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

from pacehpc.backends.interface import Evaluator, EvaluatorOptions, LossWeights
from pacehpc.errors import PacehpcError
from pacehpc.structures import Structures

if TYPE_CHECKING:
    from pacehpc.backends.device import CudaUnavailable
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

NAMES = ("auto", "cpu", "cuda", "reference")


def resolve(name: str) -> str:
    """The backend that `name` stands for on this machine: 'auto' becomes the fastest one that can run here.

    Raises PacehpcError for an unknown name and for a backend that cannot run here.
    """
    if name == "auto":
        return _fastest()
    if name == "cuda":
        from pacehpc.backends.device import load_cupy

        load_cupy()
    if name not in NAMES:
        raise _unknown(name)
    return name


@cache
def _fastest() -> str:
    """'cuda' where a device can be used, else 'cpu' and, once, why."""
    reason = why_no_gpu()
    if reason is None:
        return "cuda"
    if reason.present:
        log.warning("This machine has a GPU, but it cannot be used; going on with the cpu backend. %s", reason)
    else:
        log.info("No GPU here: using the cpu backend.")
    return "cpu"


def why_no_gpu() -> CudaUnavailable | None:
    """Why the cuda backend cannot run on this machine; None where it can."""
    from pacehpc.backends.device import CudaUnavailable, load_cupy

    try:
        load_cupy()
    except CudaUnavailable as error:
        return error
    return None


def create_evaluator(
    name: str,
    potential: Potential,
    structures: Structures,
    loss: LossWeights,
    options: EvaluatorOptions = EvaluatorOptions(),
) -> Evaluator:
    """Create an evaluator of `potential`'s shape on `structures`.

    Args:
        name: as `resolve` returns it, 'reference', 'cpu' or 'cuda'.
        potential: gives shape and tables; parameters come with each evaluation.
        structures: with reference values and weights where a loss is wanted.
        loss: factors of the loss.
        options: see `EvaluatorOptions`.

    Raises:
        PacehpcError: the backend is unknown or cannot run here.
    """
    if name == "reference":
        from pacehpc.backends.oracle import ReferenceEvaluator

        return ReferenceEvaluator(potential, structures, loss, options)
    if name == "cuda":
        from pacehpc.backends.cuda import CudaEvaluator

        return CudaEvaluator(potential, structures, loss, options)
    if name == "cpu":
        from pacehpc.backends.cpu import CpuEvaluator

        return CpuEvaluator(potential, structures, loss, options)
    raise _unknown(name)


def prepare_kernels_ahead(name: str, potential: Potential, stress: bool) -> None:
    """Start compiling the kernels of a backend in the background, where it can; `prepare_kernels` waits for them."""
    if name == "cpu":
        from pacehpc.backends.cpu import prepare_ahead

        prepare_ahead(potential, stress)


def prepare_kernels(name: str, potential: Potential, loss: LossWeights, virials: bool = False) -> None:
    """Compile the kernels of a backend into the cache (on one rank of each node, before evaluators are made).

    virials: of evaluators that make them whatever the loss.
    """
    if name == "cpu":
        from pacehpc.backends.cpu import prepare

        prepare(potential, loss)
    elif name == "cuda":
        from pacehpc.backends.source import prepare as prepare_cuda

        prepare_cuda(potential, virials or loss.stress > 0)


def prepare_row_kernels(name: str, potential: Potential, stress: bool) -> None:
    """Compile the kernels of `Evaluator.rows` into the cache, where a backend has some of their own."""
    if name == "cpu":
        from pacehpc.backends.cpu_rows import prepare

        prepare(potential, stress)


def prepare_row_kernels_ahead(name: str, potential: Potential, stress: bool) -> None:
    """Start compiling the kernels of `Evaluator.rows` in the background; `prepare_row_kernels` waits for them."""
    if name == "cpu":
        from pacehpc.backends.cpu_rows import prepare_ahead

        prepare_ahead(potential, stress)


def made_with(name: str) -> str:
    """What the bits of a backend's kernels depend on beside the potential, such as the compiler; "" for reference."""
    if name == "cpu":
        from pacehpc.backends import compile as host

        return host.made_with()
    if name == "cuda":
        from pacehpc.backends import source

        return source.made_with()
    return ""


def _unknown(name: str) -> PacehpcError:
    return PacehpcError(f"unknown backend '{name}': choose one of {', '.join(NAMES)}.")
