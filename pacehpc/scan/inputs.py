"""From the input and a trial's values to the trial's own input."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacehpc.config.models import Settings
from pacehpc.dataset.files import find_file
from pacehpc.errors import PacehpcError
from pacehpc.potential.section import PER_ELEMENT

VARIED = (PER_ELEMENT, "rcut", "radbase", "kappa")


def space(settings: Settings) -> dict[str, list[Any]]:
    """What is varied: the ranges and choices of the section `scan`.

    Raises:
        PacehpcError: nothing is varied, or it cannot be in this input.
    """
    scan = settings.scan
    found = {} if scan is None else {key: getattr(scan, key) for key in VARIED if getattr(scan, key) is not None}
    if not found:
        raise PacehpcError(
            f"scan: is missing or varies nothing: give ranges of {', '.join(VARIED)}, such as "
            "`scan: {rcut: [5, 7], trials: 20}`."
        )
    if "kappa" in found and settings.fit.schedule is not None:
        raise PacehpcError("scan.kappa: the stages of fit.schedule have values of their own; remove one of the two.")
    if settings.data.filename is None:
        raise PacehpcError("data.filename: a scan needs data in files.")
    if "functions" not in (settings.potential or {}):
        raise PacehpcError("potential: a scan needs elements, bonds and functions here, not the file of a potential.")
    if scan.choose_by == "held_out" and settings.data.test_size is not None:
        raise PacehpcError(
            "data.test_size: takes a test set out of the data, of which a scan would hold out a further part. Name "
            "test data in data.test_filename (`pacehpc data split` makes the files), or choose by the test set with "
            "`scan: {choose_by: test}`."
        )
    if scan.choose_by == "test" and settings.data.test_size is None and settings.data.test_filename is None:
        raise PacehpcError(
            "scan.choose_by: test, but there is no test set; leave it out to hold a part of the data out."
        )
    return found


def trial_input(settings: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    """The input of a trial, all of its files by absolute paths.

    Args:
        settings: of the whole scan.
        values: of what is varied.
    """
    body = copy.deepcopy(settings.model_dump(exclude_none=True, by_alias=True))
    potential, data = body["potential"], body["data"]
    if PER_ELEMENT in values:
        potential["functions"][PER_ELEMENT] = values[PER_ELEMENT]
    for key in ("rcut", "radbase"):
        if key in values:
            for name, bond in potential["bonds"].items():
                if key in bond or name == "ALL":
                    bond[key] = values[key]
    if "rcut" in values:
        body.pop("cutoff", None)  # it reaches no further than the bonds
    if "kappa" in values:
        body["fit"]["loss"]["kappa"] = values["kappa"]
    folder = data.pop("datapath", None)
    for key in ("filename", "test_filename"):
        if key in data:
            data[key] = [str(find_file(name, folder).resolve()) for name in data[key]]
    weighting = body["fit"].get("weighting")
    if weighting and "filename" in weighting:
        weighting["filename"] = str(find_file(weighting["filename"], folder).resolve())
    if settings.scan.choose_by == "held_out":
        data.pop("test_filename", None)  # no trial sees it
        data["test_size"] = settings.scan.held_out
    return body


def problem_of(settings: Settings) -> dict[str, Any]:
    """What all trials of a scan share: other values mean another scan."""
    body = trial_input(settings, {})
    body.pop("backend", None)
    body.pop("checkpoint", None)
    return {"input": body, "scan": settings.scan.model_dump(exclude={"trials"}, exclude_none=True)}


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial is fitted."""
    return folder / f"trial_{number:04d}"
