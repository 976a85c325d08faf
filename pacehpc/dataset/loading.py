"""From data files to a `Dataset`: read, check, subtract reference energies, weight."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.dataset import checks, neighbours, reference_energies, weights
from pacehpc.dataset.dataset import Dataset, progress_bar
from pacehpc.dataset.files import file_hash, find_file, read_bytes
from pacehpc.dataset.reading import frame_table, read_table
from pacehpc.dataset.table import KEYS, Table
from pacehpc.dataset.unpickle import unpickle_frame
from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")


def load_dataset(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    elements: Sequence[str] | None = None,
    rows: slice | Sequence[int] | None = None,
    reference_energy: float | str | Mapping[str, float] | None = None,
    weighting: Mapping[str, Any] | None = None,
    datapath: str | os.PathLike[str] | None = None,
    *,
    ignore_weights: bool = False,
    aug_factor: float = 1e-4,
    stress_units: str = "eV/A3",
    seed: int = 42,
    keys: Mapping[str, str] | None = None,
) -> Dataset:
    """Read, check and weight reference data.

    Args:
        files: one or several pickled pandas frames, extended xyz files, ASE databases or HDF5 stores.
        elements: the elements that may occur (None: any).
        rows: which structures of all files together (None: all).
        reference_energy: a number or {element: eV, 'shift': eV/atom}, 'auto', or None for `energy_corrected`.
        weighting: {'type': 'EnergyBasedWeightingPolicy' | 'ExternalWeightingPolicy', ...}; None: columns
            `w_energy` and `w_forces` if both are there, else uniform.
        datapath: folder of relative file names; $PACEMAKERDATAPATH is searched, too.
        ignore_weights: do not use the columns `w_energy` and `w_forces`; `w_factor` counts in any case.
        aug_factor: factor of the weights of structures whose name starts with 'augmented'.
        stress_units: of the column `stress`: eV/A3, GPa, kbar or -kbar (VASP).
        seed: of random selections by the weighting policy.
        keys: names in extended xyz files and ASE databases, such as {"energy": "dft_energy"}.

    Raises:
        PacehpcError: what is wrong with which row of which file.
    """
    data = read_dataset(files, elements, rows, reference_energy, datapath, stress_units, keys)
    return weighted(data, weighting, datapath, ignore_weights, aug_factor, seed)


def read_dataset(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    elements: Sequence[str] | None = None,
    rows: slice | Sequence[int] | None = None,
    reference_energy: float | str | Mapping[str, float] | None = None,
    datapath: str | os.PathLike[str] | None = None,
    stress_units: str = "eV/A3",
    keys: Mapping[str, str] | None = None,
) -> Dataset:
    """`load_dataset` before any weighting: uniform weights, weights of the data in `extra`."""
    return referenced(read_raw(files, elements, rows, datapath, stress_units, keys), reference_energy)


def referenced(data: Dataset, reference_energy: float | str | Mapping[str, float] | None) -> Dataset:
    """The structures with E^ref in `energy_corrected`; `reference_energy` as in `load_dataset`. Changes `data`."""
    corrected = data.energy_corrected if np.isfinite(data.energy_corrected).all() else None
    if corrected is None and np.isfinite(data.energy_corrected).any() and reference_energy is None:
        raise PacehpcError("Some data files have a column 'energy_corrected', some not; set data.reference_energy.")
    energies, resolved = reference_energies.reference_energies(
        reference_energy, data.atom_offsets, data.numbers, data.volumes, data.energy, corrected, data.sources[0]
    )
    data.energy_corrected, data.reference_energy = energies, resolved
    data.low = weights.low_energies(energies, data.atoms_per_structure, None)
    for name in data.sources:
        log.info("data: %s", name)
    log.info("data: %d structures, %d atoms, %s", len(data), data.n_atoms, " ".join(data.elements))
    return data


def read_raw(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    elements: Sequence[str] | None = None,
    rows: slice | Sequence[int] | None = None,
    datapath: str | os.PathLike[str] | None = None,
    stress_units: str = "eV/A3",
    keys: Mapping[str, str] | None = None,
) -> Dataset:
    """Checked structures as the files hold them; `energy_corrected` is NaN where a file has none."""
    names = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    if not names:
        raise PacehpcError("data.filename: no files are named.")
    unknown = [key for key in keys or {} if key not in KEYS]
    if unknown:
        raise PacehpcError(f"data.keys: unknown key {unknown[0]!r}; known: {', '.join(KEYS)}.")
    paths = [find_file(name, datapath) for name in names]
    data = _joined([checked_table(read_table(path, keys), elements, stress_units) for path in paths])
    data.sha256 = [file_hash(path) for path in paths]
    if rows is not None:
        data = data.subset(rows)
    if data.n_structures == 0:
        raise PacehpcError(f"{', '.join(map(str, paths))}: no structures.")
    _too_close(data)
    return data


def checked_table(table: Table, elements: Sequence[str] | None, stress_units: str) -> Dataset:
    """One file's table as a Dataset; `energy_corrected` is NaN where the file has none."""
    columns = table.columns
    if "energy" not in columns and "energy_corrected" not in columns:
        raise PacehpcError(
            f"{table.source}: neither a column 'energy' nor 'energy_corrected' (found: {_list(columns)})."
        )
    if "forces" not in columns:
        raise PacehpcError(f"{table.source}: no column 'forces' (found: {_list(columns)}).")
    offsets, numbers, positions, cells, pbc = checks.geometry(table)
    checks.known_elements(table, offsets, numbers, elements)
    n = len(table.labels)
    w_energy, w_forces = weights.uniform(np.diff(offsets))
    extra: dict[str, np.ndarray] = {}
    if "w_energy" in columns and "w_forces" in columns:
        extra["w_energy"] = checks.scalars(table, "w_energy")
        extra["w_forces"] = checks.per_atom(table, "w_forces", offsets, ())
    elif "w_energy" in columns or "w_forces" in columns:
        found, missing = ("w_energy", "w_forces") if "w_energy" in columns else ("w_forces", "w_energy")
        log.warning("%s: %s is not used, weights need the column %s as well", table.source, found, missing)
    if "w_factor" in columns:
        extra["w_factor"] = checks.scalars(table, "w_factor")
    names = columns.get("name", [""] * n)
    corrected = checks.scalars(table, "energy_corrected") if "energy_corrected" in columns else np.full(n, np.nan)
    return Dataset(
        sources=[table.source],
        source=np.zeros(n, np.int32),
        rows=np.arange(n),
        index=list(table.labels),
        names=[name if isinstance(name, str) else "" for name in names],
        info=[_plain(one) for one in table.info or [{}] * n],
        atom_offsets=offsets,
        numbers=numbers,
        positions=positions,
        cells=cells,
        pbc=pbc,
        energy=checks.scalars(table, "energy") if "energy" in columns else None,
        energy_corrected=corrected,
        flat_forces=checks.per_atom(table, "forces", offsets, (3,)),
        stress=checks.stresses(table, table.stress_units or stress_units) if "stress" in columns else None,
        w_energy=w_energy,
        flat_w_forces=w_forces,
        low=np.ones(n, bool),
        extra=extra,
    )  # fmt: skip


