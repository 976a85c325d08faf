"""Backends by name. Importing this package imports none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacehpc.errors import PacehpcError

if TYPE_CHECKING:
    from pacehpc.backends.interface import Evaluator, LossWeights, Structures
    from pacehpc.potential import Potential

NAMES = ("auto", "cpu", "cuda", "reference")


def resolve(name: str) -> str:
    """The backend that `name` stands for on this machine: 'auto' becomes the fastest one that can run here.

    Raises PacehpcError for an unknown name and for a backend that cannot run here.
    """
    if name == "auto":
        return "cpu"
    if name == "cuda":
        raise PacehpcError(
            "backend 'cuda': this version has no CUDA kernels yet. Use backend 'cpu' (or 'auto', which takes it)."
        )
    if name not in NAMES:
        raise PacehpcError(f"unknown backend '{name}': choose one of {', '.join(NAMES)}.")
    return name


def create_evaluator(
    name: str, potential: Potential, structures: Structures, loss: LossWeights, **options: object
) -> Evaluator:
    """An evaluator of `potential`'s shape on `structures`.

    name: 'reference', 'cpu', 'cuda' or 'auto'; options are those of the backend (see its class).
    Raises PacehpcError for an unknown backend or one that cannot run here.
    """
    name = resolve(name)
    if name == "reference":
        from pacehpc.backends.reference import ReferenceEvaluator

        return ReferenceEvaluator(potential, structures, loss, **options)
    from pacehpc.backends.cpu import CpuEvaluator

    return CpuEvaluator(potential, structures, loss, **options)


def prepare_kernels(name: str, potential: Potential, loss: LossWeights) -> None:
    """Compile the kernels of a backend into the cache (on one rank of each node, before evaluators are made)."""
    if resolve(name) == "cpu":
        from pacehpc.backends.cpu import prepare

        prepare(potential, loss)
