"""Prepared data in one HDF5 file, of which every rank reads only its own slices.

Structures stand in the order of their virtual shards; everything ragged is flat:

| group | datasets |
| --- | --- |
| structures | rows, atom_offsets and bond_offsets (n+1), cells, pbc, energy_corrected, w_energy, low, |
|  | where known: energy, stress, above_hull, w_factor |
| atoms | numbers, positions, forces, w_forces, n_bonds |
| bonds | atom (index within the structure), shift (int16, in cell vectors) |
| shards | bounds (n_shards+1, in structures), costs |
| text | index and info (JSON), names, sources and their sha256 as UTF-8 bytes, and offsets of each |
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from pacehpc.dataset import neighbours, shards
from pacehpc.dataset.dataset import Dataset, concatenated_ranges, progress_bar
from pacehpc.dataset.files import Table, file_hash
from pacehpc.errors import PacehpcError
from pacehpc.replacing import replacing
from pacehpc.structures import Structures

if TYPE_CHECKING:
    from pacehpc.potential import Potential

logger = logging.getLogger("pacehpc")

FORMAT = 3
# what h5py and numpy raise where a file holds something else than it should
_DAMAGE = (OSError, KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError, RecursionError)
_FARTHEST = np.iinfo(np.int16).max  # cell vectors between the cells of two neighbours
_RUN = 2**14  # bonds read at a time
_CHUNK = 20_000  # atoms whose neighbour lists are in memory at once while a store is written
_CHUNK_BYTES = 2**14  # of a data set: small, because ranks read whole pieces at the ends of their slices


def input_hash(files: Sequence[str | os.PathLike[str]], options: Mapping[str, Any]) -> str:
    """SHA-256 of the files' contents and of all options that shape the prepared data."""
    digest = hashlib.sha256(json.dumps([FORMAT, options], sort_keys=True, default=str).encode())
    for path in files:
        digest.update(bytes.fromhex(file_hash(path)))
    return digest.hexdigest()