def _plain(info: Mapping[str, Any]) -> dict[str, Any]:
    """What frames may hold that are read again: no complex numbers, bytes or dates."""
    found = {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
    return {key: value for key, value in found.items() if isinstance(value, (str, int, float, bool))}


def _list(columns: Mapping[str, Any]) -> str:
    return ", ".join(map(str, columns)) or "nothing"


def _joined(parts: list[Dataset]) -> Dataset:
    """Several files as one Dataset, rows numbered through where labels would repeat."""
    labels = [label for p in parts for label in p.index]
    total = len(labels)
    numbered = len(set(map(str, labels))) < total
    if numbered:
        log.info("%s: row labels repeat, rows are numbered from 0", ", ".join(p.sources[0] for p in parts))
        labels = list(range(total))
    if len(parts) == 1:
        return replace(parts[0], index=labels, numbered=numbered)
    counts = [len(p) for p in parts]
    n_atoms = np.concatenate([p.atoms_per_structure for p in parts])
    w_energy, w_forces = weights.uniform(n_atoms)
    extra = {
        name: np.concatenate([p.extra[name] for p in parts])
        for name in ("w_energy", "w_forces")
        if all("w_energy" in p.extra for p in parts)
    }
    if not extra and any("w_energy" in p.extra for p in parts):
        log.warning("not all data files have the columns w_energy and w_forces: they are not used")
    if any("w_factor" in p.extra for p in parts):
        extra["w_factor"] = np.concatenate([p.extra.get("w_factor", np.ones(len(p))) for p in parts])
    stress = None
    if any(p.stress is not None for p in parts):
        stress = np.concatenate([np.full((len(p), 6), np.nan) if p.stress is None else p.stress for p in parts])
    return Dataset(
        sources=[p.sources[0] for p in parts],
        source=np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        rows=np.arange(total),
        index=labels,
        names=[name for p in parts for name in p.names],
        info=[info for p in parts for info in p.info],
        atom_offsets=np.concatenate(([0], np.cumsum(n_atoms))).astype(np.int64),
        numbers=np.concatenate([p.numbers for p in parts]),
        positions=np.concatenate([p.positions for p in parts]),
        cells=np.concatenate([p.cells for p in parts]),
        pbc=np.concatenate([p.pbc for p in parts]),
        energy=np.concatenate([p.energy for p in parts]) if all(p.energy is not None for p in parts) else None,
        energy_corrected=np.concatenate([p.energy_corrected for p in parts]),
        flat_forces=np.concatenate([p.flat_forces for p in parts]),
        stress=stress,
        w_energy=w_energy,
        flat_w_forces=w_forces,
        low=np.ones(total, bool),
        extra=extra,
        numbered=numbered,
    )


def _too_close(data: Dataset) -> None:
    """Raises PacehpcError at the first structure with two atoms (or images) closer than 0.1 Å."""
    bar = progress_bar(len(data), "checks")
    found = neighbours.first_closer_than(
        checks.SHORTEST, data.atom_offsets, data.positions, data.cells, data.pbc, None if bar is None else bar.update
    )
    if bar is not None:
        bar.close()
    if found is not None:
        row, i, j = found
        pair = f"atom {i} and its own image" if i == j else f"atoms {i} and {j}"
        raise PacehpcError(f"{data.where(row)}: {pair} are closer than {checks.SHORTEST} Å.")


def weighted(
    data: Dataset,
    weighting: Mapping[str, Any] | None = None,
    datapath: str | os.PathLike[str] | None = None,
    ignore_weights: bool = False,
    aug_factor: float = 1e-4,
    seed: int = 42,
) -> Dataset:
    """The structures that a weighting policy keeps, with normalised weights and `low` flags."""
    selection = _selection(data, weighting, datapath, ignore_weights, seed)
    low = weights.low_energies(data.energy_corrected, data.atoms_per_structure, selection.above_hull)
    kept = data if len(selection.rows) == len(data) else data.subset(selection.rows)
    kept.low, kept.weighting = low[selection.rows], selection.policy
    kept.above_hull = None if selection.above_hull is None else selection.above_hull[selection.rows]
    w_energy, w_forces = selection.w_energy, selection.w_forces
    factor = np.array(kept.extra.get("w_factor", np.ones(len(kept))))
    factor[[name.startswith("augmented") for name in kept.names]] *= aug_factor
    kept.w_energy, kept.flat_w_forces = weights.normalise(
        w_energy * factor, w_forces * np.repeat(factor, kept.atoms_per_structure), ", ".join(kept.sources)
    )
    return kept


def _selection(
    data: Dataset,
    weighting: Mapping[str, Any] | None,
    datapath: str | os.PathLike[str] | None,
    ignore_weights: bool,
    seed: int,
) -> weights.Selection:
    everything = np.arange(len(data))
    kind = None if weighting is None else weighting.get("type", "uniform")
    if kind not in (None, "uniform", "EnergyBasedWeightingPolicy", "ExternalWeightingPolicy"):
        raise PacehpcError(
            f"fit.weighting.type: {kind!r} is none of uniform, EnergyBasedWeightingPolicy, ExternalWeightingPolicy."
        )
    if "w_energy" in data.extra and not ignore_weights:
        if kind not in (None, "uniform"):
            log.warning("the data have weights (w_energy, w_forces): fit.weighting is not applied")
        return weights.Selection(everything, data.extra["w_energy"], data.extra["w_forces"], policy="columns")
    if kind == "EnergyBasedWeightingPolicy":
        return weights.energy_based(
            weighting, data.atom_offsets, data.numbers, data.pbc, data.energy_corrected, data.flat_forces, seed
        )
    if kind == "ExternalWeightingPolicy":
        unknown = [k for k in weighting if k not in ("type", "filename")]
        if unknown or "filename" not in weighting:
            raise PacehpcError(f"fit.weighting: ExternalWeightingPolicy needs 'filename' and nothing else {unknown}.")
        path: Path = find_file(weighting["filename"], datapath)
        content = read_bytes(path)
        selection = weights.external(*unpickle_frame(content, str(path)), str(path), data.index, data.atom_offsets)
        if data.numbered:
            _same_structures(data, content, str(path))
        return selection
    return weights.Selection(everything, *weights.uniform(data.atoms_per_structure))


def _same_structures(data: Dataset, content: bytes, where: str) -> None:
    """Raises PacehpcError unless a pickled frame of weights holds the structures of its labels.

    For rows that were numbered: in another order of the files their numbers would belong to other structures.
    """
    columns, labels = unpickle_frame(content, where)
    if "ase_atoms" not in columns:
        raise PacehpcError(
            f"{where}: the row labels of {', '.join(data.sources)} repeat, so they do not say which weights belong to "
            "which structure. Give every structure a label of its own, or keep the column 'ase_atoms' in this file, "
            "with the labels of fitting_data_info.pckl.gzip."
        )
    offsets, numbers, positions, cells, _ = checks.geometry(frame_table(content, where))
    place = {label: row for row, label in enumerate(data.index)}
    for k, label in enumerate(labels):
        row = place[label]
        here, there = slice(offsets[k], offsets[k + 1]), slice(data.atom_offsets[row], data.atom_offsets[row + 1])
        if not (
            np.array_equal(numbers[here], data.numbers[there])
            and np.allclose(positions[here], data.positions[there], rtol=0, atol=1e-6)
            and np.allclose(cells[k][data.pbc[row]], data.cells[row][data.pbc[row]], rtol=0, atol=1e-6)
        ):
            raise PacehpcError(f"{where}, row {label}: its atoms are not those of {data.where(row)}.")
