"""One generation of active learning: fit, active set, molecular dynamics, selection, labels, data of the next one.

    python generation.py 0        # in an empty folder: makes gen_0 with the first data, and the data of gen_1
    python generation.py 1        # and so on

Every step writes its result under another name first. A generation that was killed is started again with the same
command: finished steps are skipped, the fit resumes where it stopped, and the result is that of an uninterrupted run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

from pacehpc import PaceCalculator

HERE = Path(__file__).resolve().parent
SAVE, STOP = 2.0, 10.0  # grades: from the first on a structure is kept, at the second the run ends
STEPS, EVERY = 400, 10  # of 2 fs; a structure is looked at every so many steps
ACTIVE_SET = ["activeset", "output_potential.yaml", "-d", "fitting_data_info.pckl.gzip", "-a"]
TEMPERATURES = (300.0, 900.0, 1500.0)
NEW = 15  # structures that are labelled per generation
RANKS = int(os.environ.get("RANKS", "2"))


def label(atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy relative to free atoms (eV) and forces (eV/Å) of the reference method."""
    # With VASP or Quantum ESPRESSO: write the input here, run it, and read energy and forces from its output.
    atoms = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    atoms.calc = EMT()
    return atoms.get_potential_energy(), atoms.get_forces()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, help="of the generation, from 0")
    number = parser.parse_args().number
    folder, following = Path(f"gen_{number}"), Path(f"gen_{number + 1}")
    if number == 0 and not (folder / "data.pckl.gzip").exists():
        write_frame(folder / "data.pckl.gzip", labelled(first_structures()))
    if not (folder / "data.pckl.gzip").exists():
        raise SystemExit(f"{folder}/data.pckl.gzip is missing: run generation {number - 1} first.")
    step(folder / "output_potential.yaml", lambda: fit(folder))
    step(folder / "output_potential.asi", lambda: pacehpc(folder, *ACTIVE_SET))
    step(folder / "md.json", lambda: dynamics(folder, number))
    found = json.loads((folder / "md.json").read_text())
    grade, error = found["largest_grade"], found["test_error"]
    print(f"generation {number}: largest grade {grade:.2f}, error of test forces {error:.1f} meV/Å", flush=True)
    if not found["n_structures"]:
        print("no structure above the limit: nothing is left to learn from these runs")
        return
    selection = ["select", "md.extxyz", "-p", "output_potential.yaml", "-a", "output_potential.asi", "-m", str(NEW)]
    step(folder / "selected.pkl.gz", lambda: pacehpc(folder, *selection))
    step(following / "data.pckl.gzip", lambda: extend(folder, following))


def step(result: Path, work: Callable[[], object]) -> None:
    """Do the work unless its result is there."""
    if not result.exists():
        work()
        if not result.exists():
            raise SystemExit(f"{result} was not made.")


def pacehpc(folder: Path, *arguments: str) -> None:
    """Run a command of pacehpc on the ranks of this job."""
    command = ["mpirun", "-n", str(RANKS), sys.executable, "-m", "pacehpc", *arguments]
    code = subprocess.run(command, cwd=folder, check=False).returncode
    if code:
        raise SystemExit(code)  # 75: the fit was stopped; the same command resumes it


def fit(folder: Path) -> None:
    """Fit the generation's data; an unfinished fit is resumed."""
    (folder / "input.yaml").write_text((HERE / "input.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    pacehpc(folder, "input.yaml", "--no-predict")


def dynamics(folder: Path, number: int) -> None:
    """Run at several temperatures; keep structures above SAVE, stop above STOP, and measure the errors on the way."""
    calculator = PaceCalculator(folder / "output_potential.yaml", active_set=folder / "output_potential.asi")
    kept, largest = [], 0.0
    for temperature in TEMPERATURES:
        atoms, run = molecular_dynamics(calculator, temperature, number)
        for _ in range(STEPS // EVERY):
            run.run(EVERY)
            atoms.get_potential_energy()
            grade = calculator.results["gamma_max"]
            largest = max(largest, grade)
            if grade > SAVE:
                kept.append(Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True))
            if grade > STOP:
                break
    errors = []
    for temperature in TEMPERATURES:  # the test: what the reference method itself meets
        atoms, run = molecular_dynamics(EMT(), temperature, 1000)
        for _ in range(5):
            run.run(20)
            reference = atoms.get_forces()
            test = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True, calculator=calculator)
            errors.append(test.get_forces() - reference)
    if kept:
        ase.io.write(folder / "md.extxyz", kept, format="extxyz")
    test_error = float(np.sqrt(np.mean(np.square(errors)))) * 1e3
    found = {"n_structures": len(kept), "largest_grade": largest, "test_error": test_error}
    replace(folder / "md.json", json.dumps(found).encode())


def molecular_dynamics(calculator: Calculator, temperature: float, seed: int) -> tuple[Atoms, Langevin]:
    """A crystal of 32 atoms and its run, the same for the same seed."""
    rng = np.random.default_rng([seed, int(temperature)])
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = calculator
    momenta = np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    atoms.set_momenta(momenta * rng.normal(size=(len(atoms), 3)))
    return atoms, Langevin(atoms, 2 * units.fs, temperature_K=temperature, friction=0.01 / units.fs, rng=rng)


def extend(folder: Path, following: Path) -> None:
    """Label the selected structures and add them to the data."""
    old = pd.read_pickle(folder / "data.pckl.gzip", compression="gzip")
    new = labelled(pd.read_pickle(folder / "selected.pkl.gz", compression="gzip").ase_atoms)
    write_frame(following / "data.pckl.gzip", pd.concat([old, new], ignore_index=True))


def first_structures() -> list[Atoms]:
    """A few crystals near equilibrium: all that the first generation knows."""
    rng = np.random.default_rng(0)
    structures = []
    for scale in np.linspace(0.97, 1.05, 12):
        atoms = bulk("Cu", cubic=True) * (1, 1, 2)
        atoms.set_cell(atoms.cell * scale, scale_atoms=True)
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        structures.append(atoms)
    return structures


def labelled(structures: Iterable[Atoms]) -> pd.DataFrame:
    """A frame of structures with energies and forces."""
    labels = [label(atoms) for atoms in structures]
    plain = [Atoms(a.numbers, positions=a.positions, cell=a.cell, pbc=a.pbc) for a in structures]
    energies, forces = zip(*labels, strict=True)
    return pd.DataFrame({"ase_atoms": plain, "energy_corrected": energies, "forces": forces})


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame under another name first."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    frame.to_pickle(beside, compression="gzip", protocol=4)
    beside.replace(path)


def replace(path: Path, content: bytes) -> None:
    """Write a file under another name first."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(content)
    beside.replace(path)


if __name__ == "__main__":
    main()
