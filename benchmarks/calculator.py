"""The ASE calculator: a step of a crystal beside the kernels' own time, a molecule alone and in batches.

    python benchmarks/calculator.py [--seconds 3] [--page]

One thread, processor time, the best of several rounds. Every case is checked against the reference backend before it
is timed. --page puts the table into docs/ase.md and writes results/calculator.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from evaluation import machine, randomise

from pacehpc import PaceCalculator
from pacehpc.potential import Potential, build_potential, load_potential
from pacehpc.yamlio import load_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "ase.md", ROOT / "benchmarks" / "results" / "calculator.json"
ROUNDS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each measurement")
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    results = {"machine": machine(), "date": date.today().isoformat()}
    results["crystal"] = crystal_step(arguments.seconds)
    results["molecule"] = molecules(arguments.seconds)
    print(json.dumps(results, indent=1))
    if arguments.page:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        write_page(results)


def crystal_step(seconds: float) -> dict[str, float]:
    """864 atoms of Al-Ni that move by 0.002 Å from step to step: µs/atom of the call and of the kernels inside."""
    potential = load_potential(ROOT / "examples" / "ase" / "al_ni.yace")
    atoms = bulk("Ni", "fcc", a=3.57, cubic=True) * (6, 6, 6)
    atoms.symbols = np.random.default_rng(1).choice(["Al", "Ni"], len(atoms), p=[0.25, 0.75])
    atoms.rattle(0.05, seed=1)
    small = bulk("Ni", "fcc", a=3.57, cubic=True) * (2, 2, 2)
    small.symbols[::4] = "Al"
    small.rattle(0.05, seed=1)
    parity = compared(potential, small)
    calculator = PaceCalculator(potential)
    call, kernels = in_turns(step_of(atoms, calculator), kernels_of(calculator), seconds)
    return {"atoms": len(atoms), "parity": parity, "call_us": call / len(atoms), "kernels_us": kernels / len(atoms)}


def molecules(seconds: float) -> dict[str, float]:
    """Ethanol: µs/atom of a call for one molecule, of the kernels inside, and of `calculate_many` for 1000."""
    path = ROOT / "benchmarks" / "inputs" / "ethanol_756.yaml"
    potential = build_potential(load_yaml(path)["potential"])
    randomise(potential)
    atoms = molecule("CH3CH2OH")
    parity = compared(potential, atoms)
    calculator = PaceCalculator(potential)
    call, kernels = in_turns(step_of(atoms, calculator), kernels_of(calculator), seconds)
    frames = [atoms.copy() for _ in range(1000)]
    for k, frame in enumerate(frames):
        frame.rattle(0.01, seed=k)
    many, _ = in_turns(lambda: calculator.calculate_many(frames), lambda: None, seconds)
    n = len(atoms)
    return {
        "atoms": n, "parity": parity, "call_us": call / n, "kernels_us": kernels / n, "many_us": many / (1000 * n)
    }  # fmt: skip


def compared(potential: Potential, atoms: Atoms) -> float:
    """Largest difference of forces to the reference backend, relative to the largest force."""
    forces = []
    for backend in ("cpu", "reference"):
        frame = atoms.copy()
        frame.calc = PaceCalculator(potential, backend=backend)
        forces.append(frame.get_forces())
    parity = float(abs(forces[0] - forces[1]).max() / abs(forces[1]).max())
    assert parity < 1e-10, parity
    return parity


def step_of(atoms: Atoms, calculator: PaceCalculator) -> Callable[[], object]:
    """Energy and forces as ASE's dynamics ask for them, after positions have changed."""
    atoms.calc = calculator
    steps = atoms.positions + 0.002 * np.random.default_rng(0).standard_normal((2, len(atoms), 3))
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        atoms.positions = steps[count % 2]
        atoms.get_forces()
        atoms.get_potential_energy()

    step()
    return step


def kernels_of(calculator: PaceCalculator) -> Callable[[], object]:
    """The compiled program alone, for the atoms that the calculator has last seen."""
    moving = calculator._moving
    positions = moving._positions([calculator.atoms])
    return lambda: moving._program.evaluate(positions)


def in_turns(first: Callable[[], object], second: Callable[[], object], seconds: float) -> tuple[float, float]:
    """µs of processor time of a call of each, the best round."""
    start = time.process_time()
    first()
    repeats = max(1, int(seconds / ROUNDS / max(time.process_time() - start, 1e-5) / 2))
    best = [np.inf, np.inf]
    for _ in range(ROUNDS):
        for k, call in enumerate((first, second)):
            start = time.process_time()
            for _ in range(repeats):
                call()
            best[k] = min(best[k], (time.process_time() - start) / repeats)
    return 1e6 * best[0], 1e6 * best[1]


def write_page(results: dict) -> None:
    """The table of docs/ase.md."""
    crystal, ethanol = results["crystal"], results["molecule"]
    lines = [
        "| one thread | µs/atom | the kernels' part |",
        "| --- | --- | --- |",
        f"| a step of {crystal['atoms']} atoms of Al–Ni, 252 functions | {crystal['call_us']:.1f} "
        f"| {crystal['kernels_us']:.1f} |",
        f"| a call for one ethanol molecule, 756 functions | {ethanol['call_us']:.1f} | {ethanol['kernels_us']:.1f} |",
        f"| `calculate_many` of 1000 such molecules | {ethanol['many_us']:.1f} | |",
        "",
        f"Processor time on {results['machine']['processor']}, {results['date']}; `python benchmarks/calculator.py`.",
    ]
    start, end = "<!-- speed -->\n", "<!-- end of speed -->"
    before, rest = PAGE.read_text(encoding="utf-8").split(start)
    PAGE.write_text(before + start + "\n".join(lines) + "\n" + end + rest.split(end)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
