"""What a run may use: memory of each rank, and GPUs that the input names."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pacehpc import backends, parallel
from pacehpc.backends import memory
from pacehpc.backends.interface import EvaluatorOptions
from pacehpc.backends.shape import make_shape
from pacehpc.errors import PacehpcError
from pacehpc.machine import available_memory, kernel_threads, resident_memory, return_freed_memory
from pacehpc.structures import Structures

if TYPE_CHECKING:
    from pacehpc.config.models import Settings
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")


def check_gpu(settings: Settings, comm: Any | None) -> None:
    """Refuse a GPU that cannot be used; say what of backend.gpu_config does not matter. By all ranks together."""
    config, backend = settings.backend.gpu_config, backends.resolve(settings.backend.evaluator)
    _, ranks_here = parallel.node_rank(comm)
    if backend == "cuda":
        devices = parallel.gather(_device(settings, comm), comm)
        for rank, device in enumerate(devices or []):
            log.info("Rank %d: %s", rank, device)
    if not parallel.is_root(comm):
        return
    if config.gpu_ind is not None and config.gpu_ind >= 0 and ranks_here > 1:
        log.info("backend.gpu_config.gpu_ind: not used, several ranks run on this node")
    elif backend == "cuda":
        return
    elif config.gpu_ind is not None and config.gpu_ind >= 0:
        raise PacehpcError(
            f"backend.gpu_config.gpu_ind: {config.gpu_ind} asks for a GPU, but this run uses the backend {backend}. "
            "Remove it, or write -1, which means no GPU."
        )
    if config.mem_limit > 0 and backend != "cuda":
        log.info("backend.gpu_config.mem_limit: not used, the backend %s needs no GPU", backend)


def _device(settings: Settings, comm: Any | None) -> str:
    """This rank's host and GPU, for the log. Raises PacehpcError where there is none to use."""
    from pacehpc.backends.cuda import describe, load_cupy

    options = gpu_options(settings, parallel.node_rank(comm))
    count = load_cupy().cuda.runtime.getDeviceCount()
    index = options.local_rank % count if options.device is None else options.device
    if index >= count:
        raise PacehpcError(f"GPU {index} was asked for, but only {count} are visible (numbered from 0).")
    shared = len(range(index, options.ranks_per_node, count)) if options.device is None else 1
    return f"{platform.node()}, {describe(index)}" + (f", shared by {shared} ranks" if shared > 1 else "")


def gpu_options(settings: Settings, node: tuple[int, int]) -> EvaluatorOptions:
    """Options of the cuda backend for a rank; node: its rank on its node, and the ranks there."""
    from pacehpc.backends.cuda import device_options

    config = settings.backend.gpu_config
    return device_options(config.gpu_ind, config.mem_limit, *node)


def backend_options(
    settings: Settings,
    potential: Potential,
    structures: Sequence[Structures],
    stress: bool = False,
    node: tuple[int, int] = (0, 1),
    piece: float = 0.0,
    refuse: bool = True,
) -> EvaluatorOptions:
    """Options of the backend that keep this rank within backend.memory_limit, else within what is free.

    structures: what the rank evaluates, in memory; stress: virials are needed; node: the rank on its node, and the
    ranks that share the machine's memory; piece: bytes of what is read from the file in turn. Raises PacehpcError where
    the limit is too small; refuse False: a warning, because what has been fitted would be lost.
    """
    backend = backends.resolve(settings.backend.evaluator)
    if backend == "cuda":
        return gpu_options(settings, node)
    if backend != "cpu":
        return EvaluatorOptions()
    return_freed_memory()
    now = resident_memory()
    held = sum(memory.structures_memory(s.n_atoms, s.n_bonds, s.n_structures) for s in structures)
    fixed = now - held + piece
    kept, least = (fixed + cpu_memory(potential, structures, stress, keep) for keep in (True, False))
    limit = settings.backend.memory_limit
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
    log.info("Memory of a rank: about %.2f GiB at most, %.2f GiB now", peak / 2**30, now / 2**30)
    return EvaluatorOptions(store_moments=None if kept <= limit else False)


def cpu_memory(
    potential: Potential, structures: Sequence[Structures], stress: bool, store_moments: bool | None
) -> float:
    """Bytes of these structures and of their evaluators; store_moments: they keep G of every atom (None: as usual)."""
    from pacehpc.backends.compile import lanes
    from pacehpc.backends.cpu import default_batch_atoms

    shape, total = make_shape(potential, stress=stress), 0.0
    n = len(shape.elements)
    components = max(t.graph.n_components for t in shape.elements)
    batch_atoms = default_batch_atoms(8 * (3 * components + max(t.n_moments for t in shape.elements)), n)
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
            batch_atoms,
        )
    return total
