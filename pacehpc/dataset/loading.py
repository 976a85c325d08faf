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
from pacehpc.dataset.groups import GroupWeights, group_factors, log_factors, pattern_labels
from pacehpc.dataset.reading import frame_table, read_table
from pacehpc.dataset.table import KEYS, Table
from pacehpc.dataset.unpickle import unpickle_frame
from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")


NEEDED = ("energy", "forces", "stress")


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
    needed: Sequence[str] = NEEDED,
    group_weights: GroupWeights | None = None,
) -> Dataset:
    """Read, check and weight reference data.

    Args:
        files: one or several pickled pandas frames, extended xyz files, ASE trajectories or databases, HDF5 stores.
        elements: the elements that may occur (None: any).
        rows: which structures of all files together (None: all).
        reference_energy: a number or {element: eV, 'shift': eV/atom}, 'auto', or None for `energy_corrected`.
        weighting: {'type': 'EnergyBasedWeightingPolicy' | 'ExternalWeightingPolicy', ...}; None: columns `w_energy`
            and `w_forces` if both are there, else uniform.
        datapath: folder of relative file names; $PACEMAKERDATAPATH is searched, too.
        ignore_weights: do not use the columns `w_energy` and `w_forces`; `w_factor` counts in any case.
        aug_factor: factor of the weights of structures whose name starts with 'augmented'.
        stress_units: of the column `stress`: eV/A3, GPa, kbar or -kbar (VASP).
        seed: of random selections by the weighting policy.
        keys: names in the files, such as {"energy": "dft_energy"}.
        needed: what the loss will use; data may lack "energy" or "forces" that are not among it, and what is wrong
            with a column that no loss uses does not matter. A stress may always be missing.
        group_weights: factors on the weights by group, such as {"surface*": {"energy": 10, "forces": 1}}: shell
            patterns of the structures' `config_type` or the beginning of their names, as errors by group have them.

    Raises:
        PacehpcError: what is wrong with which row of which file.
    """
    data = read_dataset(files, elements, rows, reference_energy, datapath, stress_units, keys)
    return weighted(data, weighting, datapath, ignore_weights, aug_factor, seed, needed, group_weights)


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
    """The structures with E^ref in `energy_corrected`, NaN where the energy is missing. Changes `data`.

    Args:
        data: as `read_raw` gives it.
        reference_energy: as in `load_dataset`.

    Raises:
        PacehpcError: the columns do not allow what `reference_energy` asks for.
    """
    corrected = data.energy_corrected if np.isfinite(data.energy_corrected).any() else None
    if data.energy is None and corrected is None:  # for a loss of forces alone; others complain when weights are given
        return data
    wanted = "energy_corrected" if reference_energy is None else "energy"
    if (corrected if reference_energy is None else data.energy) is None and wanted in data.unusable:
        raise PacehpcError(data.unusable[wanted])
    where = ", ".join(data.sources)
    energies, resolved = reference_energies.reference_energies(
        reference_energy, data.atom_offsets, data.numbers, data.pbc, data.volumes, data.energy, corrected, where,
        data.where,
    )  # fmt: skip
    if resolved is not None and "energy" in data.unusable:
        data.unusable["energy_corrected"] = data.unusable["energy"]
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
    """Checked structures as the files hold them; NaN where energies, forces or stresses are missing."""
    names = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    if not names:
        raise PacehpcError("data.filename: no files are named.")
    unknown = [key for key in keys or {} if key not in KEYS]
    if unknown:
        raise PacehpcError(f"data.keys: unknown key {unknown[0]!r}; known: {', '.join(KEYS)}.")
    paths = [find_file(name, datapath) for name in names]
    tables = [read_table(path, keys) for path in paths]
    _keys_found(tables, keys or {})
    data = _joined([checked_table(table, elements, stress_units) for table in tables])
    data.sha256 = [file_hash(path) for path in paths]
    if rows is not None:
        data = data.subset(rows)
    if data.n_structures == 0:
        raise PacehpcError(f"{', '.join(map(str, paths))}: no structures.")
    _too_close(data)
    return data


def _keys_found(tables: Sequence[Table], keys: Mapping[str, str]) -> None:
    """Raises PacehpcError where a name in `keys` stands in none of the files."""
    for column, name in keys.items():
        if not any(column in table.columns or column in table.unread for table in tables):
            known = sorted({known for table in tables for known in table.names})
            raise PacehpcError(
                f"data.keys: {column}: {name!r} is in none of {', '.join(table.source for table in tables)}. "
                f"They have: {', '.join(known) or 'nothing'}."
            )


