"""What a run may use: threads, memory and GPU of each rank; and the objective that is made of it."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pacehpc.backends import device, memory
from pacehpc.backends.interface import EvaluatorOptions
from pacehpc.backends.shape import make_shape
from pacehpc.config.models import Backend, Fit
from pacehpc.errors import PacehpcError
from pacehpc.machine import (
    available_memory,
    kernel_threads,
    resident_memory,
    return_freed_memory,
    set_blas_threads,
    set_kernel_threads,
    share_of_cores,
    threads_given,
)
from pacehpc.objective import KINDS, LOSS_KEYS, Objective, agreed_backend
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential, trainable_mask
from pacehpc.shard import Shard
from pacehpc.structures import Structures
from pacehpc.walltime import Stop

log = logging.getLogger("pacehpc")


def set_threads(config: Backend, ranks: Ranks) -> dict[str, int]:
    """Fix this rank's threads of BLAS and of the kernels; returns both numbers.

    BLAS gets one thread, and on the root, for the optimizer, what the input says: ranks, cores and environment do not
    change an optimizer's steps. The kernels get what the input says, else OMP_NUM_THREADS, else a share of the cores.
    """
    blas = (config.optimizer_threads or 1) if ranks.root else 1
    kernels = config.threads or threads_given() or share_of_cores(ranks.node_size)
    set_blas_threads(blas)
    set_kernel_threads(kernels)
    return {"blas": blas, "kernels": kernels}


def agree_on_backend(backend: Backend, ranks: Ranks, profile: bool = False) -> Backend:
    """The section `backend` with the evaluator that all ranks use in place of "auto".

    Raises:
        PacehpcError: a backend or GPU that cannot be used; stages are to be timed, and the backend has none.
    """
    config = backend.model_copy(update={"evaluator": agreed_backend(backend.evaluator, ranks)})
    check_gpu(config, ranks)
    if profile and config.evaluator == "reference":
        raise PacehpcError("--profile: the reference backend has no stages to time; use the backend cpu or cuda.")
    return config


def check_gpu(config: Backend, ranks: Ranks) -> None:
    """Log the GPU of each rank and what of backend.gpu_config does not matter.

    Raises:
        PacehpcError: a GPU that cannot be used.
    """
    if config.evaluator == "cuda":
        devices = ranks.gather(_device(config, ranks))
        for rank, device in enumerate(devices or []):
            log.info("Rank %d: %s", rank, device)
    ranks.on_root(lambda: _check_gpu_config(config, ranks.node_size))


def _check_gpu_config(config: Backend, ranks_here: int) -> None:
    given, backend = config.gpu_config, config.evaluator
    if given.gpu_ind is not None and given.gpu_ind >= 0 and ranks_here > 1:
        log.info("backend.gpu_config.gpu_ind: not used, several ranks run on this node")
    elif backend == "cuda":
        return
    elif given.gpu_ind is not None and given.gpu_ind >= 0:
        raise PacehpcError(
            f"backend.gpu_config.gpu_ind: {given.gpu_ind} asks for a GPU, but this run uses the backend {backend}. "
            "Remove it, or write -1, which means no GPU."
        )
    if given.mem_limit > 0 and backend != "cuda":
        log.info("backend.gpu_config.mem_limit: not used, the backend %s needs no GPU", backend)


def _device(config: Backend, ranks: Ranks) -> str:
    """This rank's host and GPU, for the log. Raises PacehpcError where there is none to use."""
    options = gpu_options(config, (ranks.node_rank, ranks.node_size))
    index, shared = device.chosen_device(options, device.load_cupy().cuda.runtime.getDeviceCount())
    return f"{platform.node()}, {device.describe(index)}" + (f", shared by {shared} ranks" if shared > 1 else "")


def gpu_options(config: Backend, node: tuple[int, int]) -> EvaluatorOptions:
    """Options of the cuda backend for a rank; node: its rank on its node, and the ranks there."""
    return device.device_options(config.gpu_config.gpu_ind, config.gpu_config.mem_limit, *node)


