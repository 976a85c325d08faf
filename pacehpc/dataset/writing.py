"""Data files in every format that is read; the format follows from the name."""

from __future__ import annotations

import gzip
import io
import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols

from pacehpc.dataset.database import ingest
from pacehpc.dataset.dataset import Dataset
from pacehpc.dataset.frames import frame_of, write_frame
from pacehpc.dataset.store_writing import write_store
from pacehpc.errors import PacehpcError
from pacehpc.replacing import replacing
from pacehpc.structures import virial_matrix

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("pacehpc")

FORMATS = {
    "frame": r"\.(pckl|pkl|pickle)(\.(gzip|gz))?$",
    "extxyz": r"\.(extxyz|xyz)(\.gz)?$",
    "asedb": r"\.db$",
    "store": r"\.(h5|hdf5)$",
}


def format_of(path: str | os.PathLike[str]) -> str:
    """frame, extxyz, asedb or store; raises PacehpcError where the name tells none."""
    for kind, pattern in FORMATS.items():
        if re.search(pattern, str(path)):
            return kind
    raise PacehpcError(f"{path}: the format is not known from the name; use .pckl.gzip, .extxyz, .xyz.gz, .db or .h5.")


def write_data(data: Dataset, path: str | os.PathLike[str], cutoff: float = 0.0, calculator: str = "unknown") -> None:
    """Write structures as they came from `read_raw`: with the columns that all of them have.

    Args:
        data: eV, Å.
        path: .pckl.gzip, .extxyz, .xyz.gz, .db or .h5.
        cutoff: of the neighbour lists in a store, Å; 0: none.
        calculator: its name in a database.

    Raises:
        PacehpcError: an unknown format, or a file that cannot be written.
    """
    path, kind = Path(path), format_of(path)
    data = _of_all(data)
    try:
        if kind == "frame":
            write_frame(raw_frame(data), path)
        elif kind == "extxyz":
            with replacing(path) as beside:
                _write_text(data, beside, packed=path.suffix == ".gz")
        elif kind == "asedb":
            with replacing(path) as beside:
                ingest(str(beside), data, calculator, complete=True)
        else:
            write_store(path, _with_given_weights(data), float(cutoff))
    except OSError as problem:
        raise PacehpcError(f"{path}: cannot be written ({problem.strerror or problem}).") from None


def raw_frame(data: Dataset) -> pd.DataFrame:
    """The columns that the data came with, no others."""
    frame = frame_of(_with_given_weights(data))
    if not np.isfinite(data.energy_corrected).any():
        frame = frame.drop(columns=["energy_corrected", "energy_corrected_per_atom"])
    if "w_energy" not in data.extra:
        frame = frame.drop(columns=["w_energy", "w_forces"])
    if "w_factor" in data.extra:
        frame["w_factor"] = data.extra["w_factor"]
    return frame


def _with_given_weights(data: Dataset) -> Dataset:
    if "w_energy" not in data.extra:
        return data
    w_energy, w_forces = data.extra["w_energy"], data.extra["w_forces"]
    return replace(data, w_energy=w_energy, flat_w_forces=w_forces, weighting="given")


def _of_all(data: Dataset) -> Dataset:
    """Without `energy_corrected` where only some structures have it: it cannot be read back from a part."""
    known = np.isfinite(data.energy_corrected)
    total = np.zeros(len(data), bool) if data.energy is None else np.isfinite(data.energy)
    if known.all() or not total.any():
        return data
    if (known | total).all() and not total.all():
        raise PacehpcError("Some files have only 'energy', some only 'energy_corrected': convert them one by one.")
    if known.any():
        log.warning("energy_corrected is left out: not all files have it")
    return replace(data, energy_corrected=np.full(len(data), np.nan))


def _write_text(data: Dataset, path: Path, packed: bool) -> None:
    with open(path, "wb") as file:
        if packed:
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as inner:
                _write_frames(data, io.TextIOWrapper(inner, encoding="utf-8"))
        else:
            _write_frames(data, io.TextIOWrapper(file, encoding="utf-8"))


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(v)) for v in np.ravel(values))


def _text_key(key: str, text: str) -> str:
    cleaned = re.sub(r'["\\\s]', "_", text)
    return f'{key}="{cleaned}"'


def _write_frames(data: Dataset, out: io.TextIOWrapper) -> None:
    """Extended xyz with all digits, of which ASE keeps eight; keys as `REF_energy`, which ASE leaves alone."""
    weights = data.per_structure(data.extra["w_forces"]) if "w_forces" in data.extra else None
    forces, bounds = data.forces, data.atom_offsets
    for s in range(len(data)):
        keys = [f'pbc="{" ".join("T" if p else "F" for p in data.pbc[s])}"']
        if data.pbc[s].any() or data.cells[s].any():
            keys.insert(0, f'Lattice="{_numbers(data.cells[s])}"')
        if data.energy is not None and np.isfinite(data.energy[s]):
            keys.append(f"REF_energy={float(data.energy[s])!r}")
        if np.isfinite(data.energy_corrected[s]):
            keys.append(f"energy_corrected={float(data.energy_corrected[s])!r}")
        if data.stress is not None and np.isfinite(data.stress[s]).all():
            keys.append(f'REF_stress="{_numbers(virial_matrix(data.stress[s]))}"')
        for key in ("w_energy", "w_factor"):
            if key in data.extra:
                keys.append(f"{key}={float(data.extra[key][s])!r}")
        group = data.info[s].get("config_type", "") if data.info else ""
        if group and data.names[s] not in ("", group):
            keys.append(_text_key("name", data.names[s]))
        if group or data.names[s]:
            keys.append(_text_key("config_type", str(group or data.names[s])))
        known = np.isfinite(forces[s]).any()
        columns = "species:S:1:pos:R:3" + (":REF_forces:R:3" if known else "")
        columns += ":w_forces:R:1" if weights is not None else ""
        a, b = bounds[s], bounds[s + 1]
        out.write(f"{b - a}\nProperties={columns} {' '.join(keys)}\n")
        for k, (z, r, f) in enumerate(zip(data.numbers[a:b], data.positions[a:b], forces[s], strict=True)):
            extra = "" if weights is None else f" {float(weights[s][k])!r}"
            force = f" {_numbers(f)}" if known else ""
            out.write(f"{chemical_symbols[z]} {_numbers(r)}{force}{extra}\n")
    out.flush()
    out.detach()