def checked_table(table: Table, elements: Sequence[str] | None, stress_units: str) -> Dataset:
    """One file's table as a Dataset.

    Energies, forces, stresses and weights that are missing or make no sense are NaN, and `Dataset.unusable` says what
    is wrong with the first: it is for those that use them to complain.

    Raises:
        PacehpcError: impossible atoms, or elements that are not among `elements`.
    """
    columns = table.columns
    offsets, numbers, positions, cells, pbc = checks.geometry(table)
    checks.known_elements(table, offsets, numbers, elements)
    n = len(table.labels)
    w_energy, w_forces = weights.uniform(np.diff(offsets))
    unusable = {
        name: f"{table.source}: column {name!r} cannot be read: {cause}. Write plain objects: "
        f"frame[{name!r}] = pandas.Series(list(frame[{name!r}]), index=frame.index, dtype=object)."
        for name, cause in table.unread.items()
    }
    for name, kinds in (("energy", ("energy", "energy_corrected")), ("forces", ("forces",))):
        if not any(kind in columns for kind in kinds):
            unusable.setdefault(name, _no_column(table, name))
    extra: dict[str, np.ndarray] = {}
    if "w_energy" in columns and "w_forces" in columns:
        extra["w_energy"] = checks.scalars(table, "w_energy", unusable)
        extra["w_forces"] = checks.per_atom(table, "w_forces", offsets, (), unusable, optional=False)
    elif "w_energy" in columns or "w_forces" in columns:
        found, missing = ("w_energy", "w_forces") if "w_energy" in columns else ("w_forces", "w_energy")
        log.warning("%s: %s is not used, weights need the column %s as well", table.source, found, missing)
    if "w_factor" in columns:
        columns["w_factor"] = [1.0 if checks.missing(v) else v for v in columns["w_factor"]]
        extra["w_factor"] = checks.scalars(table, "w_factor", unusable)
        if "w_factor" in unusable:
            raise PacehpcError(unusable["w_factor"])
    names = columns.get("name", [""] * n)
    energy = checks.scalars(table, "energy", unusable) if "energy" in columns else None
    corrected = np.full(n, np.nan)
    if "energy_corrected" in columns:
        corrected = checks.scalars(table, "energy_corrected", unusable)
    forces = np.full((len(numbers), 3), np.nan)
    if "forces" in columns:
        forces = checks.per_atom(table, "forces", offsets, (3,), unusable, optional=True)
    alone = offsets[:-1][np.diff(offsets) == 1]  # one atom has no force, by symmetry
    forces[alone] = np.where(np.isfinite(forces[alone]), forces[alone], 0.0)
    stress = checks.stresses(table, table.stress_units or stress_units, neighbours.volumes(cells, pbc), unusable)
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
        energy=energy,
        energy_corrected=corrected,
        flat_forces=forces,
        stress=stress,
        w_energy=w_energy,
        flat_w_forces=w_forces,
        low=np.ones(n, bool),
        extra=extra,
        unusable=unusable,
    )


def _no_column(table: Table, name: str) -> str:
    """The complaint that a file lacks a column."""
    names = f"'{name}' nor 'energy_corrected'" if name == "energy" else f"'{name}'"
    no = "neither a column" if name == "energy" else "no column"
    alone = (
        "for a fit of forces alone, set fit.loss.kappa: 1" if name == "energy" else "without forces, kappa must be 0"
    )
    return (
        f"{table.source}: {no} {names}. The file has: {', '.join(table.names) or 'nothing'}. Name the right one with "
        f"data.keys: {{{name}: NAME}} (--keys {name}=NAME on the command line); {alone}."
    )


