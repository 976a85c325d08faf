"""Physical properties of a potential through ASE: crystals, elasticity, defects, surfaces, vibrations, dynamics.

Every function takes a structure and an ASE calculator and returns plain numbers by name; units stand in the names'
entries of `UNITS`.
"""

from __future__ import annotations

import logging

import numpy as np
from ase import Atoms, units
from ase.build import surface
from ase.calculators.calculator import Calculator
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGSLineSearch

from pacehpc.errors import PacehpcError
from pacehpc.validate.crystals import supercell

log = logging.getLogger("pacehpc")

FORCE_LIMIT = 1e-3  # eV/Å, of relaxed structures
STRAIN = 2e-3  # of the finite differences of the stress
MOST_STEPS = 300

UNITS = {
    "a": "Å", "b": "Å", "c": "Å", "volume": "Å³/atom", "energy": "eV/atom", "B0": "GPa", "V0": "Å³/atom", "B'": "",
    "bulk_modulus": "GPa", "shear_modulus": "GPa", "vacancy": "eV", "drift": "eV/atom/ps", "temperature": "K",
    "lowest_frequency": "THz", "highest_frequency": "THz", "dimer_length": "Å", "dimer_energy": "eV",
    "dimer_shortest_repulsive": "Å",
}  # fmt: skip
"""Units by property; elastic constants C11, ... are in GPa, surfaces (100), ... in J/m²."""


def unit(name: str) -> str:
    """Return the unit of a property."""
    if name.startswith("("):
        return "J/m²"
    return "GPa" if name[0] == "C" and name[1:].isdigit() else UNITS.get(name, "")


def relax(atoms: Atoms, cell: bool = False, limit: float = FORCE_LIMIT) -> None:
    """Relax positions, and the cell if asked for, in place.

    Raises:
        PacehpcError: the forces stay above `limit` (eV/Å).
    """
    target = FrechetCellFilter(atoms) if cell else atoms
    with BFGSLineSearch(target, logfile=None) as optimizer:
        if not optimizer.run(fmax=limit, steps=MOST_STEPS):
            raise PacehpcError(f"{atoms.get_chemical_formula()} did not relax in {MOST_STEPS} steps.")


def equilibrium(atoms: Atoms, calculator: Calculator) -> tuple[Atoms, dict[str, float]]:
    """Relax a crystal; returns it with its lattice constants, volume and energy."""
    atoms = atoms.copy()
    atoms.calc = calculator
    relax(atoms, cell=True, limit=1e-4)
    a, b, c = atoms.cell.lengths()
    found = {"a": a, "b": b, "c": c, "volume": atoms.get_volume() / len(atoms)}
    return atoms, {name: float(value) for name, value in found.items()} | {
        "energy": atoms.get_potential_energy() / len(atoms)
    }