def write_store(
    path: str | os.PathLike[str],
    dataset: Dataset,
    potential: Potential | float,
    *,
    inputs: str = "",
    atom_costs: Mapping[str, float] | None = None,
) -> None:
    """Neighbour lists, references and weights of ``dataset``, written beside ``path`` and renamed.

    Args:
        potential: gives elements and the cutoff of each bond; or one cutoff for all, Angstrom (0: no lists).
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
            _reserve(beside, dataset, int(n_bonds.sum()))
            with h5py.File(beside, "w", libver="latest") as file:
                _write_columns(file, dataset, order, n_bonds, bonds_of)
                _write_bonds(file, order, bounds, bonds_of, atom_file, shift_file)
                _put(file, "shards/bounds", bounds)
                _put(file, "shards/costs", np.add.reduceat(cost[order], bounds[:-1]))
                file.attrs.update(
                    format=FORMAT, inputs=inputs, elements=json.dumps(list(elements)), cutoffs=cutoffs,
                    reference_energy=json.dumps(dataset.reference_energy), weighting=dataset.weighting,
                )  # fmt: skip
    except (OSError, RuntimeError) as problem:
        if not isinstance(problem, OSError) and "errno" not in str(problem):  # h5py's where closing the file fails
            raise
        raise PacehpcError(f"{path}: cannot be written ({problem}).") from None
    logger.info("data: %s, %d shards, %d bonds", path, len(bounds) - 1, n_bonds.sum())


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


def _reserve(path: Path, dataset: Dataset, n_bonds: int) -> None:
    """Raise OSError if the disk lacks room for the store: the HDF5 library crashes where it fills while it writes."""
    size = 2**18 + 300 * len(dataset) + 100 * dataset.n_atoms + 10 * n_bonds
    size += sum(len(str(text)) for column in (dataset.names, dataset.index, dataset.info) for text in column)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    path.unlink()


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


class Store:
    """A file of `write_store`, open for reading; any number of processes may read it at once.

    Args:
        path: the file.
        potential: with its own elements and cutoffs, not larger than the stored ones; None: as stored.

    Raises:
        PacehpcError: no such file, another format, damaged, or made with a smaller cutoff.
    """

    def __init__(self, path: str | os.PathLike[str], potential: Potential | None = None) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as problem:
            raise PacehpcError(f"{path}: no readable HDF5 file ({problem}).") from None
        try:
            self._open(potential)
        except _DAMAGE as problem:
            self._file.close()
            raise PacehpcError(f"{path}: not prepared data of this program, or damaged ({problem}).") from None
        except PacehpcError:
            self._file.close()
            raise

    def _open(self, potential: Potential | None) -> None:
        attributes = self._file.attrs
        if int(attributes["format"]) != FORMAT:
            raise PacehpcError(f"{self.path}: written by another version of this program; prepare the data again.")
        self.inputs = str(attributes["inputs"])
        self.elements = tuple(json.loads(attributes["elements"]))
        self.cutoffs = np.asarray(attributes["cutoffs"], float)
        self.reference_energy = json.loads(attributes["reference_energy"])
        self._stored_elements, self._stored_cutoffs = self.elements, self.cutoffs
        if potential is not None:
            if not self.serves(potential):
                raise PacehpcError(
                    f"{self.path}: its neighbour lists are shorter than the potential's cutoffs, or lack elements; "
                    "prepare the data again."
                )
            self.elements, self.cutoffs = tuple(potential.elements), neighbours.cutoff_matrix(potential)
        _check_layout(self._file, self.path.stat().st_size)
        self._bounds = self._file["shards/bounds"][:]
        self.shard_costs = self._file["shards/costs"][:]
        structures, atoms = self._file["structures"], self._file["atoms"]
        self.n_structures, self.n_atoms = len(structures["rows"]), len(atoms["numbers"])
        self.n_bonds = len(self._file["bonds/atom"])
        lengths_agree = (
            all(len(structures[n]) == self.n_structures for n in structures if not n.endswith("_offsets"))
            and all(len(structures[n]) == self.n_structures + 1 for n in ("atom_offsets", "bond_offsets"))
            and all(len(atoms[n]) == self.n_atoms for n in atoms)
            and self._file["bonds/shift"].shape == (self.n_bonds, 3)
            and len(self._bounds) == len(self.shard_costs) + 1
            and self._bounds[0] == 0
            and self._bounds[-1] == self.n_structures
            and (np.diff(self._bounds) >= 0).all()
            and (np.isfinite(self.shard_costs) & (self.shard_costs >= 0)).all()
            and np.isfinite(self.cutoffs).all()
            and len(self.elements) == len(set(self.elements))
            and self.cutoffs.shape == (len(self.elements),) * 2
        )
        if not lengths_agree:
            raise ValueError("lengths do not agree")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def n_shards(self) -> int:
        return len(self.shard_costs)

    def serves(self, potential: Potential | float) -> bool:
        """Whether the stored lists hold every bond of ``potential``, or reach as far as one cutoff, Angstrom."""
        if isinstance(potential, (int, float)):
            return bool((self._stored_cutoffs >= potential).all())
        known = {e: k for k, e in enumerate(self._stored_elements)}
        wanted = neighbours.cutoff_matrix(potential)
        if not set(known) <= set(potential.elements):  # an element of the data that the potential lacks
            used = {str(e) for e in self._used_elements()}
            if not used <= set(potential.elements):
                return False
        shared = [(k, known[e]) for k, e in enumerate(potential.elements) if e in known]
        return all(wanted[a, b] <= self._stored_cutoffs[i, j] for a, i in shared for b, j in shared)

    def _used_elements(self) -> list[str]:
        from ase.data import chemical_symbols

        return [chemical_symbols[z] for z in np.unique(self._file["atoms/numbers"][:])]

    def balance(self, size: int) -> float:
        """Predicted imbalance on ``size`` ranks: the dearest rank's cost over the mean, minus 1."""
        return shards.imbalance(self.shard_costs, size)

    def _range(self, rank: int, size: int) -> tuple[int, int]:
        bounds = shards.rank_bounds(self.shard_costs, size)
        return int(self._bounds[bounds[rank]]), int(self._bounds[bounds[rank + 1]])

    def rows(self, rank: int, size: int) -> np.ndarray:
        """Positions in the original data of the structures that `read_shard` gives, in its order."""
        first, last = self._range(rank, size)
        return self._file["structures/rows"][first:last]

    def shard_bounds(self, rank: int, size: int) -> np.ndarray:
        """Where the virtual shards of a rank begin among the structures that `read_shard` gives; (n+1,)."""
        bounds = shards.rank_bounds(self.shard_costs, size)
        mine = self._bounds[bounds[rank] : bounds[rank + 1] + 1]
        return mine - mine[0]

    def read_shard(self, rank: int, size: int) -> Structures:
        """The structures of rank ``rank`` of ``size``; reads nothing but their slices.

        Raises:
            PacehpcError: the file is damaged, or was converted from data without energies to fit.
        """
        try:
            structures = self._read(*self._range(rank, size))
            structures.shards = self.shard_bounds(rank, size)
            return structures
        except _DAMAGE as problem:
            raise PacehpcError(f"{self.path}: damaged ({problem}).") from None

    def n_bonds_of(self, rank: int, size: int) -> int:
        """Stored bonds of the structures that `read_shard` gives."""
        first, last = self._range(rank, size)
        ends = self._file["structures/bond_offsets"]
        return int(ends[last] - ends[first])

    def read_pieces(self, rank: int, size: int, max_bonds: int) -> Iterator[Structures]:
        """What `read_shard` gives, in pieces: whole virtual shards with together at most ``max_bonds`` stored bonds.

        A rank without structures gives one empty piece. Raises PacehpcError where the file is damaged.
        """
        ranks = shards.rank_bounds(self.shard_costs, size)
        try:
            bounds = self._bounds[ranks[rank] : ranks[rank + 1] + 1]
            ends = self._file["structures/bond_offsets"][:][bounds]
            first = 0
            while first < max(len(bounds) - 1, 1):
                last = int(np.searchsorted(ends, ends[first] + max_bonds, side="right")) - 1
                last = min(max(last, first + 1), len(bounds) - 1)
                piece = self._read(int(bounds[first]), int(bounds[last]))
                piece.shards = bounds[first : last + 1] - bounds[first]
                yield piece
                del piece
                first = max(last, first + 1)
        except _DAMAGE as problem:
            raise PacehpcError(f"{self.path}: damaged ({problem}).") from None

    def read_without_bonds(self, rank: int, size: int) -> Structures:
        """What `read_shard` gives, but without bonds."""
        try:
            structures = self._read(*self._range(rank, size), with_bonds=False)
            structures.shards = self.shard_bounds(rank, size)
            return structures
        except _DAMAGE as problem:
            raise PacehpcError(f"{self.path}: damaged ({problem}).") from None

    def _read(self, first: int, last: int, with_bonds: bool = True) -> Structures:
        s, a, b = self._file["structures"], self._file["atoms"], self._file["bonds"]
        atom_offsets = s["atom_offsets"][first : last + 1].astype(np.int64)
        bond_ends = s["bond_offsets"][first : last + 1].astype(np.int64)
        if (np.diff(atom_offsets) <= 0).any() or (np.diff(bond_ends) < 0).any():
            raise ValueError("offsets are not ascending")
        if min(atom_offsets[0], bond_ends[0]) < 0 or atom_offsets[-1] > self.n_atoms or bond_ends[-1] > self.n_bonds:
            raise ValueError("offsets beyond the data")
        atoms, bonds = slice(atom_offsets[0], atom_offsets[-1]), slice(bond_ends[0], bond_ends[-1])
        atom_offsets = atom_offsets - atom_offsets[0]
        n_atoms = np.diff(atom_offsets)
        counts = a["n_bonds"][atoms].astype(np.int64)
        if (counts < 0).any() or counts.sum() != bonds.stop - bonds.start:
            raise ValueError("bonds and atoms do not agree")
        if not with_bonds:
            counts[:], bond_ends[:], bonds = 0, 0, slice(0, 0)
        species = neighbours.species_indices(a["numbers"][atoms], self.elements)
        if (species < 0).any():
            raise PacehpcError(f"{self.path}: contains elements that the potential does not have.")
        positions, cells, pbc = a["positions"][atoms], s["cells"][first:last], s["pbc"][first:last]
        ends = bond_ends - bond_ends[0]
        neighbour, vectors = np.empty(ends[-1], np.int32), np.empty((ends[-1], 3))
        filled = run = 0
        while run < last - first:
            stop = max(run + 1, int(np.searchsorted(ends, ends[run] + _RUN, side="right")) - 1)
            of_run = slice(bonds.start + ends[run], bonds.start + ends[stop])
            own = np.arange(atom_offsets[run], atom_offsets[stop])
            centre = np.repeat(own, counts[own])
            structure = np.repeat(np.arange(run, stop), np.diff(ends[run : stop + 1]))
            local = b["atom"][of_run]
            if len(centre) != len(local) or (len(local) and (local.min() < 0 or (local >= n_atoms[structure]).any())):
                raise ValueError("a bond to an atom outside its structure")
            other = (local + atom_offsets[structure]).astype(np.int32)
            found = neighbours.bond_vectors(positions, cells, structure, centre, other, b["shift"][of_run])
            r = np.sqrt(np.einsum("bd,bd->b", found, found))
            if not (r > 0).all():
                raise ValueError("two atoms at one place")
            keep = r < self.cutoffs[species[centre], species[other]]
            counts[own] = np.bincount(centre[keep] - own[0], minlength=len(own))
            kept = int(np.count_nonzero(keep))
            neighbour[filled : filled + kept], vectors[filled : filled + kept] = other[keep], found[keep]
            filled, run = filled + kept, stop
        neighbour.resize(filled, refcheck=False)
        vectors.resize((filled, 3), refcheck=False)
        values = {
            "energy_corrected": s["energy_corrected"][first:last],
            "w_energy": s["w_energy"][first:last],
            "forces": a["forces"][atoms],
            "w_forces": a["w_forces"][atoms],
        }
        if last > first and np.isnan(values["energy_corrected"]).all():
            raise PacehpcError(
                f"{self.path}: converted from data with total energies only, so there is no energy to fit. Name the "
                "file in data.filename (Dataset.load in Python) and set data.reference_energy."
            )
        _check_finite({**values, "positions": positions, "cells": cells})
        return Structures(
            atom_offsets=atom_offsets,
            species=species,
            bond_offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            bond_atom=neighbour,
            bond_vector=vectors,
            volumes=neighbours.volumes(cells, pbc),
            energy=values["energy_corrected"],
            forces=values["forces"],
            w_energy=values["w_energy"],
            w_forces=values["w_forces"],
            stress=s["stress"][first:last] if "stress" in s else None,
            low=s["low"][first:last],
        )

    def dataset(self) -> Dataset:
        """Everything but the neighbour lists, in the original order: for frames and reports.

        Raises:
            PacehpcError: the file is damaged.
        """
        try:
            return self._dataset()
        except _DAMAGE as problem:
            raise PacehpcError(f"{self.path}: damaged ({problem}).") from None

    def _dataset(self) -> Dataset:
        s, a = self._file["structures"], self._file["atoms"]
        atom_offsets = s["atom_offsets"][:].astype(np.int64)
        if atom_offsets[0] != 0 or (np.diff(atom_offsets) <= 0).any() or atom_offsets[-1] != self.n_atoms:
            raise ValueError("offsets do not fit the atoms")
        order = s["rows"][:]
        if not np.array_equal(np.sort(order), np.arange(self.n_structures)):
            raise ValueError("rows are missing or repeated")

        def text(name: str) -> list[str]:
            offsets = self._file[f"text/{name}_offsets"][:]
            data = self._file[f"text/{name}"][:].tobytes()
            if not len(offsets) or offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(data):
                raise ValueError(f"offsets of {name} do not fit")
            return [data[a:b].decode(errors="surrogatepass") for a, b in itertools.pairwise(offsets.tolist())]

        def optional(name: str) -> np.ndarray | None:
            return s[name][:] if name in s else None

        index, names = [json.loads(v) for v in text("index")], text("names")
        info = [json.loads(v) for v in text("info")]
        if {len(index), len(names), len(info)} != {self.n_structures}:
            raise ValueError("labels are missing")
        if not all(isinstance(one, dict) for one in info):
            raise ValueError("info is no mapping")
        shuffled = Dataset(
            sources=text("sources"),
            source=s["source"][:],
            rows=s["loaded_rows"][:],
            index=index,
            names=names,
            info=info,
            atom_offsets=atom_offsets,
            numbers=a["numbers"][:],
            positions=a["positions"][:],
            cells=s["cells"][:],
            pbc=s["pbc"][:],
            energy=optional("energy"),
            energy_corrected=s["energy_corrected"][:],
            flat_forces=a["forces"][:],
            stress=optional("stress"),
            w_energy=s["w_energy"][:],
            flat_w_forces=a["w_forces"][:],
            low=s["low"][:],
            above_hull=optional("above_hull"),
            reference_energy=self.reference_energy,
            weighting=str(self._file.attrs["weighting"]),
            extra={"w_factor": s["w_factor"][:]} if "w_factor" in s else {},
            sha256=text("sha256"),
        )
        has_reference = not np.isnan(shuffled.energy_corrected).all()  # a converted file may have total energies only
        _check_finite(
            {
                "positions": shuffled.positions,
                "cells": shuffled.cells,
                "energy": shuffled.energy,
                "energy_corrected": shuffled.energy_corrected if has_reference else None,
                "w_factor": shuffled.extra.get("w_factor"),
                "forces": shuffled.flat_forces,
                "w_energy": shuffled.w_energy,
                "w_forces": shuffled.flat_w_forces,
            }
        )
        if not ((shuffled.source >= 0) & (shuffled.source < len(shuffled.sources))).all():
            raise ValueError("structures of unknown files")
        return shuffled.subset(np.argsort(order))


