"""Time of one loss-and-gradient evaluation on one core, in µs per atom, stage by stage.

    python benchmarks/evaluation.py [INPUT.yaml …] [--data FOLDER] [--json FILE] [--seconds 3]

Every input is checked against the reference backend on a few structures before it is timed. Coefficients are random:
radial δ_nk + 0.05 N(0,1), functions 1e-3 N(0,1). Without inputs: all of ../shared/bench.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # programs started here keep compiled modules, as a user's do

import numpy as np
from threadpoolctl import threadpool_limits

from pacehpc import Potential, load_dataset
from pacehpc.backends import create_evaluator
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.machine import processor
from pacehpc.potential import build_potential
from pacehpc.yamlio import load_yaml

SHARED = Path(__file__).resolve().parents[2] / "shared"
PARITY_ATOMS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of the inputs' data files")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each measurement")
    parser.add_argument("--batch-atoms", type=int)
    parser.add_argument("--store-moments", type=int, choices=(0, 1))
    parser.add_argument("--stages", action="store_true", help="print the time of each stage")
    arguments = parser.parse_args()
    inputs = arguments.inputs or sorted((SHARED / "bench").glob("*.yaml"))
    results = {"machine": machine(), "cases": {}}
    print(f"{results['machine']['processor']}, DGEMM {results['machine']['dgemm_gflops']:.1f} GFlop/s on one core")
    for path in inputs:
        options = {"batch_atoms": arguments.batch_atoms}
        if arguments.store_moments is not None:
            options["store_moments"] = bool(arguments.store_moments)
        case = measure(path, arguments.data, arguments.seconds, options)
        results["cases"][path.stem] = case
        print(
            f"{path.stem:14s} {case['functions']:6d} functions {case['parameters']:7d} parameters "
            f"{case['atoms']:5d} atoms {case['bonds_per_atom']:6.1f} bonds | parity {case['parity']:.0e} | "
            f"set-up {case['setup_s']:5.1f} s | {case['us_per_atom_min']:6.2f} min {case['us_per_atom']:6.2f} median "
            f"us/atom (E+F {case['us_per_atom_forces']:5.2f}) | "
            f"fill {case['fill']:.2f}"
        )
        if arguments.stages:
            for stage, value in case["stages_us_per_atom"].items():
                print(f"    {stage:18s} {value:7.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(path: Path, data_folder: Path, seconds: float, options: dict[str, object]) -> dict[str, object]:
    """Parity, then times of one input; µs per atom."""
    settings = load_yaml(path)
    potential = build_potential(settings["potential"])
    randomise(potential)
    loss = LossWeights(kappa=settings["fit"]["loss"]["kappa"])
    data = load_dataset(str(data_folder / settings["data"]["filename"]), elements=potential.elements)
    structures = data.structures(potential)
    parity = check_parity(potential, structures, loss)

    start = time.perf_counter()
    evaluator = CpuEvaluator(potential, structures, loss, EvaluatorOptions(threads=1, **options))
    setup = time.perf_counter() - start
    x = potential.parameters
    times = repeat(lambda: evaluator.evaluate(x), seconds)
    forces = repeat(lambda: evaluator.evaluate(x, gradient=False), seconds / 3)
    runs = [evaluator.stage_seconds(x) for _ in range(max(3, len(times) // 4))]
    stages = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
    scale = 1e6 / structures.n_atoms
    return {
        "functions": potential.n_functions,
        "parameters": potential.n_parameters,
        "atoms": structures.n_atoms,
        "bonds_per_atom": structures.n_bonds / structures.n_atoms,
        "parity": parity,
        "setup_s": setup,
        "us_per_atom_min": min(times) * scale,
        "us_per_atom": float(np.median(times)) * scale,
        "us_per_atom_forces": float(np.median(forces)) * scale,
        "evaluations": len(times),
        "fill": structures.n_bonds / (evaluator.layout.bond_atoms.size or 1),
        "stages_us_per_atom": {name: value * scale for name, value in stages.items()},
    }


def randomise(potential: Potential, seed: int = 1) -> None:
    """Radial coefficients δ_nk + 0.05 N(0,1), function coefficients 1e-3 N(0,1)."""
    rng = np.random.default_rng(seed)
    for c in potential.radcoefficients.values():
        c += 0.05 * rng.standard_normal(c.shape)
    for block in potential.blocks:
        block.coefficients[:] = 1e-3 * rng.standard_normal(block.coefficients.shape)


def check_parity(potential: Potential, structures: object, loss: LossWeights) -> float:
    """Largest relative difference of loss and gradient from the reference backend on a few structures."""
    count = max(1, int(np.searchsorted(structures.atom_offsets, PARITY_ATOMS, side="right")) - 1)
    part = structures.select(slice(0, count))
    x = potential.parameters
    ours = create_evaluator("cpu", potential, part, loss).evaluate(x)
    theirs = create_evaluator("reference", potential, part, loss).evaluate(x)
    difference = max(
        float(np.max(np.abs(ours.terms - theirs.terms) / np.maximum(np.abs(theirs.terms), 1e-300))),
        float(np.max(np.abs(ours.gradient - theirs.gradient)) / np.max(np.abs(theirs.gradient))),
    )
    if not difference < 1e-9:
        raise SystemExit(f"parity check failed: relative difference {difference:.2e}")
    return difference


def repeat(call: object, seconds: float) -> list[float]:
    """Wall times of repeated calls over about `seconds`, after one to warm up."""
    call()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def machine() -> dict[str, object]:
    """Processor and the speed of a matrix product on one core."""
    n = 1024
    a = np.random.default_rng(0).standard_normal((n, n))
    with threadpool_limits(1, user_api="blas"):
        best = min(repeat(lambda: a @ a, 1.0))
    return {"processor": processor(), "cores": os.cpu_count(), "dgemm_gflops": 2 * n**3 / best / 1e9}


if __name__ == "__main__":
    main()