def equation_of_state(
    atoms: Atoms, calculator: Calculator, smallest: float = 0.7, largest: float = 1.3, points: int = 25
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Scale a relaxed crystal and fit Birch and Murnaghan's equation (Phys. Rev. 71, 809 (1947)) near its minimum.

    Returns:
        V0, B0, B', and the whole curve: volume (Å³/atom) and energy (eV/atom).
    """
    volumes = np.linspace(smallest, largest, points) * atoms.get_volume() / len(atoms)
    energies = np.array([_scaled(atoms, calculator, v * len(atoms)).get_potential_energy() for v in volumes])
    energies /= len(atoms)
    near = np.linspace(0.96, 1.04, 9) * atoms.get_volume() / len(atoms)
    near_energies = [_scaled(atoms, calculator, v * len(atoms)).get_potential_energy() / len(atoms) for v in near]
    state = EquationOfState(near, near_energies, eos="birchmurnaghan")
    v0, _, b0 = state.fit()
    found = {"V0": float(v0), "B0": float(b0 / units.GPa), "B'": float(state.eos_parameters[2])}
    return found, {"volume": volumes.tolist(), "energy": energies.tolist()}


def _scaled(atoms: Atoms, calculator: Calculator, volume: float) -> Atoms:
    scaled = atoms.copy()
    scaled.set_cell(atoms.cell * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
    scaled.calc = calculator
    return scaled


def stiffness(atoms: Atoms, calculator: Calculator) -> np.ndarray:
    """Elastic constants of a relaxed crystal with relaxed positions, (6, 6) in GPa, Voigt order xx yy zz yz xz xy."""
    matrix = np.zeros((6, 6))
    for k in range(6):
        stress = []
        for sign in (1.0, -1.0):
            strain = np.zeros(6)
            strain[k] = sign * STRAIN
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ (np.eye(3) + _tensor(strain)), scale_atoms=True)
            strained.calc = calculator
            if np.linalg.norm(strained.get_forces(), axis=1).max() > FORCE_LIMIT:
                relax(strained, limit=1e-4)
            stress.append(strained.get_stress())
        matrix[k] = (stress[0] - stress[1]) / (2 * STRAIN)
    return (matrix + matrix.T) / (2 * units.GPa)


def _tensor(strain: np.ndarray) -> np.ndarray:
    xx, yy, zz, yz, xz, xy = strain
    return np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])


def elastic_constants(atoms: Atoms, calculator: Calculator) -> dict[str, float]:
    """Elastic constants by name and Hill's averages of the moduli (Proc. Phys. Soc. A 65, 349 (1952)), GPa."""
    c = stiffness(atoms, calculator)
    s = np.linalg.inv(c)
    voigt = (c[:3, :3].sum()) / 9, (np.trace(c[:3, :3]) - c[0, 1] - c[1, 2] - c[0, 2] + 3 * np.trace(c[3:, 3:])) / 15
    reuss = (
        1 / s[:3, :3].sum(),
        15 / (4 * np.trace(s[:3, :3]) - 4 * (s[0, 1] + s[1, 2] + s[0, 2]) + 3 * np.trace(s[3:, 3:])),
    )
    found = {"C11": c[0, 0], "C12": c[0, 1], "C44": c[3, 3]}
    lengths, angles = atoms.cell.lengths(), atoms.cell.angles()
    if np.ptp(lengths) > 1e-3 * lengths.max() or np.abs(angles - 90).max() > 0.01:
        found |= {"C33": c[2, 2], "C13": c[0, 2], "C22": c[1, 1], "C23": c[1, 2], "C55": c[4, 4], "C66": c[5, 5]}
    found |= {"bulk_modulus": (voigt[0] + reuss[0]) / 2, "shear_modulus": (voigt[1] + reuss[1]) / 2}
    return {name: float(value) for name, value in found.items()}


def vacancy(atoms: Atoms, calculator: Calculator, length: float = 10.0) -> dict[str, float]:
    """Formation energy of a vacancy in a crystal of one element, E(N - 1) - (N - 1)/N E(N), relaxed, eV."""
    whole = supercell(atoms, length)
    whole.calc = calculator
    energy = whole.get_potential_energy()
    rest = whole.copy()
    del rest[0]
    rest.calc = calculator
    relax(rest, limit=5e-3)
    return {"vacancy": float(rest.get_potential_energy() - energy * len(rest) / len(whole))}


def surfaces(atoms: Atoms, calculator: Calculator, thickness: float = 14.0) -> dict[str, float]:
    """Energies of low-index surfaces of a crystal, both sides relaxed, J/m².

    Args:
        atoms: relaxed conventional cell.
        calculator: of the potential.
        thickness: of the slab at least, Å.
    """
    angles = atoms.cell.angles()
    indices = [(0, 0, 1)] if abs(angles[2] - 90) > 0.1 else [(1, 0, 0), (1, 1, 0), (1, 1, 1)]
    bulk_energy = atoms.get_potential_energy() / len(atoms)
    found = {}
    for miller in indices:
        layer = surface(atoms, miller, 1, periodic=True)
        layers = max(2, int(-(-thickness // np.linalg.norm(layer.cell[2]))))
        slab = surface(atoms, miller, layers, vacuum=8.0)
        slab.pbc = (True, True, False)
        slab.calc = calculator
        relax(slab, limit=5e-3)
        area = float(np.linalg.norm(np.cross(slab.cell[0], slab.cell[1])))
        excess = slab.get_potential_energy() - bulk_energy * len(slab)
        found[f"({''.join(map(str, miller))})"] = float(excess / (2 * area) * 1e20 / units.J)
    return found


def dimer(pair: tuple[str, str], calculator: Calculator, longest: float, step: float = 0.05) -> tuple[dict, dict]:
    """The energy of two atoms against their distance, from 0.5 Å.

    Returns:
        Length and energy of the bond, and the shortest distance from which on down to 0.5 Å the energy no longer
        rises without a break (`dimer_shortest_repulsive`, 0.5 where it always rises); and the curve: distance, energy.
    """
    distances = np.arange(0.5, longest + step, step)
    energies = []
    for r in distances:
        atoms = Atoms(pair, positions=[[0, 0, 0], [0, 0, r]])
        atoms.calc = calculator
        energies.append(float(atoms.get_potential_energy()))
    energy = np.array(energies)
    lowest = int(energy[distances > 1.0].argmin() + (distances <= 1.0).sum())
    falling = np.flatnonzero(np.diff(energy[: lowest + 1]) >= 0)  # towards shorter distances the energy falls here
    shortest = distances[falling.max() + 1] if len(falling) else distances[0]
    found = {
        "dimer_length": float(distances[lowest]),
        "dimer_energy": float(energy[lowest]),
        "dimer_shortest_repulsive": float(shortest),
    }
    return found, {"distance": distances.tolist(), "energy": energies}


def phonons(atoms: Atoms, calculator: Calculator, length: float = 10.0, mesh: float = 40.0) -> dict[str, float]:
    """Lowest and highest phonon frequency on a mesh of wave vectors, THz; imaginary ones are negative.

    Raises:
        PacehpcError: phonopy is not installed.
    """
    try:
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms
    except ImportError as error:
        raise PacehpcError("phonons need phonopy: pip install 'pacehpc[validate]'.") from error
    cell = PhonopyAtoms(symbols=atoms.get_chemical_symbols(), cell=atoms.cell, positions=atoms.positions)
    repeat = np.diag([max(1, round(length / a)) for a in atoms.cell.lengths()])
    phonon = Phonopy(cell, supercell_matrix=repeat, primitive_matrix="P", log_level=0)
    phonon.generate_displacements(distance=0.01)
    forces = []
    for displaced in phonon.supercells_with_displacements:
        structure = Atoms(displaced.symbols, positions=displaced.positions, cell=displaced.cell, pbc=True)
        structure.calc = calculator
        forces.append(structure.get_forces())
    phonon.forces = forces
    phonon.produce_force_constants()
    phonon.run_mesh(mesh)
    frequencies = phonon.mesh.frequencies
    return {"lowest_frequency": float(frequencies.min()), "highest_frequency": float(frequencies.max())}


def dynamics(
    atoms: Atoms, calculator: Calculator, temperature: float = 300.0, picoseconds: float = 1.0, seed: int = 0
) -> dict[str, float]:
    """Drift of the total energy in a run at constant energy with steps of 1 fs, and the mean temperature."""
    cell = supercell(atoms, 9.0)
    cell.calc = calculator
    rng = np.random.default_rng(seed)
    kinetic = 2 * temperature * units.kB  # half of it goes into the potential energy
    cell.set_momenta(rng.normal(size=(len(cell), 3)) * np.sqrt(cell.get_masses() * kinetic)[:, None])
    Stationary(cell)
    run = VelocityVerlet(cell, 1.0 * units.fs)
    energies, temperatures = [], []
    for _ in range(round(picoseconds * 100)):
        run.run(10)
        energies.append(cell.get_total_energy() / len(cell))
        temperatures.append(cell.get_temperature())
    times = np.arange(len(energies)) * 0.01
    drift = np.polyfit(times, energies, 1)[0]
    return {"drift": float(drift), "temperature": float(np.mean(temperatures[len(temperatures) // 2 :]))}