_SHAPES = {  # entries of one row, and the kinds of numbers
    "structures/rows": ((), "i"),
    "structures/atom_offsets": ((), "i"),
    "structures/bond_offsets": ((), "i"),
    "structures/cells": ((3, 3), "f"),
    "structures/pbc": ((3,), "b"),
    "structures/energy_corrected": ((), "f"),
    "structures/energy": ((), "f"),
    "structures/stress": ((6,), "f"),
    "structures/above_hull": ((), "f"),
    "structures/w_factor": ((), "f"),
    "structures/w_energy": ((), "f"),
    "structures/low": ((), "b"),
    "structures/loaded_rows": ((), "i"),
    "structures/source": ((), "i"),
    "text/index": ((), "u"),
    "text/index_offsets": ((), "i"),
    "text/names": ((), "u"),
    "text/names_offsets": ((), "i"),
    "atoms/numbers": ((), "u"),
    "atoms/positions": ((3,), "f"),
    "atoms/forces": ((3,), "f"),
    "atoms/w_forces": ((), "f"),
    "atoms/n_bonds": ((), "i"),
    "bonds/atom": ((), "i"),
    "bonds/shift": ((3,), "i"),
    "shards/bounds": ((), "i"),
    "shards/costs": ((), "f"),
    "text/info": ((), "u"),
    "text/info_offsets": ((), "i"),
    "text/sha256": ((), "u"),
    "text/sha256_offsets": ((), "i"),
    "text/sources": ((), "u"),
    "text/sources_offsets": ((), "i"),
}
_OPTIONAL = {f"structures/{name}" for name in ("energy", "stress", "above_hull", "w_factor")}


