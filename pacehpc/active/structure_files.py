"""Structures without need of reference values: data files, LAMMPS dumps, POSCAR files and folders of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
from ase import Atoms

from pacehpc.dataset import checks
from pacehpc.dataset.files import file_format, find_file, read_bytes
from pacehpc.dataset.frames import write_frame
from pacehpc.dataset.groups import group_labels
from pacehpc.dataset.reading import read_table
from pacehpc.dataset.table import row_name
from pacehpc.errors import PacehpcError


@dataclass
class Candidates:
    """Structures, where each comes from, and what reference values they have.

    Args:
        atoms: without calculators.
        origins: file and row.
        infos: what the files note of each structure, such as `config_type`.
        columns: values of the files by column, one entry per structure; None where a file lacks it.
    """

    atoms: list[Atoms] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    infos: list[dict] = field(default_factory=list)
    columns: dict[str, list] = field(default_factory=dict)

    def add(
        self,
        atoms: Sequence[Atoms],
        origins: Sequence[str],
        columns: dict[str, Sequence],
        infos: Sequence[dict] | None = None,
    ) -> None:
        """Append structures; columns that other files lack are filled with None."""
        before = len(self.atoms)
        self.atoms += atoms
        self.origins += origins
        self.infos += infos or [{} for _ in atoms]
        for name, values in columns.items():
            self.columns.setdefault(name, [None] * before).extend(values)
        for values in self.columns.values():
            values.extend([None] * (len(self.atoms) - len(values)))

    @property
    def forces(self) -> list[np.ndarray] | None:
        """Reference forces of all structures; None if one lacks them."""
        values = self.columns.get("forces")
        return None if values is None or any(v is None for v in values) else [np.asarray(v, float) for v in values]

    @property
    def atom_groups(self) -> np.ndarray:
        """Group of the structure of each atom, see `group_labels`; (n_atoms,) of str."""
        names = self.columns.get("name", [""] * len(self.atoms))
        groups = group_labels([name or "" for name in names], self.infos)
        return np.repeat(groups, [len(atoms) for atoms in self.atoms])

    @property
    def symbols(self) -> np.ndarray:
        """Elements of all atoms, (n_atoms,)."""
        return np.concatenate([np.array(atoms.get_chemical_symbols()) for atoms in self.atoms])

    def frame(self, rows: Sequence[int]) -> pd.DataFrame:
        """The structures with these numbers as a frame that fits read."""
        columns = {"ase_atoms": [self.atoms[k] for k in rows]}
        columns |= {name: [values[k] for k in rows] for name, values in self.columns.items()}
        columns["origin"] = [self.origins[k] for k in rows]
        return pd.DataFrame(columns)


def read_structures(names: Sequence[str], types: Sequence[str] = ()) -> Candidates:
    """Read all structures of some files and folders.

    Args:
        names: data files (frames, extended xyz, ASE databases, stores), LAMMPS dumps, POSCAR files, or folders of them.
        types: elements of the types 1, 2, … of LAMMPS dumps.

    Raises:
        PacehpcError: a file that cannot be read, or a dump without `types`.
    """
    found = Candidates()
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if not files:
                raise PacehpcError(f"{name}: an empty folder.")
            for file in files:
                _read(file, types, found)
        else:
            _read(find_file(name), types, found)
    if not found.atoms:
        raise PacehpcError(f"{', '.join(map(str, names))}: no structures.")
    return found


def _read(path: Path, types: Sequence[str], found: Candidates) -> None:
    with open(path, "rb") as file:
        head = file.read(100)
    if head.startswith(b"ITEM:"):
        _read_dump(path, types, found)
        return
    known = file_format(head) in ("asedb", "hdf5") or file_format(read_bytes(path)[:100])
    if known and not _is_poscar(path):
        _read_data(path, found)
        return
    try:
        frames = ase.io.read(path, ":", parallel=False)
    except Exception as error:  # ASE raises what its many formats raise
        raise PacehpcError(f"{path}: neither a data file nor a format that ASE reads: {error}") from error
    found.add([_bare(atoms) for atoms in frames], [f"{path}, frame {k}" for k in range(len(frames))], {})


def _is_poscar(path: Path) -> bool:
    return path.name.startswith(("POSCAR", "CONTCAR")) or path.suffix in (".vasp", ".poscar", ".cif")


def _read_data(path: Path, found: Candidates) -> None:
    table = read_table(path)
    offsets, numbers, positions, cells, pbc = checks.geometry(table)
    atoms = [
        Atoms(numbers=numbers[a:b], positions=positions[a:b], cell=cell, pbc=periodic)
        for a, b, cell, periodic in zip(offsets[:-1].tolist(), offsets[1:].tolist(), cells, pbc, strict=True)
    ]
    counts = np.diff(offsets).tolist()
    columns = {
        name: [
            _value(table.columns[name][k], shape(n), f"{name} of {row_name(table, k)}") for k, n in enumerate(counts)
        ]
        for name, shape in _SHAPES.items()
        if name in table.columns
    }
    if "name" in table.columns:
        columns["name"] = [name if isinstance(name, str) else "" for name in table.columns["name"]]
    found.add(atoms, [f"{path}, row {label}" for label in table.labels], columns, table.info)


_SHAPES = {
    "energy": lambda _: (),
    "energy_corrected": lambda _: (),
    "forces": lambda n: (n, 3),
    "w_energy": lambda _: (),
    "w_forces": lambda n: (n,),
}
"""Columns that are kept, and the shape of a structure of n atoms."""


def _value(value: object, shape: tuple[int, ...], what: str) -> np.ndarray | float | None:
    """A value as numbers; None where it is none."""
    try:
        numbers = checks.as_numbers(value, shape, what, "")
    except PacehpcError:
        return None
    return numbers if shape else float(numbers)


def _read_dump(path: Path, types: Sequence[str], found: Candidates) -> None:
    with open(path, encoding="utf-8", errors="replace") as file:
        columns = next((line.split()[2:] for line in file if line.startswith("ITEM: ATOMS")), [])
    if "element" not in columns and not types:
        raise PacehpcError(f"{path}: a LAMMPS dump with types alone; name the elements of the types 1, 2, … with -e.")
    try:
        frames = ase.io.read(path, ":", format="lammps-dump-text", parallel=False, specorder=list(types) or None)
    except IndexError as error:
        raise PacehpcError(f"{path}: has more types than the elements given with -e ({' '.join(types)}).") from error
    except Exception as error:  # ASE raises what its many formats raise
        raise PacehpcError(f"{path}: damaged LAMMPS dump: {error}") from error
    found.add([_bare(atoms) for atoms in frames], [f"{path}, frame {k}" for k in range(len(frames))], {})


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def write_structures(candidates: Candidates, rows: Sequence[int], output: str) -> str:
    """Write some of the structures: into `FOLDER/POSCAR` as POSCAR files, else as a frame (.pkl.gz, .pckl.gzip).

    Returns:
        What was written, in words.
    """
    path = Path(output)
    if path.name == "POSCAR":
        path.parent.mkdir(parents=True, exist_ok=True)
        for number, k in enumerate(rows):
            ase.io.write(f"{path}.{number}", candidates.atoms[k], format="vasp", parallel=False, direct=True, sort=True)
        return f"{len(rows)} files {path}.0 to {path}.{len(rows) - 1}"
    if path.name.endswith((".xyz", ".extxyz")):
        ase.io.write(path, [candidates.atoms[k] for k in rows], format="extxyz", parallel=False)
    else:
        write_frame(candidates.frame(rows), path)
    return f"{len(rows)} structures in {path}"
