"""Cost of rows of the linearised model in evaluations of loss and gradient, on one core.

    python benchmarks/rows.py [INPUT.yaml …] [--rows 1 2 5 10] [--json FILE] [--seconds 2]

q rows of forces and one of energies are made of every structure (`Evaluator.rows`, "energy+forces"), and B values of
every atom (`Evaluator.atom_rows`). The shortest of many times of this process (without waiting) count, taken in turn
with those of evaluations. Before: rows of a few structures against the reference backend, and those of all structures
along the residuals against the gradient of the loss. Without inputs: all of ../shared/bench.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
from evaluation import PARITY_ATOMS, SHARED, machine, randomise

from pacehpc import Potential, load_dataset
from pacehpc.backends import create_evaluator
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import Evaluator, EvaluatorOptions, LossWeights
from pacehpc.potential import build_potential
from pacehpc.structures import Structures
from pacehpc.yamlio import load_yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of the inputs' data files")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 5, 10], help="rows of forces per structure")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each measurement")
    parser.add_argument("--structures", type=int, help="only so many of each input")
    arguments = parser.parse_args()
    inputs = arguments.inputs or sorted((SHARED / "bench").glob("*.yaml"))
    results = {"machine": machine(), "cases": {}}
    print(f"{results['machine']['processor']}, DGEMM {results['machine']['dgemm_gflops']:.1f} GFlop/s on one core")
    for path in inputs:
        case = measure(path, arguments.data, arguments.rows, arguments.seconds, arguments.structures)
        results["cases"][path.stem] = case
        costs = "  ".join(
            f"q {q}: {found['evaluations']:6.2f} = {found['per_row_above_half']:5.2f}/row + 0.5"
            for q, found in case["rows"].items()
        )
        print(
            f"{path.stem:14s} {case['parameters']:7d} parameters {case['structures']:5d} structures | parity "
            f"{case['parity']:.0e} {case['gradient']:.0e} | {1e3 * case['evaluation_s']:8.2f} ms an evaluation | "
            f"{costs} | basis {case['basis_evaluations']:.2f}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(path: Path, data_folder: Path, counts: list[int], seconds: float, most: int | None) -> dict[str, object]:
    """Parity, then costs of one input in evaluations."""
    settings = load_yaml(path)
    potential = build_potential(settings["potential"])
    randomise(potential)
    loss = LossWeights(kappa=settings["fit"]["loss"]["kappa"])
    data = load_dataset(str(data_folder / settings["data"]["filename"]), elements=potential.elements)
    structures = data.structures(potential, np.arange(min(len(data), most or len(data))))
    random = np.random.default_rng(0)
    evaluator = CpuEvaluator(potential, structures, loss, EvaluatorOptions(threads=1))
    x = potential.parameters
    found = {
        "parameters": potential.n_parameters,
        "structures": structures.n_structures,
        "atoms": structures.n_atoms,
        "parity": check_rows(potential, structures, loss),
        "gradient": check_gradient(evaluator, structures, loss, x),
        "rows": {},
    }
    evaluations: list[float] = []
    for q in counts:
        directions = random.normal(size=(q, structures.n_atoms, 3))
        best = in_turn(
            lambda: evaluator.evaluate(x),
            lambda u=directions: exhaust(evaluator.rows(x, "energy+forces", u)),
            seconds,
        )
        evaluations.append(best[0])
        cost = best[1] / best[0]
        found["rows"][q] = {"evaluations": cost, "per_row_above_half": (cost - 0.5) / (q + 1)}
    best = in_turn(lambda: evaluator.evaluate(x), lambda: exhaust(evaluator.atom_rows(x, "basis")), seconds)
    return found | {"evaluation_s": min(evaluations), "basis_evaluations": best[1] / best[0]}


def exhaust(pieces: object) -> None:
    """Take all pieces, one at a time."""
    for _ in pieces:
        pass


def in_turn(one: object, other: object, seconds: float) -> tuple[float, float]:
    """Shortest times of two calls made in turn over about `seconds`."""
    one(), other()
    times: tuple[list[float], list[float]] = ([], [])
    while sum(times[0]) + sum(times[1]) < seconds or len(times[0]) < 3:
        for call, own in zip((one, other), times, strict=True):
            start = time.process_time()
            call()
            own.append(time.process_time() - start)
    return min(times[0]), min(times[1])


def check_rows(potential: Potential, structures: Structures, loss: LossWeights) -> float:
    """Largest relative difference of rows from the reference backend on a few structures."""
    count = max(1, int(np.searchsorted(structures.atom_offsets, PARITY_ATOMS, side="right")) - 1)
    part, x = structures.select(slice(0, count)), potential.parameters
    directions = np.random.default_rng(1).normal(size=(2, part.n_atoms, 3))
    ours, theirs = (
        np.concatenate([v for _, v in create_evaluator(b, potential, part, loss).rows(x, "energy+forces", directions)])
        for b in ("cpu", "reference")
    )
    scale = np.maximum(np.abs(theirs).max(axis=(0, 2)), 1e-12 * np.abs(theirs).max())  # crystals have no forces
    difference = float((np.abs(ours - theirs).max(axis=(0, 2)) / scale).max())
    if not difference < 1e-9:
        raise SystemExit(f"parity check failed: relative difference {difference:.2e}")
    return difference


def check_gradient(evaluator: Evaluator, s: Structures, loss: LossWeights, x: np.ndarray) -> float:
    """Largest relative difference of the gradient from the rows along the residuals: 2 Jᵀr."""
    expected, found = evaluator.evaluate(x).gradient, evaluator.predict(x)
    energies = np.add.reduceat(found.energies, s.atom_offsets[:-1])
    a = 2 * (1 - loss.kappa) * s.w_energy * (energies - s.energy) / s.atoms_per_structure**2
    b = 2 * loss.kappa * s.w_forces[:, None] * (found.forces - s.forces)
    total = np.zeros(len(x))
    for where, values in evaluator.rows(x, "energy+forces", b[None]):
        total += a[where] @ values[:, 0] + values[:, 1].sum(axis=0)
    difference = float(np.abs(total - expected).max() / np.abs(expected).max())
    if not difference < 1e-11:
        raise SystemExit(f"the rows do not add up to the gradient: relative difference {difference:.2e}")
    return difference


if __name__ == "__main__":
    main()
