"""LAMMPS as a black box: input in, energies, forces and pressures out, with all digits."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

BAR = 1.6021765e6  # of eV/Å³
"""As in LAMMPS's metal units."""


@dataclass
class Lammps:
    """The LAMMPS of an environment; `run` starts it in a folder of its own."""

    bin: Path

    def run(self, folder: Path, commands: str, ranks: int = 1, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run an input on `ranks` MPI ranks; with check, a failure is an AssertionError with the end of the output."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "in.lammps").write_text(commands)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "OMPI", "PMI", "MPI"))}
        # more ranks than cores: who waits lets another one go on
        environment |= {
            "PATH": f"{self.bin}{os.pathsep}{environment['PATH']}",
            "OMP_NUM_THREADS": "1",
            "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
        }
        start = [] if ranks == 1 else [self.bin / "mpirun", "-n", str(ranks)]
        done = subprocess.run(
            [*start, self.bin / "lmp", "-in", "in.lammps", "-nocite", "-log", "none"],
            cwd=folder, env=environment, text=True, capture_output=True, timeout=600,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        return done


def write_data(path: Path, atoms: Atoms, types: np.ndarray | None = None, n_types: int | None = None) -> None:
    """A data file of atoms whose cell is lower triangular; types count from 1, by default elements by alphabet."""
    if types is None:
        elements = sorted(set(atoms.symbols))
        types = np.array([elements.index(symbol) + 1 for symbol in atoms.symbols])
    low, high = np.zeros(3), np.diag(atoms.cell.array).copy()
    for axis in range(3):
        if not atoms.pbc[axis]:
            low[axis], high[axis] = atoms.positions[:, axis].min() - 1.0, atoms.positions[:, axis].max() + 1.0
    lines = ["atoms", "", f"{len(atoms)} atoms", f"{n_types or max(types)} atom types", ""]
    lines += [f"{low[k]!r} {high[k]!r} {'xyz'[k]}lo {'xyz'[k]}hi" for k in range(3)]
    if atoms.pbc.any():
        cell = atoms.cell.array
        lines.append(f"{cell[1, 0]!r} {cell[2, 0]!r} {cell[2, 1]!r} xy xz yz")
    lines += ["", "Masses", "", *(f"{k + 1} 50.0" for k in range(n_types or max(types))), "", "Atoms # atomic", ""]
    lines += [f"{i + 1} {types[i]} {x!r} {y!r} {z!r}" for i, (x, y, z) in enumerate(atoms.positions.tolist())]
    path.write_text("\n".join(lines).replace("np.float64(", "").replace(")", "") + "\n")


def standard(atoms: Atoms) -> Atoms:
    """The same structure turned so that its cell is lower triangular, atoms inside the cell."""
    turned = atoms.copy()
    if atoms.pbc.any():
        cell, rotation = atoms.cell.standard_form()
        turned.set_cell(cell)
        turned.positions = atoms.positions @ np.asarray(rotation).T
        turned.wrap()  # along the periodic directions
    return turned


def read_dump(path: Path) -> np.ndarray:
    """Columns of the last frame of a dump, sorted by the first, which is the atom's number."""
    text = path.read_text().rsplit("ITEM: ATOMS", 1)[1].split("\n", 1)[1]
    table = np.array([line.split() for line in text.strip().splitlines()], float)
    return table[np.argsort(table[:, 0])]


def thermo(output: str) -> dict[str, float]:
    """The last line of the last thermo table."""
    lines = output.splitlines()
    start = max(k for k, line in enumerate(lines) if line.split()[:1] == ["Step"])
    row = start
    while row + 1 < len(lines) and lines[row + 1].split()[:1] and lines[row + 1].split()[0].isdigit():
        row += 1
    return dict(zip(lines[start].split(), map(float, lines[row].split()), strict=True))


def results(output: str) -> np.ndarray:
    """Numbers of the lines that start with RESULT, (n_lines, n_numbers)."""
    return np.array([line.split()[1:] for line in output.splitlines() if line.startswith("RESULT")], float)
