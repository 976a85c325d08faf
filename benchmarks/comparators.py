"""What compare.py runs inside the comparators' environment (numpy, pandas, ase, pyace).

python comparators.py frame STRUCTURES.npz FRAME.pckl.gzip        data as pacemaker reads them
python comparators.py evaluate STRUCTURES.npz POTENTIAL.yace SECONDS RESULT.npz
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
from ase import Atoms


def read_structures(path: str) -> tuple[list[Atoms], np.ndarray, list[np.ndarray], Atoms]:
    """Frames, energies, forces, and the frame of the ASE call."""
    data = np.load(path)
    cuts = np.cumsum(data["counts"])[:-1]
    parts = zip(
        *(np.split(data[name], cuts) for name in ("numbers", "positions")), data["cells"], data["pbc"], strict=True
    )
    frames = [Atoms(numbers, positions, cell=cell, pbc=pbc) for (numbers, positions, cell, pbc) in parts]
    large = Atoms(data["ase_numbers"], data["ase_positions"], cell=data["ase_cell"], pbc=data["ase_pbc"])
    return frames, data["energies"], np.split(data["forces"], cuts), large


def write_frame(structures: str, path: str) -> None:
    """The pickled pandas frame that pacemaker fits."""
    import pandas

    frames, energies, forces, _ = read_structures(structures)
    table = pandas.DataFrame({"ase_atoms": frames, "energy_corrected": energies, "forces": list(forces)})
    table.to_pickle(path, compression="gzip", protocol=4)


def ase_call_times(calculator: object, atoms: Atoms, seconds: float) -> list[float]:
    """Times of get_potential_energy and get_forces after steps as of a dynamics."""
    atoms.calc = calculator
    steps = 0.002 * np.random.default_rng(0).standard_normal((2, len(atoms), 3))
    start, count = atoms.positions.copy(), 0

    def call() -> None:
        nonlocal count
        count += 1
        atoms.positions = start + steps[count % 2]
        atoms.get_potential_energy()
        atoms.get_forces()

    return repeat(call, seconds)


def repeat(call: Callable[[], object], seconds: float) -> list[float]:
    """Wall times of repeated calls over about `seconds`, after one to warm up."""
    call()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def evaluate(structures: str, potential: str, seconds: float, result: str) -> None:
    """Energies and forces by the recursive evaluator; times of all structures, and of ASE calls."""
    from pyace import PyACECalculator

    calculator = PyACECalculator(potential, recursive_evaluator=True, recursive=True)
    frames, _, _, large = read_structures(structures)
    energies, forces, environments = [], [], []
    for atoms in frames:
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        environments.append(calculator.ae)

    def compute() -> None:
        for environment in environments:
            calculator.ace.compute(environment)

    times = repeat(compute, seconds)
    calls = ase_call_times(calculator, large, seconds)
    np.savez(result, energies=energies, forces=np.concatenate(forces))
    print(json.dumps({"evaluate": times, "ase": calls}))


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "frame":
        write_frame(*arguments)
    else:
        evaluate(arguments[0], arguments[1], float(arguments[2]), arguments[3])
