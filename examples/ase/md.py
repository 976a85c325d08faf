"""Molecular dynamics of Ni₃Al at 600 K and at constant volume: energies, temperature, and the pressure.

python md.py [POTENTIAL]
"""

import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet

from pacehpc import PaceCalculator

potential = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("al_ni.yace")

atoms = bulk("Ni", a=3.68, cubic=True)
atoms.symbols[0] = "Al"
atoms *= (3, 3, 3)
atoms.calc = PaceCalculator(potential)

# thermal momenta for twice the temperature: half of the energy goes into the displacements
momenta = np.random.default_rng(0).normal(size=(len(atoms), 3)) * np.sqrt(units.kB * 1200 * atoms.get_masses())[:, None]
atoms.set_momenta(momenta - momenta.mean(axis=0))
dynamics = VelocityVerlet(atoms, timestep=2 * units.fs)

print(" time/fs   E_pot/eV   E_kin/eV  E_total/eV  T/K  p/GPa")
totals = []
for _ in range(10):
    dynamics.run(20)
    kinetic, energy = atoms.get_kinetic_energy(), atoms.get_potential_energy()
    pressure = -atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa
    print(
        f"{dynamics.get_time() / units.fs:8.0f} {energy:10.4f} {kinetic:10.4f} {energy + kinetic:11.5f} "
        f"{atoms.get_temperature():5.0f} {pressure:6.2f}"
    )
    totals.append(energy + kinetic)
print(f"the total energy varies by {1e6 * np.ptp(totals) / len(atoms):.1f} µeV/atom")
