"""Time of one BFGS update, without the evaluation: this program's and scipy's, by number of parameters n.

    python benchmarks/optimizer.py [--sizes 500 2250 5000 10000] [--threads 1 2] [--json FILE] [--input INPUT.yaml]

This program keeps the inverse Hessian as vectors at first and as a matrix later, to which it adds the vectors of every
64 updates: "matrix" is the mean time of an update then, over two such blocks; "vectors" the mean of the first 100
updates. The function that is minimised, a
quadratic form with a diagonal Hessian, takes no time to speak of. --input: also one evaluation of this potential on
10,000 atoms (the data repeated) on two threads, which an update should not exceed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import scipy
from evaluation import machine, randomise
from threadpoolctl import threadpool_limits

from pacehpc import Dataset, Potential
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.fit import optimizers
from pacehpc.yamlio import load_yaml

SHARED = Path(__file__).resolve().parents[2] / "shared"
SCIPY_LIMIT = 5000  # parameters beyond which scipy's update is not waited for
SIZES = (500, 2250, 5000, 10_000)
ATOMS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--input", type=Path, help="such as ../shared/bench/ethanol_4836.yaml")
    arguments = parser.parse_args()
    results = {"date": date.today().isoformat(), "machine": machine(), "scipy": scipy.__version__, "cases": []}
    print(f"{results['machine']['processor']}, {results['machine']['cores']} cores")
    for threads in arguments.threads:
        for n in arguments.sizes:
            case = {"threads": threads, "parameters": n}
            case["vectors_ms"] = 1e3 * update_seconds("BFGS", n, threads, 100, matrix_from=np.inf)
            case["matrix_ms"] = 1e3 * update_seconds("BFGS", n, threads, 2 * optimizers.TERMS + 2, matrix_from=0)
            if n <= SCIPY_LIMIT:
                case["scipy_ms"] = 1e3 * update_seconds("scipy-BFGS", n, threads, 3)
                case["ratio"] = case["scipy_ms"] / case["matrix_ms"]
            results["cases"].append(case)
            print(", ".join(f"{name} {value:.4g}" for name, value in case.items()), flush=True)
    if arguments.input:
        seconds = evaluation_seconds(arguments.input)
        results["evaluation_ms"] = {"input": arguments.input.stem, "atoms": ATOMS, "threads": 2, "ms": 1e3 * seconds}
        print(f"one evaluation of {arguments.input.stem} on {ATOMS} atoms, two threads: {1e3 * seconds:.4g} ms")
    if arguments.json:
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def update_seconds(method: str, n: int, threads: int, updates: int, matrix_from: float | None = None) -> float:
    """Wall time from one iteration to the next: median of scipy's, mean of ours, which differ; the first is left out.

    matrix_from: updates over parameters from which this program keeps a matrix.
    """
    rng = np.random.default_rng(1)
    hessian, x0 = np.exp(rng.normal(size=n)), rng.normal(size=n)

    def quadratic(x: np.ndarray) -> tuple[float, np.ndarray, dict[str, float]]:
        g = hessian * x
        value = 0.5 * float(x @ g)
        return value, g, {"loss": value}

    ends: list[float] = []
    if matrix_from is not None:
        optimizers.DENSE_FROM = matrix_from
    with threadpool_limits(threads, user_api="blas"):
        optimizers.minimize(
            quadratic,
            x0,
            method,
            updates,
            {"gtol": 0.0},
            lambda *_: bool(ends.append(time.perf_counter())),
        )
    times = np.diff(ends)[1:]
    return float(np.median(times) if matrix_from is None else np.mean(times))


def evaluation_seconds(path: Path) -> float:
    """One evaluation of loss and gradient on about `ATOMS` atoms, two threads."""
    settings = load_yaml(path)
    potential = Potential.build(settings["potential"])
    randomise(potential)
    name = str(SHARED / "data" / settings["data"]["filename"])
    data = Dataset.load(name, elements=potential.elements)
    chosen = np.resize(np.arange(len(data)), round(ATOMS / data.atoms_per_structure.mean()))
    structures = data.subset(chosen).structures(potential)
    evaluator = CpuEvaluator(potential, structures, LossWeights(kappa=0.3), threads=2)
    x = potential.parameters
    return repeated(lambda: evaluator.evaluate(x))


def repeated(call: Callable[[], object]) -> float:
    """Median wall time of a few calls after the first."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


if __name__ == "__main__":
    main()
