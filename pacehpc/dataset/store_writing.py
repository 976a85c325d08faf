"""Writing of prepared data; `store_format` describes the file."""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from pacehpc.dataset import neighbours, shards
from pacehpc.dataset.dataset import Dataset, concatenated_ranges, progress_bar
from pacehpc.dataset.store_format import FORMAT
from pacehpc.errors import PacehpcError
from pacehpc.replacing import replacing

if TYPE_CHECKING:
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

_FARTHEST = np.iinfo(np.int16).max  # cell vectors between the cells of two neighbours
_CHUNK = 20_000  # atoms whose neighbour lists are in memory at once while a store is written
_CHUNK_BYTES = 2**14  # of a data set: small, because ranks read whole pieces at the ends of their slices


def write_store(
    path: str | os.PathLike[str],
    dataset: Dataset,
    potential: Potential | float,
    *,
    inputs: str = "",
    atom_costs: Mapping[str, float] | None = None,
) -> None:
    """Neighbour lists, references and weights of `dataset`, written beside `path` and renamed.

    Args:
        potential: gives elements and the cutoff of each bond; or one cutoff for all, Å (0: no lists).
        inputs: what `input_hash` gave, kept to recognise the file.
        atom_costs: cost of an atom of each element in units of a bond's (default: shards.ATOM_COST).
    """
    path = Path(path)
    if isinstance(potential, (int, float)):
        elements = dataset.elements
        cutoffs = np.full((len(elements), len(elements)), float(potential))
    else:
        elements, cutoffs = tuple(potential.elements), neighbours.cutoff_matrix(potential)
    species = dataset.species(elements)
    try:
        with (
            replacing(path) as beside,
            tempfile.TemporaryFile(dir=path.parent) as atom_file,
            tempfile.TemporaryFile(dir=path.parent) as shift_file,
        ):
            n_bonds = _spool_bonds(dataset, species, cutoffs, atom_file, shift_file)
            n_atoms = dataset.atoms_per_structure
            bonds_of = np.add.reduceat(n_bonds, dataset.atom_offsets[:-1]) if len(dataset) else np.zeros(0, np.int64)
            single = np.array([(atom_costs or {}).get(e, shards.ATOM_COST) for e in elements])
            cost = shards.costs(n_atoms, bonds_of, np.add.reduceat(single[species], dataset.atom_offsets[:-1]))
            order, bounds = shards.virtual_shards(cost, n_atoms)
            with _opened(beside) as file:
                _write_columns(file, dataset, order, n_bonds, bonds_of)
                _write_bonds(file, order, bounds, bonds_of, atom_file, shift_file)
                _put(file, "shards/bounds", bounds)
                _put(file, "shards/costs", np.add.reduceat(cost[order], bounds[:-1]))
                file.attrs.update(
                    format=FORMAT, inputs=inputs, elements=json.dumps(list(elements)), cutoffs=cutoffs,
                    reference_energy=json.dumps(dataset.reference_energy), weighting=dataset.weighting,
                )  # fmt: skip
    except OSError as problem:
        raise PacehpcError(f"{path}: cannot be written ({problem}).") from None
    log.info("data: %s, %d shards, %d bonds", path, len(bounds) - 1, n_bonds.sum())


def _spool_bonds(
    dataset: Dataset, species: np.ndarray, cutoffs: np.ndarray, atom_file: Any, shift_file: Any
) -> np.ndarray:
    """Write the bonds to two scratch files in the order of the data; returns the bonds of each atom."""
    offsets = dataset.atom_offsets
    counts = np.zeros(dataset.n_atoms, np.int64)
    if not cutoffs.any():
        return counts
    bar = progress_bar(len(dataset), "neighbour lists")
    first = 0
    while first < len(dataset):
        last = int(np.searchsorted(offsets, offsets[first] + _CHUNK, side="right")) - 1
        last = min(max(last, first + 1), len(dataset))
        a, b = offsets[first], offsets[last]
        found, _ = neighbours.find_neighbours(
            offsets[first : last + 1] - a, dataset.positions[a:b], dataset.cells[first:last], dataset.pbc[first:last],
            species[a:b], cutoffs,
        )  # fmt: skip
        counts[a:b] = np.diff(found.offsets)
        start = np.repeat(offsets[first:last] - a, np.diff(offsets[first : last + 1]))
        local = found.atom - np.repeat(start, counts[a:b]).astype(np.int32)
        atom_file.write(local.astype(np.int32).tobytes())
        far = np.nonzero((np.abs(found.shift) > _FARTHEST).any(axis=1))[0]
        if len(far):
            atom = a + np.searchsorted(found.offsets, far[0], side="right") - 1
            row = int(np.searchsorted(offsets, atom, side="right")) - 1
            raise PacehpcError(
                f"{dataset.where(row)}: neighbours are more than {_FARTHEST} cells apart. Wrap the atoms into the cell "
                "(ase.Atoms.wrap), or choose cell vectors that are less oblique (ase.build.niggli_reduce)."
            )
        shift_file.write(found.shift.astype(np.int16).tobytes())
        if bar is not None:
            bar.update(last - first)
        first = last
    if bar is not None:
        bar.close()
    return counts