def _plain(info: Mapping[str, Any]) -> dict[str, Any]:
    """What frames may hold that are read again: no complex numbers, bytes or dates."""
    found = {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
    return {key: value for key, value in found.items() if isinstance(value, (str, int, float, bool))}


def _joined(parts: list[Dataset]) -> Dataset:
    """Several files as one Dataset, rows numbered through where labels would repeat."""
    labels = [label for p in parts for label in p.index]
    total = len(labels)
    numbered = len(set(map(str, labels))) < total
    if numbered:
        log.info(
            "%s: rows are numbered from 0 through all files, because their labels repeat",
            ", ".join(p.sources[0] for p in parts),
        )
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

    def all_of(arrays: list[np.ndarray | None], shape: tuple[int, ...] = ()) -> np.ndarray | None:
        if all(array is None for array in arrays):
            return None
        pairs = zip(parts, arrays, strict=True)
        return np.concatenate([np.full((len(p), *shape), np.nan) if a is None else a for p, a in pairs])

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
        energy=all_of([p.energy for p in parts]),
        energy_corrected=np.concatenate([p.energy_corrected for p in parts]),
        flat_forces=np.concatenate([p.flat_forces for p in parts]),
        stress=all_of([p.stress for p in parts], (6,)),
        w_energy=w_energy,
        flat_w_forces=w_forces,
        low=np.ones(total, bool),
        extra=extra,
        numbered=numbered,
        unusable=_first_problems(parts),
    )


def _first_problems(parts: list[Dataset]) -> dict[str, str]:
    """What is wrong first with each column; a file without forces beside others that have some is all right."""
    without = [not np.isfinite(p.flat_forces).any() for p in parts]
    return {
        name: cause
        for p, bare in reversed(list(zip(parts, without, strict=True)))
        for name, cause in p.unusable.items()
        if not (name == "forces" and bare and not all(without))
    }


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
    needed: Sequence[str] = NEEDED,
    group_weights: GroupWeights | None = None,
) -> Dataset:
    """The structures that a weighting policy keeps, with normalised weights and `low` flags.

    Missing forces, and energies where they are not `needed`, get the weight 0. Arguments as of `load_dataset`.

    Raises:
        PacehpcError: energies or forces that are needed are missing; impossible weights; a pattern of `group_weights`
            that matches no structure.
    """
    if group_weights:  # of all structures: a pattern may name what the policy drops
        labels = pattern_labels(data.names, data.info)
        by_group = group_factors(labels, group_weights, "data.weights")
    selection = _selection(data, weighting, datapath, ignore_weights, seed)
    low = weights.low_energies(data.energy_corrected, data.atoms_per_structure, selection.above_hull)
    kept = data if len(selection.rows) == len(data) else data.subset(selection.rows)
    kept.low, kept.weighting = low[selection.rows], selection.policy
    kept.above_hull = None if selection.above_hull is None else selection.above_hull[selection.rows]
    if "stress" in needed and "stress" in kept.unusable:
        raise PacehpcError(kept.unusable["stress"])
    w_energy = _energies_weighted(kept, selection.w_energy, "energy" in needed)
    w_forces = _forces_weighted(kept, selection.w_forces, "forces" in needed)
    factor = np.array(kept.extra.get("w_factor", np.ones(len(kept))))
    factor[[name.startswith("augmented") for name in kept.names]] *= aug_factor
    w_energy, w_forces = w_energy * factor, w_forces * np.repeat(factor, kept.atoms_per_structure)
    if group_weights:
        of_energy, of_forces = (factors[selection.rows] for factors in by_group)
        log_factors(labels[selection.rows], of_energy, of_forces, "data.weights")
        w_energy, w_forces = w_energy * of_energy, w_forces * np.repeat(of_forces, kept.atoms_per_structure)
    kept.w_energy, kept.flat_w_forces = weights.normalise(w_energy, w_forces, ", ".join(kept.sources), needed)
    return kept


def _energies_weighted(data: Dataset, w_energy: np.ndarray, needed: bool) -> np.ndarray:
    """Weights of energies, 0 where there is none; PacehpcError where one is missing that is needed."""
    missing = ~np.isfinite(data.energy_corrected) & (w_energy != 0)
    if not missing.any():
        return w_energy
    if needed:
        name = "energy" if data.reference_energy is not None or missing.all() else "energy_corrected"
        cause = (
            data.unusable.get(name)
            or data.unusable.get("energy")
            or f"{data.where(int(np.argmax(missing)))}: no {name}"
        )
        if missing.all() and "energy" in data.unusable and data.energy is None:
            raise PacehpcError(cause)
        if data.reference_energy is None and data.energy is not None:
            cause += " Set data.reference_energy to fit the column 'energy' of all structures."
        raise PacehpcError(
            f"{cause.rstrip('.')}. {np.count_nonzero(missing)} of {len(data)} structures have no energy to fit: "
            "complete the data, or give these structures w_energy 0 (columns w_energy and w_forces)."
        )
    log.info("data: %d of %d structures have no energy; it is not fitted (kappa: 1)", missing.sum(), len(data))
    return np.where(missing, 0.0, w_energy)


