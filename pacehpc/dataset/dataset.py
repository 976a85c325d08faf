"""Reference structures in memory as flat columns."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from pacehpc.dataset import checks, neighbours, shards
from pacehpc.dataset.table import Table
from pacehpc.errors import PacehpcError
from pacehpc.structures import Structures

if TYPE_CHECKING:
    from pacehpc.potential import Potential

_LONG = 2000  # structures; shorter work gets no progress bar


def progress_bar(total: int, text: str) -> Any:
    """A tqdm bar on a terminal for long work, else None."""
    if total < _LONG or not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    return tqdm(total=total, desc=text, unit=" structures", leave=False)


@dataclass
class Dataset:
    """Structures with reference values and weights; flat arrays, atoms of one structure after the other.

    Energies in eV, lengths in Å, forces in eV/Å, stress in eV/Å³ (Voigt xx yy zz yz xz xy).
    """

    sources: list[str]
    source: np.ndarray  # (n_structures,) int32, index into sources
    rows: np.ndarray  # (n_structures,) int64, position in the data as loaded
    index: list[Any]  # row labels; those of the files, unless `numbered`
    names: list[str]
    info: list[dict[str, Any]]
    atom_offsets: np.ndarray  # (n_structures+1,) int64
    numbers: np.ndarray  # (n_atoms,) uint8
    positions: np.ndarray  # (n_atoms, 3)
    cells: np.ndarray  # (n_structures, 3, 3)
    pbc: np.ndarray  # (n_structures, 3) bool
    energy: np.ndarray | None  # (n_structures,) total energy
    energy_corrected: np.ndarray  # (n_structures,) E^ref, what is fitted
    flat_forces: np.ndarray  # (n_atoms, 3)
    stress: np.ndarray | None  # (n_structures, 6), NaN rows where unknown
    w_energy: np.ndarray  # (n_structures,)
    flat_w_forces: np.ndarray  # (n_atoms,)
    low: np.ndarray  # (n_structures,) bool
    above_hull: np.ndarray | None = None  # (n_structures,) eV/atom, where a weighting policy computed it
    reference_energy: dict[str, float] | None = None  # resolved; None: energy_corrected came with the data
    weighting: str = "uniform"
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # given weights before normalisation
    sha256: list[str] = field(default_factory=list)  # of each source, as it was read
    numbered: bool = False  # labels of the files repeat, so rows are numbered from 0
    unusable: dict[str, str] = field(default_factory=dict)  # column -> what is wrong with its first entry that is NaN

    @property
    def n_structures(self) -> int:
        return len(self.atom_offsets) - 1

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    def __len__(self) -> int:
        return self.n_structures

    @property
    def atoms_per_structure(self) -> np.ndarray:
        """(n_structures,) int64."""
        return np.diff(self.atom_offsets)

    @property
    def elements(self) -> tuple[str, ...]:
        """Elements that occur, alphabetical."""
        return tuple(sorted(chemical_symbols[z] for z in np.unique(self.numbers)))

    @property
    def volumes(self) -> np.ndarray:
        """(n_structures,) Å³, 0 where not periodic in three directions."""
        return neighbours.volumes(self.cells, self.pbc)

    @property
    def atoms(self) -> list[Atoms]:
        """The structures as ase.Atoms without calculators, built at each call."""
        bounds = self.atom_offsets.tolist()
        return [
            Atoms(
                numbers=self.numbers[a:b], positions=self.positions[a:b], cell=self.cells[s], pbc=self.pbc[s],
                info=dict(self.info[s]),
            )
            for s, (a, b) in enumerate(itertools.pairwise(bounds))
        ]  # fmt: skip

    @property
    def forces(self) -> list[np.ndarray]:
        """Reference forces, (n, 3) each; views."""
        return self.per_structure(self.flat_forces)

    @property
    def w_forces(self) -> list[np.ndarray]:
        """Weights of the atoms, (n,) each; views."""
        return self.per_structure(self.flat_w_forces)

    def per_structure(self, flat: np.ndarray) -> list[np.ndarray]:
        """A flat per-atom array cut into views, one a structure."""
        bounds = self.atom_offsets.tolist()
        return [flat[a:b] for a, b in itertools.pairwise(bounds)]

    def where(self, structure: int) -> str:
        """File and row of a structure, for messages."""
        return f"{self.sources[self.source[structure]]}, row {self.index[structure]}"

    def subset(self, rows: slice | Sequence[int] | np.ndarray) -> Dataset:
        """The structures at these positions, in this order; weights stay as they are."""
        chosen = _positions(rows, self.n_structures)
        counts = self.atoms_per_structure[chosen]
        atoms = concatenated_ranges(self.atom_offsets[chosen], counts)

        def pick(array: np.ndarray | None, which: np.ndarray) -> np.ndarray | None:
            return None if array is None else array[which]

        return Dataset(
            sources=self.sources,
            source=self.source[chosen],
            rows=self.rows[chosen],
            index=[self.index[k] for k in chosen],
            names=[self.names[k] for k in chosen],
            info=[self.info[k] for k in chosen],
            atom_offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            cells=self.cells[chosen],
            pbc=self.pbc[chosen],
            energy=pick(self.energy, chosen),
            energy_corrected=self.energy_corrected[chosen],
            flat_forces=self.flat_forces[atoms],
            stress=pick(self.stress, chosen),
            w_energy=self.w_energy[chosen],
            flat_w_forces=self.flat_w_forces[atoms],
            low=self.low[chosen],
            above_hull=pick(self.above_hull, chosen),
            reference_energy=self.reference_energy,
            weighting=self.weighting,
            extra={k: v[atoms if k == "w_forces" else chosen] for k, v in self.extra.items()},
            sha256=self.sha256,
            numbered=self.numbered,
            unusable=self.unusable,
        )

    def structures(self, potential: Potential, rows: slice | Sequence[int] | None = None) -> Structures:
        """What a backend takes: neighbour lists cut to each bond's rcut, reference values and weights.

        Args:
            potential: gives the elements and the cutoffs.
            rows: positions of structures (None: all).

        Raises:
            PacehpcError: an element that the potential does not know.
        """
        if rows is not None:
            return self.subset(rows).structures(potential)
        species = self.species(potential.elements)
        bar = progress_bar(self.n_structures, "neighbour lists")
        found, vectors = neighbours.find_neighbours(
            self.atom_offsets, self.positions, self.cells, self.pbc, species, neighbours.cutoff_matrix(potential),
            None if bar is None else bar.update,
        )  # fmt: skip
        if bar is not None:
            bar.close()
        return Structures(
            atom_offsets=self.atom_offsets,
            species=species,
            bond_offsets=found.offsets,
            bond_atom=found.atom,
            bond_vector=vectors,
            volumes=self.volumes,
            energy=known(self.energy_corrected, self.w_energy),
            forces=known(self.flat_forces, self.flat_w_forces),
            w_energy=self.w_energy,
            w_forces=self.flat_w_forces,
            stress=self.stress,
            low=self.low,
        )

    def shard_rows(self, rank: int, size: int) -> np.ndarray:
        """Positions of the structures that rank `rank` of `size` owns, in the order of the virtual shards.

        Costs are estimated from atoms and densities; a `Store` knows the bonds.
        """
        order, bounds, ranks = self._shards(size)
        return order[bounds[ranks[rank]] : bounds[ranks[rank + 1]]]

    def shard_bounds(self, rank: int, size: int) -> np.ndarray:
        """Where the virtual shards of a rank begin among its `shard_rows`; (n+1,) int64."""
        _, bounds, ranks = self._shards(size)
        mine = bounds[ranks[rank] : ranks[rank + 1] + 1]
        return mine - mine[0]

    def _shards(self, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows in the order of the virtual shards, bounds of the shards, and the shards of each rank."""
        n_atoms = self.atoms_per_structure
        cost = shards.costs(n_atoms, shards.estimated_bonds(n_atoms, self.volumes))
        order, bounds = shards.virtual_shards(cost, n_atoms)
        return order, bounds, shards.rank_bounds(np.add.reduceat(cost[order], bounds[:-1]), size)

    def species(self, elements: Sequence[str]) -> np.ndarray:
        """Index of each atom's element in `elements`, (n_atoms,) int32; PacehpcError where it is not there."""
        species = neighbours.species_indices(self.numbers, elements)
        if (species < 0).any():
            atom = int(np.nonzero(species < 0)[0][0])
            row = int(np.searchsorted(self.atom_offsets, atom, side="right")) - 1
            raise PacehpcError(
                f"{self.where(row)}: contains {chemical_symbols[self.numbers[atom]]}, "
                f"but the potential is for {' '.join(elements)}."
            )
        return species