def _write_columns(
    file: h5py.File, data: Dataset, order: np.ndarray, n_bonds: np.ndarray, bonds_of: np.ndarray
) -> None:
    n_atoms = data.atoms_per_structure
    atoms = concatenated_ranges(data.atom_offsets[order], n_atoms[order])
    columns = {
        "structures/rows": order,
        "structures/atom_offsets": np.concatenate(([0], np.cumsum(n_atoms[order]))),
        "structures/bond_offsets": np.concatenate(([0], np.cumsum(bonds_of[order]))),
        "structures/cells": data.cells[order],
        "structures/pbc": data.pbc[order],
        "structures/energy_corrected": data.energy_corrected[order],
        "structures/w_energy": data.w_energy[order],
        "structures/low": data.low[order],
        "structures/loaded_rows": data.rows[order],
        "structures/source": data.source[order],
        **_flat_text("index", [json.dumps(data.index[k], default=str) for k in order]),
        **_flat_text("names", [data.names[k] for k in order]),
        **_flat_text("info", [json.dumps(data.info[k], default=str) for k in order]),
        **_flat_text("sources", data.sources),
        **_flat_text("sha256", data.sha256),
        "atoms/numbers": data.numbers[atoms],
        "atoms/positions": data.positions[atoms],
        "atoms/forces": data.flat_forces[atoms],
        "atoms/w_forces": data.flat_w_forces[atoms],
        "atoms/n_bonds": n_bonds[atoms].astype(np.int32),
    }
    # weights that a policy or the data's columns gave have it in them already
    w_factor = data.extra.get("w_factor") if data.weighting in ("uniform", "given") else None
    known = {"energy": data.energy, "stress": data.stress, "above_hull": data.above_hull, "w_factor": w_factor}
    for name, optional in known.items():
        if optional is not None:
            columns[f"structures/{name}"] = optional[order]
    for name, values in columns.items():
        _put(file, name, values)


class _Unfailing(io.FileIO):
    """A file whose errors HDF5 does not see: where a write fails, that library crashes at the end of the process."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data)
        try:
            while view:
                view = view[super().write(view) :]
        except OSError as error:
            self.error = self.error or error
        return len(memoryview(data))

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file; its first OSError is raised at the end."""
    with _Unfailing(path, "w+") as below:
        try:
            with h5py.File(below, "w", libver="latest") as file:
                yield file
        finally:
            if below.error is not None:
                raise below.error


def _put(file: h5py.File, name: str, values: np.ndarray) -> None:
    values = np.asarray(values)
    _make(file, name, values.shape, values.dtype)[...] = values


def _make(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """A data set in pieces with checksums, so that damage is found when it is read."""
    if not np.prod(shape):
        return file.create_dataset(name, shape, dtype)
    row = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
    chunks = (min(shape[0], max(1, _CHUNK_BYTES // row)), *shape[1:])
    return file.create_dataset(name, shape, dtype, chunks=chunks, fletcher32=True)


def _flat_text(name: str, values: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as bytes and offsets: HDF5 damages data sets of more than 65,536 strings of varying length."""
    parts = [value.encode(errors="surrogatepass") for value in values]  # names of files may be no UTF-8
    offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)
    return {f"text/{name}": np.frombuffer(b"".join(parts), np.uint8), f"text/{name}_offsets": offsets}


def _write_bonds(
    file: h5py.File, order: np.ndarray, bounds: np.ndarray, bonds_of: np.ndarray, atom_file: Any, shift_file: Any
) -> None:
    total = int(bonds_of.sum())
    atom = _make(file, "bonds/atom", (total,), np.int32)
    shift = _make(file, "bonds/shift", (total, 3), np.int16)
    if total == 0:
        return
    atom_file.flush()
    shift_file.flush()
    spooled_atom = np.memmap(atom_file, np.int32, "r", shape=(total,))
    spooled_shift = np.memmap(shift_file, np.int16, "r", shape=(total, 3))
    starts = np.concatenate(([0], np.cumsum(bonds_of)))
    written = 0
    for first, last in itertools.pairwise(bounds):
        rows = order[first:last]
        which = concatenated_ranges(starts[rows], bonds_of[rows])
        atom[written : written + len(which)] = spooled_atom[which]
        shift[written : written + len(which)] = spooled_shift[which]
        written += len(which)