def make_objective(
    fit: Fit,
    config: Backend,
    ranks: Ranks,
    potential: Potential,
    shards: Mapping[str, Shard],
    virials: bool = False,
    stop: Stop | None = None,
    profile: bool = False,
    refuse: bool = True,
) -> Objective:
    """Make the objective of these settings on all ranks.

    Args:
        fit: loss and trainable parameters.
        config: its evaluator is the one that all ranks agreed on.
        ranks: of the run.
        potential: to evaluate.
        shards: this rank's structures, "train" and, where there is a test set, "test".
        virials: predict them even where the loss does not need them.
        stop: asked in each evaluation.
        profile: time the stages.
        refuse: raise PacehpcError where backend.memory_limit is too small.
    """
    structures, piece = [s.structures for s in shards.values()], max(s.piece_memory for s in shards.values())
    node = ranks.node_rank, ranks.node_size
    options = evaluator_options(config, potential, structures, virials or fit.loss.stress > 0, node, piece, refuse)
    if virials and config.evaluator in ("cpu", "cuda"):
        options = replace(options, virials=True)
    if profile and config.evaluator == "cuda":
        options = replace(options, profile=True)
    return Objective(
        potential,
        shards["train"],
        {name: value for name, value in fit.loss.model_dump().items() if name in (*LOSS_KEYS, *KINDS)},
        backend=config.evaluator,
        ranks=ranks,
        trainable=trainable_mask(potential, fit.trainable_parameters),
        test=shards.get("test"),
        stop=None if stop is None else stop.due,
        wait=config.wait,
        options=options,
    )


def evaluator_options(
    config: Backend,
    potential: Potential,
    structures: Sequence[Structures],
    stress: bool = False,
    node: tuple[int, int] = (0, 1),
    piece: float = 0.0,
    refuse: bool = True,
) -> EvaluatorOptions:
    """Options of the backend that keep this rank within backend.memory_limit, else within what is free.

    Args:
        config: its evaluator is not "auto".
        potential: to evaluate.
        structures: what the rank evaluates, in memory.
        stress: virials are needed.
        node: the rank on its node, and the ranks that share the machine's memory.
        piece: bytes of what is read from the file in turn.
        refuse: False: warn where the limit is too small, because what has been fitted would be lost.

    Raises:
        PacehpcError: the limit is too small.
    """
    if config.evaluator == "cuda":
        return gpu_options(config, node)
    if config.evaluator != "cpu":
        return EvaluatorOptions()
    return_freed_memory()
    now = resident_memory()
    held = sum(memory.structures_memory(s.n_atoms, s.n_bonds, s.n_structures) for s in structures)
    fixed = now - held + piece
    kept, least = (fixed + cpu_memory(potential, structures, stress, keep) for keep in (True, False))
    limit = config.memory_limit
    if limit is None:
        free = available_memory()
        limit = np.inf if free is None else now + free / node[1]
    elif least > limit and refuse:
        raise PacehpcError(
            f"backend.memory_limit: {limit / 2**30:.3g} GiB per rank, but this rank needs {least / 2**30:.3g} GiB "
            f"({now / 2**30:.3g} GiB of them now). Use more ranks or raise the limit."
        )
    keep = kept <= limit and any(memory.keeps_moments(s) for s in structures)
    if least > limit:
        log.warning(
            "This rank needs about %.2f GiB, more than the %.2f GiB that it may use: use more ranks.",
            least / 2**30, limit / 2**30,
        )  # fmt: skip
    peak = max(least, fixed + cpu_memory(potential, structures, stress, None)) if keep else least
    log.info("Memory per rank: about %.2f GiB at most, %.2f GiB now", peak / 2**30, now / 2**30)
    return EvaluatorOptions(store_moments=None if kept <= limit else False)


def cpu_memory(
    potential: Potential, structures: Sequence[Structures], stress: bool, store_moments: bool | None
) -> float:
    """Bytes of these structures and of their evaluators; store_moments: they keep G of every atom (None: as usual)."""
    from pacehpc.backends.compile import lanes

    shape, total = make_shape(potential), 0.0
    n = len(shape.elements)
    for s in structures:
        total += memory.structures_memory(s.n_atoms, s.n_bonds, s.n_structures)
        total += memory.evaluator_memory(
            shape,
            np.bincount(s.species, minlength=n),
            s.n_bonds,
            lanes(),
            memory.keeps_moments(s) if store_moments is None else store_moments,
            stress,
            kernel_threads(),
        )
    return total
