"""Whether and how an unfinished fit of this folder goes on."""

from __future__ import annotations

import hashlib
import logging
import platform
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

import pacehpc
from pacehpc import backends
from pacehpc.checkpoint.compatibility import (
    ANOTHER_FIT,
    ANOTHER_SHAPE,
    HARMLESS,
    OTHER_KERNELS,
    ROUNDING,
    content_hash,
    differences,
)
from pacehpc.dataset import Store
from pacehpc.errors import PacehpcError
from pacehpc.fit.data import files_of
from pacehpc.machine import blas_versions, kernel_threads

if TYPE_CHECKING:
    from pacehpc.config.models import Settings
    from pacehpc.dataset import Dataset

log = logging.getLogger("pacehpc")


def origin(settings: Settings, ranks: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What the numbers of a fit depend on; ranks: the CPU model of each rank, and what its kernels are made with."""
    processors, kernels = zip(*ranks, strict=True)
    return {
        "settings": settings.model_dump(mode="json", by_alias=True),
        "data": content_hash(files_of(settings)),
        "potential files": content_hash(_potential_files(settings.potential)),
        "ranks": len(processors),
        "backend": backends.resolve(settings.backend.evaluator),
        "processors": sorted(set(processors)),
        "kernels": "; ".join(sorted(set(kernels))),
        "versions": {
            "pacehpc": pacehpc.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            **blas_versions(),
        },
    }


def _potential_files(section: Any) -> list[Path]:
    if isinstance(section, str):
        return [Path(section)] if Path(section).is_file() else []
    if not isinstance(section, Mapping):
        return []
    names = [section.get("filename"), *_listed(section.get("initial_potential"))]
    return [Path(name) for name in names if isinstance(name, str) and Path(name).is_file()]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def new_header(now: Mapping[str, Any], blas_threads: int) -> dict[str, Any]:
    """What every checkpoint of a new fit says."""
    return {
        "run": uuid.uuid4().hex,
        "starttime": datetime.now().isoformat(timespec="seconds"),
        "origin": dict(now),
        "threads": {"blas": blas_threads, "kernels": kernel_threads()},
    }


def old_header(
    body: Mapping[str, Any], now: Mapping[str, Any], blas_threads: int, force: bool
) -> tuple[dict[str, Any], bool]:
    """(header of the resumed fit, whether its journal has to be left) after a comparison with what it began with.

    Raises PacehpcError, naming what changed, where going on would give something else than was asked for.
    """
    found = differences(body["origin"], now)
    shape, other, kernels, rounding, harmless = (
        [d for d in found if d.meaning == meaning]
        for meaning in (ANOTHER_SHAPE, ANOTHER_FIT, OTHER_KERNELS, ROUNDING, HARMLESS)
    )
    for difference in harmless:
        log.info("Changed since, without effect on the numbers: %s", difference)
    if shape or (other and not force):
        what = "\n".join(f"  {difference}" for difference in [*shape, *other])
        ways = "bring the old ones back, or start anew with `--fresh`, which moves the old state aside"
        if shape:
            ways += (
                "; interim_potential_*.yaml from there can be given as potential.initial_potential. The parameters "
                "are others now, so that `--force-restart` cannot help"
            )
        else:
            ways += ", or go on from the best point so far with what is there now: `--force-restart`"
        raise PacehpcError(
            f"This folder holds an unfinished fit, and since it began these have changed:\n{what}\nTo go on: {ways}."
        )
    for difference in other:
        log.warning("Changed since, accepted by --force-restart: %s", difference)
    for difference in kernels:
        log.warning(
            "Changed since: %s. Their numbers agree to round-off only: what is recorded is not replayed, and the fit "
            "goes on from its best point, not bit for bit",
            difference,
        )
    for difference in rounding:
        log.warning(
            "Changed since: %s. The fit goes on from where it was; its numbers agree to round-off, not bit for bit",
            difference,
        )
    # an optimizer's steps depend on the threads of BLAS; sums of kernels on no threads
    blas = body["threads"]["blas"]
    if blas != blas_threads:
        log.info("Threads of BLAS as before, %d, so that the optimizer's numbers are the same", blas)
    header = {key: body[key] for key in ("run", "starttime", "origin")}
    header["threads"] = {"blas": blas, "kernels": kernel_threads()}
    if found:
        header["origin"] = dict(now)
    return header, bool(other or kernels)


_COLUMNS = (
    "numbers", "positions", "cells", "pbc", "atom_offsets", "energy_corrected", "flat_forces", "stress", "w_energy",
    "flat_w_forces", "low",
)  # fmt: skip


def fingerprint(train: Dataset, test: Dataset | None, stores: Mapping[str, Path]) -> dict[str, str]:
    """Hashes of the prepared data: of what the loss is made of, and of their cut into virtual shards."""
    values, cut = hashlib.sha256(), hashlib.sha256()
    for data in (train, test):
        for name in _COLUMNS:
            column = None if data is None else getattr(data, name)
            values.update(b"-" if column is None else np.ascontiguousarray(column))
    for name in sorted(stores):
        with Store(stores[name]) as store:
            cut.update(np.ascontiguousarray(store.rows(0, 1)))
            cut.update(np.ascontiguousarray(store.shard_bounds(0, 1)))
    return {"values": values.hexdigest(), "cut": cut.hexdigest()}


def changed_data(before: Mapping[str, str] | None, now: Mapping[str, str], force: bool) -> bool:
    """Whether the prepared data are others than those that the fit began with, by their fingerprints.

    Raises PacehpcError if so, unless force. A checkpoint of before there were fingerprints knows nothing of it.
    """
    if before is None or before == now:
        return False
    if before["values"] == now["values"]:
        log.warning(
            "Changed since: the prepared data were made anew and cut in another way. The fit goes on from where it "
            "was; its numbers agree to round-off, not bit for bit"
        )
        return False
    if not force:
        raise PacehpcError(
            "This folder holds an unfinished fit, and the prepared data are not those that it began with, although "
            "data and settings say the same (a database that gives other structures now, or another version of this "
            "program). To go on: bring back the old data, or start anew with `--fresh`, which moves the old state "
            "aside, or go on from the best point so far with what is there now: `--force-restart`."
        )
    log.warning("Changed since, accepted by --force-restart: the prepared data")
    return True


def describe(body: Mapping[str, Any], folder: Path) -> str:
    """What was found, in a line."""
    if body["stage"] == "finish":
        return "Found a fit whose minimisations are finished: predictions and the final files are made"
    start = body["start"]
    return (
        f"Found an unfinished fit, begun {body['starttime']}, in {folder}: it goes on in ladder step "
        f"{body['ladder_step']}, cycle {body['cycle']} ({len(start['x'])} trainable parameters)"
    )
