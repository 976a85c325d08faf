"""Time of one BFGS update, without the evaluation: this program's and scipy's, by number of parameters n.

    python benchmarks/updates.py [--sizes 500 2250 10000] [--threads 1 2] [--json FILE] [--input INPUT.yaml] [--page]

This program keeps the inverse Hessian as vectors at first and as a matrix later, to which it adds the vectors of every
64 updates: "matrix" is the mean time of an update then, over two such blocks; "vectors" the mean of the first 100
updates. The function that is minimised, a
quadratic form with a diagonal Hessian, takes no time to speak of. --input: also one evaluation of this potential on
10,000 atoms (the data repeated) on two threads, which an update should not exceed. Before, both are compared point by
point on Rosenbrock's function. --page: put the tables into docs/performance.md.
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
import scipy.optimize
from compare import replace_between_marks
from evaluation import machine, randomise
from threadpoolctl import threadpool_limits

from pacehpc import load_dataset
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.fit import bfgs, optimizers
from pacehpc.potential import build_potential
from pacehpc.yamlio import load_yaml

SHARED = Path(__file__).resolve().parents[2] / "shared"
SCIPY_LIMIT = 2250  # parameters beyond which scipy's update is not waited for
SIZES = (500, 2250, 10_000)
SMALL = (5, 20, 50)  # parameters of the comparison point by point
FIRST = 20  # iterates of it; later round-off has grown
ATOMS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--input", type=Path, help="such as ../shared/bench/ethanol_4836.yaml")
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    results = {"date": date.today().isoformat(), "machine": machine(), "scipy": scipy.__version__, "cases": []}
    print(f"{results['machine']['processor']}, {results['machine']['cores']} cores")
    results["parity"] = [parity(n) for n in SMALL]
    for case in results["parity"]:
        print(", ".join(f"{name} {value:.3g}" for name, value in case.items()), flush=True)
    for threads in arguments.threads:
        for n in arguments.sizes:
            case = {"threads": threads, "parameters": n}
            case["vectors_ms"] = 1e3 * update_seconds("BFGS", n, threads, 100, matrix_from=np.inf)
            case["matrix_ms"] = 1e3 * update_seconds("BFGS", n, threads, 2 * bfgs.TERMS + 2, matrix_from=0)
            case["matrix_GB_s"] = 4e-6 * n**2 / case["matrix_ms"]  # a triangle read once
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
    if arguments.page:
        replace_between_marks("optimizer", tables(results))


def parity(n: int) -> dict[str, float]:
    """Iterates of both on Rosenbrock's function: largest difference of the first ones, and of the ends."""
    x0 = np.random.default_rng(n).normal(size=n)
    paths, ends = [], []

    def rosenbrock(x: np.ndarray) -> tuple[float, np.ndarray, dict[str, float]]:
        value = float(scipy.optimize.rosen(x))
        return value, scipy.optimize.rosen_der(x), {"loss": value}

    for method in ("BFGS", "scipy-BFGS"):
        path: list[np.ndarray] = []
        found = optimizers.minimize(
            rosenbrock, x0, method, 1000, {"gtol": 1e-8}, lambda x, *_, path=path: bool(path.append(x.copy()))
        )
        paths.append(path)
        ends.append(found)
    ours, theirs = (np.array(path[: FIRST + 1]) for path in paths)
    return {
        "parameters": n,
        "iterations": ends[0].n_iterations,
        "scipy_iterations": ends[1].n_iterations,
        "first_iterates": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        "ends": float(np.abs(ends[0].x - ends[1].x).max()),
    }


def tables(results: dict) -> str:
    """What docs/performance.md shows."""
    m = results["machine"]
    lines = [
        f"| parameters | iterations | of scipy | difference of the first {FIRST} iterates (relative) | of the ends |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {c['parameters']} | {c['iterations']} | {c['scipy_iterations']} | {c['first_iterates']:.0e} "
        f"| {c['ends']:.0e} |"
        for c in results["parity"]
    ]
    lines += [
        "",
        "| threads | parameters | vectors, ms | matrix, ms | GB/s | scipy, ms | scipy/matrix |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for c in results["cases"]:
        theirs = f"{c['scipy_ms']:.0f} | {c['ratio']:.0f}" if "scipy_ms" in c else "– | –"
        lines.append(
            f"| {c['threads']} | {c['parameters']} | {c['vectors_ms']:.2f} | {c['matrix_ms']:.2f} | "
            f"{c['matrix_GB_s']:.1f} | {theirs} |"
        )
    lines += ["", f"{m['processor']}, {m['cores']} cores, scipy {results['scipy']}, {results['date']}."]
    if "evaluation_ms" in results:
        e = results["evaluation_ms"]
        lines[-1] += f" One evaluation of {e['input']} on {e['atoms']} atoms, {e['threads']} threads: {e['ms']:.0f} ms."
    return "\n".join(lines)


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
        bfgs.DENSE_FROM = matrix_from
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
    potential = build_potential(settings["potential"])
    randomise(potential)
    name = str(SHARED / "data" / settings["data"]["filename"])
    data = load_dataset(name, elements=potential.elements)
    chosen = np.resize(np.arange(len(data)), round(ATOMS / data.atoms_per_structure.mean()))
    structures = data.subset(chosen).structures(potential)
    evaluator = CpuEvaluator(potential, structures, LossWeights(kappa=0.3), EvaluatorOptions(threads=2))
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
