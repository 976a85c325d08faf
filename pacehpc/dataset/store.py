"""Prepared data, of which every rank reads only its own slices; `store_format` describes the file."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from pacehpc.dataset import neighbours, shards
from pacehpc.dataset.dataset import Dataset, known
from pacehpc.dataset.store_format import FORMAT, check_finite, check_layout
from pacehpc.errors import PacehpcError
from pacehpc.structures import Structures

if TYPE_CHECKING:
    from pacehpc.potential import Potential

# what h5py and numpy raise where a file holds something else than it should
_DAMAGE = (OSError, KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError, RecursionError)
_RUN = 2**14  # bonds read at a time


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
        check_layout(self._file, self.path.stat().st_size)
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
    def identity(self) -> str:
        """Hash of what the file was made of and of its cut into shards: of another file it is another one."""
        text = json.dumps([self.inputs, self._stored_elements, self._stored_cutoffs.tolist(), self.n_bonds])
        return hashlib.sha256(text.encode() + self._bounds.tobytes() + self.shard_costs.tobytes()).hexdigest()

    @property
    def n_shards(self) -> int:
        return len(self.shard_costs)

    def serves(self, potential: Potential | float) -> bool:
        """Whether the stored lists hold every bond of `potential`, or reach as far as one cutoff, Å."""
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
        """Predicted imbalance on `size` ranks: the dearest rank's cost over the mean, minus 1."""
        return shards.imbalance(self.shard_costs, size)

    def without_bonds(self) -> np.ndarray:
        """Positions in the original data of the structures without any bond, ascending; none if there are no lists."""
        if not self.n_bonds:
            return np.zeros(0, np.int64)
        empty = np.diff(self._file["structures/bond_offsets"][:]) == 0
        return np.sort(self._file["structures/rows"][:][empty])

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
        """The structures of rank `rank` of `size`; reads nothing but their slices.

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
        """What `read_shard` gives, in pieces: whole virtual shards with together at most `max_bonds` stored bonds.

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
        w_energy, w_forces = s["w_energy"][first:last], a["w_forces"][atoms]
        energies, forces = s["energy_corrected"][first:last], a["forces"][atoms]
        if last > first and np.isnan(energies).all() and w_energy.any():
            raise PacehpcError(
                f"{self.path}: converted from data with total energies only, so there is no energy to fit. Name the "
                "file in data.filename (load_dataset in Python) and set data.reference_energy."
            )
        check_finite({"w_energy": w_energy, "w_forces": w_forces, "positions": positions, "cells": cells})
        energies, forces = known(energies, w_energy), known(forces, w_forces)
        check_finite({"energy_corrected": energies, "forces": forces})
        return Structures(
            atom_offsets=atom_offsets,
            species=species,
            bond_offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            bond_atom=neighbour,
            bond_vector=vectors,
            volumes=neighbours.volumes(cells, pbc),
            energy=energies,
            forces=forces,
            w_energy=w_energy,
            w_forces=w_forces,
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
        check_finite(
            {
                "positions": shuffled.positions,
                "cells": shuffled.cells,
                "w_factor": shuffled.extra.get("w_factor"),
                "w_energy": shuffled.w_energy,
                "w_forces": shuffled.flat_w_forces,
            }
        )
        for name in ("energy", "energy_corrected", "flat_forces", "stress"):  # NaN where unknown
            if getattr(shuffled, name) is not None and np.isinf(getattr(shuffled, name)).any():
                raise ValueError(f"{name} contains infinite values")
        if not ((shuffled.source >= 0) & (shuffled.source < len(shuffled.sources))).all():
            raise ValueError("structures of unknown files")
        return shuffled.subset(np.argsort(order))