def known(values: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Reference values with 0 in place of what is missing (NaN), whose weight is 0.

    Raises:
        ValueError: a missing value with another weight.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    if w[missing.any(axis=1) if values.ndim == 2 else missing].any():
        raise ValueError("values that have a weight contain NaN")
    return np.where(missing, 0.0, values)


def structures_of(atoms: Iterable[Atoms], potential: Potential) -> Structures:
    """Structures without reference values, from ase.Atoms: for predictions.

    Raises:
        PacehpcError: elements that the potential does not know, impossible cells or positions.
    """
    atoms = list(atoms)
    table = Table(
        "atoms", list(range(len(atoms))), [a.numbers for a in atoms], [a.positions for a in atoms],
        [a.cell.array for a in atoms], [a.pbc for a in atoms],
    )  # fmt: skip
    offsets, numbers, positions, cells, pbc = checks.geometry(table)
    checks.known_elements(table, offsets, numbers, potential.elements)
    species = neighbours.species_indices(numbers, potential.elements)
    found, vectors = neighbours.find_neighbours(
        offsets, positions, cells, pbc, species, neighbours.cutoff_matrix(potential)
    )
    volume = neighbours.volumes(cells, pbc)
    return Structures(offsets, species, found.offsets, found.atom, vectors, volume)


def concatenated_ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start+1, ..., start+count-1 of every pair, one after the other; int64."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(np.asarray(starts) - (ends - counts), counts)


def _positions(rows: slice | Sequence[int] | np.ndarray, n_structures: int) -> np.ndarray:
    if isinstance(rows, slice):
        return np.arange(n_structures)[rows]
    chosen = np.asarray(rows)
    if chosen.dtype == bool and chosen.shape == (n_structures,):
        return np.nonzero(chosen)[0]
    if chosen.size == 0:
        return np.zeros(0, np.int64)
    if (
        chosen.ndim != 1
        or chosen.dtype.kind not in "iu"
        or chosen.min() < -n_structures
        or chosen.max() >= n_structures
    ):
        raise PacehpcError(f"rows: positions from 0 to {n_structures - 1} are needed.")
    return chosen % n_structures
