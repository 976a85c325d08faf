"""Whether and how an unfinished fit of this folder is resumed."""

from __future__ import annotations

import hashlib
import logging
import platform
import re
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
from pacehpc.checkpoint.state import FOLDER
from pacehpc.dataset import Store
from pacehpc.errors import PacehpcError
from pacehpc.fit.data import files_of
from pacehpc.fit.evaluations import Checkpoints
from pacehpc.fit.plan import Plan
from pacehpc.machine import blas_versions, kernel_threads, processor, set_blas_threads, set_kernel_threads
from pacehpc.parallel import Ranks
from pacehpc.walltime import Stop

if TYPE_CHECKING:
    from pacehpc.config.models import Settings
    from pacehpc.dataset import Dataset

log = logging.getLogger("pacehpc")


def open_checkpoints(
    settings: Settings,
    ranks: Ranks,
    threads: Mapping[str, int],
    resume: Mapping[str, Any] | None,
    force: bool,
    stop: Stop | None,
) -> tuple[Checkpoints, bool]:
    """The checkpoints of a new fit, or of the resumed one with its threads; whether its journal has to be left.

    Args:
        settings: with the backend that all ranks agreed on.
        ranks: all of them take part.
        threads: of BLAS and of the kernels, now.
        resume: the checkpoint of the unfinished fit; on the root.
        force: resume although data or settings have changed.
        stop: asked during the fit.

    Raises:
        PacehpcError: something has changed that makes it another fit.
    """
    found = ranks.gather((processor(), backends.made_with(settings.backend.evaluator)))

    def header() -> tuple[dict[str, Any], bool]:
        now = origin(settings, found)
        if resume is None:
            return new_header(now, threads["blas"]), False
        log.info("%s", describe(resume, FOLDER))
        return old_header(resume, now, threads["blas"], force)

    agreed, changed = ranks.share(header)
    set_blas_threads(agreed["threads"]["blas"])
    set_kernel_threads(agreed["threads"]["kernels"])
    return Checkpoints(FOLDER, agreed, settings.checkpoint.journal_limit, stop), changed


def record_data(plan: Plan, checkpoints: Checkpoints, resume: Mapping[str, Any] | None, force: bool) -> bool:
    """Record the fingerprint of the prepared data; True if it differs from the one the unfinished fit started with."""
    now = checkpoints.header["prepared"] = fingerprint(plan.train, plan.test, plan.stores)
    return resume is not None and changed_data(resume["prepared"], now, force)


def origin(settings: Settings, ranks: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What the numbers of a fit depend on; ranks: the CPU model of each rank, and what its kernels are made with."""
    processors, kernels = zip(*ranks, strict=True)
    return {
        "settings": _settings(settings),
        "data": content_hash(files_of(settings.data, settings.fit.weighting)),
        "potential files": content_hash(_potential_files(settings.potential)),
        "ranks": len(processors),
        "backend": settings.backend.evaluator,
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


def _settings(settings: Settings) -> dict[str, Any]:
    """All settings; stages of a schedule by their number, so that each is compared with its own."""
    found = settings.model_dump(mode="json", by_alias=True)
    stages = found["fit"]["schedule"]
    if stages is not None:
        found["fit"]["schedule"] = {str(number): stage for number, stage in enumerate(stages, 1)}
    return found


def _same_stage(body: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises PacehpcError where the input no longer has the stage that was running."""
    before, stages = (origin["settings"]["fit"].get("schedule") for origin in (body["origin"], now))
    if before is not None and body["cycle"] >= len(stages or ()):
        raise PacehpcError(
            f"This folder holds an unfinished fit in stage {body['cycle'] + 1} of its schedule, which the input no "
            "longer has. Bring the old fit.schedule back, or start again with `--fresh`, which moves the old state "
            "aside."
        )


def _of_later_stage(name: str, body: Mapping[str, Any]) -> bool:
    """Whether a setting is of a stage that the unfinished fit has not begun; on a ladder each has been."""
    stage = re.match(r"settings\.fit\.schedule\.(\d+)\.", name)
    if stage is None or body["stage"] != "fit" or body["origin"]["settings"]["fit"].get("ladder_step") is not None:
        return False
    return int(stage[1]) > body["cycle"] + 1


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
    """(header of the resumed fit, whether its journal has to be left) after a comparison with what it started with.

    Raises:
        PacehpcError: what changed would give another fit than was asked for; it is named.
    """
    found = differences(body["origin"], now)
    ahead = [difference for difference in found if _of_later_stage(difference.name, body)]
    _same_stage(body, now)
    for difference in ahead:
        log.info("Changed since, in a stage that has not begun: %s", difference)
    shape, other, kernels, rounding, harmless = (
        [d for d in found if d.meaning == meaning and d not in ahead]
        for meaning in (ANOTHER_SHAPE, ANOTHER_FIT, OTHER_KERNELS, ROUNDING, HARMLESS)
    )
    for difference in harmless:
        log.info("Changed since, without effect on the numbers: %s", difference)
    if shape or (other and not force):
        what = "\n".join(f"  {difference}" for difference in [*shape, *other])
        ways = "bring the old ones back, or start again with `--fresh`, which moves the old state aside"
        if shape:
            ways += (
                "; interim_potential_*.yaml from there can be given as potential.initial_potential. The parameter "
                "vector has a different layout, so that `--force-restart` cannot help"
            )
        else:
            ways += ", or resume from the best point so far with what is there now: `--force-restart`"
        raise PacehpcError(
            f"This folder holds an unfinished fit, and since then these have changed:\n{what}\nTo continue: {ways}."
        )
    for difference in other:
        log.warning("Changed since, accepted by --force-restart: %s", difference)
    for difference in kernels:
        log.warning(
            "Changed since: %s. Results now agree only to round-off, so the journal is not replayed; the fit resumes "
            "from its best point and will not be bit-identical",
            difference,
        )
    for difference in rounding:
        log.warning(
            "Changed since: %s. The fit resumes where it was; its numbers agree to round-off, not bit for bit",
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


def changed_data(before: Mapping[str, str], now: Mapping[str, str], force: bool) -> bool:
    """Whether the prepared data differ from those that the fit started with, by their fingerprints.

    Raises:
        PacehpcError: they do, unless force.
    """
    if before == now:
        return False
    if before["values"] == now["values"]:
        log.warning(
            "Changed since: the prepared data were rebuilt and cut in another way. The fit resumes where it was; its "
            "numbers agree to round-off, not bit for bit"
        )
        return False
    if not force:
        raise PacehpcError(
            "This folder holds an unfinished fit, and the prepared data are not those that it started with, although "
            "data and settings are the same (a database that gives other structures now, or another version of this "
            "program). To continue: bring back the old data, or start again with `--fresh`, which moves the old state "
            "aside, or resume from the best point so far with what is there now: `--force-restart`."
        )
    log.warning("Changed since, accepted by --force-restart: the prepared data")
    return True


def describe(body: Mapping[str, Any], folder: Path) -> str:
    """The unfinished fit that was found, in a line."""
    if body["stage"] == "finish":
        return "Found a fit whose minimisations are finished: computing predictions and final files"
    start = body["start"]
    return (
        f"Found an unfinished fit, started {body['starttime']}, in {folder}: resuming it in ladder step "
        f"{body['ladder_step']}, cycle {body['cycle']} ({len(start['x'])} trainable parameters)"
    )
