"""What a run may use: memory of each rank, and GPUs that the input names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pacehpc import backends, parallel
from pacehpc.errors import PacehpcError

if TYPE_CHECKING:
    from pacehpc.backends.interface import Structures
    from pacehpc.config.models import Settings
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

PER_BOND = 130.0  # bytes: vectors and neighbours as read, and what the kernels keep of a bond
PER_ATOM = 400.0
PER_STRUCTURE = 500.0
SCRATCH = 8.0 * 2**20  # of a batch of atoms


def check_gpu(settings: Settings, comm: Any | None) -> None:
    """Refuse a GPU that cannot be used; say what of backend.gpu_config does not matter. By all ranks together."""
    config, backend = settings.backend.gpu_config, backends.resolve(settings.backend.evaluator)
    _, ranks_here = parallel.node_rank(comm)
    if not parallel.is_root(comm) or backend == "cuda":
        return
    if config.gpu_ind is not None and config.gpu_ind >= 0 and ranks_here > 1:
        log.info("backend.gpu_config.gpu_ind: not used, several ranks run on this node")
    elif config.gpu_ind is not None and config.gpu_ind >= 0:
        raise PacehpcError(
            f"backend.gpu_config.gpu_ind: {config.gpu_ind} asks for a GPU, but this run uses the backend {backend}. "
            "Remove it, or write -1, which means no GPU."
        )
    if config.mem_limit > 0:
        log.info("backend.gpu_config.mem_limit: not used, the backend %s needs no GPU", backend)


def backend_options(
    settings: Settings, potential: Potential, structures: Sequence[Structures], stress: bool = False
) -> dict[str, Any]:
    """Options of the backend that keep this rank within backend.memory_limit.

    structures: what the rank evaluates; stress: virials are needed. Raises PacehpcError where nothing fits.
    """
    limit = settings.backend.memory_limit
    if limit is None or backends.resolve(settings.backend.evaluator) != "cpu":
        return {}
    kept, least = (cpu_memory(potential, structures, stress, keep) for keep in (True, False))
    if least > limit:
        raise PacehpcError(
            f"backend.memory_limit: {limit / 2**30:.3g} GiB per rank, but the data of this rank need "
            f"{least / 2**30:.3g} GiB. Use more ranks or raise the limit."
        )
    return {"store_moments": False} if kept > limit else {}


def cpu_memory(potential: Potential, structures: Sequence[Structures], stress: bool, store_moments: bool) -> float:
    """Bytes that the cpu backend takes for these structures, about; store_moments: it keeps G of every atom."""
    from pacehpc.backends.shape import make_shape

    shape = make_shape(potential, stress=stress)
    total = SCRATCH
    for s in structures:
        total += PER_BOND * s.n_bonds + PER_ATOM * s.n_atoms + PER_STRUCTURE * s.n_structures
        if store_moments:
            for element, table in enumerate(shape.elements):
                total += 8.0 * table.n_moments * int((s.species == element).sum())
    return total