def _forces_weighted(data: Dataset, w_forces: np.ndarray, needed: bool) -> np.ndarray:
    """Weights of forces, 0 where there are none; PacehpcError where all are missing, or wrong, that are needed."""
    missing = ~np.isfinite(data.flat_forces).all(axis=1)
    if not missing.any():
        return w_forces
    if needed and "forces" in data.unusable:
        raise PacehpcError(data.unusable["forces"])
    counted = missing & (w_forces != 0)
    if counted.any():
        where = np.add.reduceat(missing, data.atom_offsets[:-1], dtype=np.int64)
        whole = np.count_nonzero(where == data.atoms_per_structure)
        log.info(
            "data: no forces for %d of %d atoms (%d structures without any): their weight is 0",
            missing.sum(), data.n_atoms, whole,
        )  # fmt: skip
    return np.where(missing, 0.0, w_forces)


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
        for name in ("w_energy", "w_forces"):
            if not np.isfinite(data.extra[name]).all():
                cause = data.unusable.get(name, f"{name} contains NaN").rstrip(".")
                raise PacehpcError(
                    f"{cause}. Complete the weights, or set data.ignore_weights: true to weight as fit.weighting says."
                )
        if kind not in (None, "uniform"):
            log.warning("the data have weights (w_energy, w_forces): fit.weighting is not applied")
        return weights.Selection(everything, data.extra["w_energy"], data.extra["w_forces"], policy="columns")
    if kind == "EnergyBasedWeightingPolicy":
        return weights.energy_based(
            weighting, data.atom_offsets, data.numbers, data.pbc, _policy_energies(data), _known_forces(data), seed
        )
    if kind == "ExternalWeightingPolicy":
        unknown = [k for k in weighting if k not in ("type", "filename")]
        if unknown or "filename" not in weighting:
            raise PacehpcError(f"fit.weighting: ExternalWeightingPolicy needs 'filename' and nothing else {unknown}.")
        path: Path = find_file(weighting["filename"], datapath)
        content = read_bytes(path)
        frame = unpickle_frame(content, str(path))
        selection = weights.external(frame.columns, frame.labels, str(path), data.index, data.atom_offsets)
        if data.numbered:
            _same_structures(data, content, str(path))
        return selection
    return weights.Selection(everything, *weights.uniform(data.atoms_per_structure))


def _policy_energies(data: Dataset) -> np.ndarray:
    """E^ref of every structure, eV; PacehpcError where one is missing."""
    if np.isfinite(data.energy_corrected).all():
        return data.energy_corrected
    row = int(np.argmax(~np.isfinite(data.energy_corrected)))
    cause = data.unusable.get("energy_corrected", data.unusable.get("energy", f"{data.where(row)}: no energy"))
    raise PacehpcError(f"{cause.rstrip('.')}. EnergyBasedWeightingPolicy needs the energies of all structures.")


def _known_forces(data: Dataset) -> np.ndarray:
    """Forces of all atoms, 0 where they are missing, eV/Å."""
    return np.where(np.isfinite(data.flat_forces), data.flat_forces, 0.0)


def _same_structures(data: Dataset, content: bytes, where: str) -> None:
    """Raises PacehpcError unless a pickled frame of weights holds the structures of its labels.

    For rows that were numbered: in another order of the files their numbers would belong to other structures.
    """
    frame = unpickle_frame(content, where)
    if "ase_atoms" not in frame.columns:
        raise PacehpcError(
            f"{where}: the row labels of {', '.join(data.sources)} repeat, so they do not say which weights belong to "
            "which structure. Give every structure a label of its own, or keep the column 'ase_atoms' in this file, "
            "with the labels of fitting_data_info.pckl.gzip."
        )
    offsets, numbers, positions, cells, _ = checks.geometry(frame_table(content, where))
    place = {label: row for row, label in enumerate(data.index)}
    for k, label in enumerate(frame.labels):
        row = place[label]
        here, there = slice(offsets[k], offsets[k + 1]), slice(data.atom_offsets[row], data.atom_offsets[row + 1])
        if not (
            np.array_equal(numbers[here], data.numbers[there])
            and np.allclose(positions[here], data.positions[there], rtol=0, atol=1e-6)
            and np.allclose(cells[k][data.pbc[row]], data.cells[row][data.pbc[row]], rtol=0, atol=1e-6)
        ):
            raise PacehpcError(f"{where}, row {label}: its atoms are not those of {data.where(row)}.")