def _only_checksums(data: h5py.Dataset) -> bool:
    """Whether every byte of a data set stands in the file as it is, nothing packed and nothing left out."""
    filters = data.id.get_create_plist()
    plain = all(filters.get_filter(k)[0] == h5py.h5z.FILTER_FLETCHER32 for k in range(filters.get_nfilters()))
    return plain and data.id.get_storage_size() >= data.size * data.dtype.itemsize


def _check_layout(file: h5py.File, size: int) -> None:
    """Only plain data sets of known shape whose numbers stand in this file: nothing larger is ever allocated.

    Raises:
        ValueError: links to elsewhere, packed or virtual data, other types or shapes, or more than the file can hold.
    """
    for name, (shape, kind) in _SHAPES.items():
        group, _, last = name.rpartition("/")
        link = file[group] if group else file
        if last not in link and name in _OPTIONAL:
            continue
        if not isinstance(link.get(last, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is not in this file")
        data = file[name]
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or not _only_checksums(data):
            raise ValueError(f"{name} is not a plain array")
        if data.shape is None or data.shape[1:] != shape or len(data.shape) != 1 + len(shape):
            raise ValueError(f"{name} has shape {data.shape}")
        if data.dtype.kind != kind:
            raise ValueError(f"{name} has type {data.dtype}")
        if data.size * data.dtype.itemsize > size:
            raise ValueError(f"{name} is larger than the file")


def _check_finite(arrays: Mapping[str, np.ndarray | None]) -> None:
    for name, values in arrays.items():
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"{name} contains NaN or infinite values")


def store_table(path: Path) -> Table:
    """The structures of a store as any data file has them; weights only where they were given or chosen by a policy.

    Raises:
        PacehpcError: no store, or a damaged one.
    """
    with Store(path) as store:
        data = store.dataset()
    columns: dict[str, Any] = {"forces": data.forces, "name": data.names, **data.extra}
    if np.isfinite(data.energy_corrected).all():
        columns["energy_corrected"] = data.energy_corrected
    if data.energy is not None:
        columns["energy"] = data.energy
    if data.stress is not None:
        columns["stress"] = list(data.stress)
    if data.weighting != "uniform":
        columns |= {"w_energy": data.w_energy, "w_forces": data.w_forces}
    return Table(
        str(path), data.index, data.per_structure(data.numbers), data.per_structure(data.positions),
        list(data.cells), list(data.pbc), data.info, columns, stress_units="eV/A3",
    )  # fmt: skip
