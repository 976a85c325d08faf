"""Make the training data of this example: Al-Ni structures with energies, forces and stresses of ASE's EMT.

EMT (effective medium theory) is a simple many-body potential for fcc metals. It stands here for the
electronic-structure calculations of a real project, because it needs no download and takes seconds.
Run `python make_data.py` in this folder; the same seed gives the same structures.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from ase.build import bulk, fcc100, fcc110, fcc111, surface
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron

SEED = 2024
OUTPUT = Path(__file__).parent / "al_ni.pckl.gzip"

# Lattice parameters in Angstrom at the minimum of the EMT energy.
LATTICE = {"Al": 4.00, "Ni": 3.49, "Ni3Al": 3.66, "Al3Ni": 3.93, "AlNi": 3.05}
CORNERS_AND_FACES = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]


def crystals() -> dict[str, Atoms]:
    """Conventional cubic cells of fcc Al and Ni, L1_2 Ni3Al and Al3Ni, and B2 AlNi."""
    cells = {element: bulk(element, "fcc", a=LATTICE[element], cubic=True) for element in ("Al", "Ni")}
    for name, symbols in (("Ni3Al", "AlNi3"), ("Al3Ni", "NiAl3")):
        cells[name] = Atoms(symbols, scaled_positions=CORNERS_AND_FACES, cell=3 * [LATTICE[name]], pbc=True)
    cells["AlNi"] = bulk("AlNi", "cesiumchloride", a=LATTICE["AlNi"])
    return cells


def supercell(cell: Atoms) -> Atoms:
    """About 16 atoms of a crystal."""
    return cell.repeat((2, 2, 1)) if len(cell) == 4 else cell.repeat((2, 2, 2))


def shaken(atoms: Atoms, amplitude: float, rng: np.random.Generator) -> Atoms:
    """A copy with normally distributed displacements of this standard deviation (Angstrom)."""
    atoms = atoms.copy()
    atoms.positions += rng.normal(scale=amplitude, size=(len(atoms), 3))
    return atoms


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """A copy with the symmetric strain (3, 3) applied to cell and positions."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
    return atoms


def bulk_structures(rng: np.random.Generator) -> Iterator[tuple[str, Atoms]]:
    """Compressed, expanded and sheared crystals, shaken supercells, vacancies, antisites, and random alloys."""
    for name, cell in crystals().items():
        for stretch in np.linspace(-0.07, 0.10, 9):
            yield f"{name}_volume", strained(cell, stretch * np.eye(3))
        for _ in range(4):
            strain = rng.normal(scale=0.03, size=(3, 3))
            yield f"{name}_shear", strained(cell, (strain + strain.T) / 2)
        for amplitude in (0.04, 0.08, 0.15):
            for _ in range(3):
                stretch = rng.uniform(-0.02, 0.03) * np.eye(3)
                yield f"{name}_shaken", shaken(strained(supercell(cell), stretch), amplitude, rng)
        for _ in range(3):
            vacancy = supercell(cell)
            del vacancy[int(rng.integers(len(vacancy)))]
            yield f"{name}_vacancy", shaken(vacancy, 0.05, rng)
        for _ in range(2):
            antisite = supercell(cell)
            atom = antisite[int(rng.integers(len(antisite)))]
            atom.symbol = "Ni" if atom.symbol == "Al" else "Al"
            yield f"{name}_antisite", shaken(antisite, 0.05, rng)
    for fraction in np.linspace(0.1, 0.9, 9):
        alloy = supercell(bulk("Al", "fcc", a=LATTICE["Al"] + fraction * (LATTICE["Ni"] - LATTICE["Al"]), cubic=True))
        alloy.symbols[rng.random(len(alloy)) < fraction] = "Ni"
        yield "random_alloy", shaken(alloy, 0.08, rng)


def surface_structures(rng: np.random.Generator) -> Iterator[tuple[str, Atoms]]:
    """Slabs, periodic in two directions."""
    for element in ("Al", "Ni"):
        for facet in (fcc100, fcc110, fcc111):
            slab = facet(element, size=(2, 2, 4), a=LATTICE[element], vacuum=6.0, periodic=False)
            for amplitude in (0.0, 0.08):
                yield f"{element}_{facet.__name__}", shaken(slab, amplitude, rng)
    for name, indices in (("Ni3Al", (1, 0, 0)), ("Al3Ni", (1, 1, 1)), ("AlNi", (1, 1, 0))):
        slab = surface(crystals()[name], indices, layers=4, vacuum=6.0)
        for amplitude in (0.0, 0.08):
            yield f"{name}_surface", shaken(slab, amplitude, rng)


def molecule_structures(rng: np.random.Generator) -> Iterator[tuple[str, Atoms]]:
    """Atoms, dimers and clusters without periodicity."""
    for element in ("Al", "Ni"):
        yield f"{element}_atom", Atoms(element)
    for pair, shortest in (("Al2", 2.2), ("AlNi", 2.0), ("Ni2", 1.9)):
        for distance in np.linspace(shortest, 5.0, 8):
            yield f"{pair}_dimer", Atoms(pair, positions=[(0, 0, 0), (0, 0, distance)])
    for element in ("Al", "Ni"):
        cluster = Icosahedron(element, 2, LATTICE[element])
        cluster = Atoms(cluster.get_chemical_symbols(), positions=cluster.positions)
        for amplitude in (0.0, 0.1, 0.15):
            yield f"{element}_icosahedron", shaken(cluster, amplitude, rng)
        for _ in range(2):
            mixed = shaken(cluster, 0.1, rng)
            mixed.symbols[rng.random(len(mixed)) < 0.5] = "Ni" if element == "Al" else "Al"
            yield "mixed_icosahedron", mixed


def make_frame() -> pd.DataFrame:
    """All structures, one row each, without calculators.

    EMT's energy is in eV, forces in eV/Angstrom, stress in eV/Angstrom^3 (xx, yy, zz, yz, xz, xy; None unless the
    structure is periodic in all three directions).
    """
    rng = np.random.default_rng(SEED)
    rows = []
    for family in (bulk_structures, surface_structures, molecule_structures):
        for name, atoms in family(rng):
            with_emt = atoms.copy()
            with_emt.calc = EMT()
            stress = with_emt.get_stress() if atoms.pbc.all() else None
            rows.append((name, atoms, float(with_emt.get_potential_energy()), with_emt.get_forces(), stress))
    # Plain object columns and labels, so that every version of pandas can read the file.
    frame = pd.DataFrame(rows, dtype=object)
    frame.columns = pd.Index(["name", "ase_atoms", "energy", "forces", "stress"], dtype=object)
    frame["energy"] = frame["energy"].astype(float)
    return frame


def main() -> None:
    frame = make_frame()
    with OUTPUT.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
        pickle.dump(frame, file, protocol=4)
    print(f"{OUTPUT.name}: {len(frame)} structures, {sum(map(len, frame['ase_atoms']))} atoms")


if __name__ == "__main__":
    main()
