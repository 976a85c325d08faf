"""The host's part of an evaluation by the cuda backend: no GPU is used.

    python benchmarks/gpu_host.py [INPUT …] [--atoms 1000] [--page]

Kernels and fills cost nothing here (tests/fake_cupy, with both left out): what remains is the time that Python takes to
order the coefficients, copy them, launch one graph, fetch the sums and bring the gradient into the order of the
parameters. Copies are between places of the host's memory; a device's bus and its driver's calls are not in it.
--page: into docs/performance.md, and the results into benchmarks/results/gpu_host.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "fake_cupy")]

import cupy
from gpu_check import NEIGHBOURS, block_of_atoms, load_inputs, repeat, repeated

from pacehpc.backends.cuda import CudaEvaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.machine import processor

HEAD = ("potential", "parameters", "kB up", "kB down", "ms of an evaluation", "ms to the parameters' order")
SHOWN = ("cu_82", "cu_529", "ethanol_4836", "hea_55360")


class NoKernels:
    """In place of a compiled module: kernels that do nothing."""

    def __init__(self, **_: object) -> None:
        pass

    def get_function(self, _: str) -> object:
        return lambda *_: None


class HostPart(CudaEvaluator):
    """The evaluator where nothing runs on a device."""

    def _check_sizes(self) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path, help=f"default: {', '.join(SHOWN)}")
    parser.add_argument("--atoms", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0, help="time spent on each measurement")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    cupy.RawModule, cupy.ndarray.fill = NoKernels, lambda *_: None
    potentials = load_inputs(arguments.inputs, large=True)
    results: dict[str, object] = {"machine": processor(), "date": time.strftime("%Y-%m-%d"), "cases": {}}
    lines = [f"| {' | '.join(HEAD)} |", "| --- " * len(HEAD) + "|"]
    print("\n".join(lines))
    for name, potential in potentials.items():
        if not arguments.inputs and name not in SHOWN:
            continue
        case = measure(potential, arguments.atoms, NEIGHBOURS.get(name, 57), arguments.seconds)
        results["cases"][name] = case
        sizes = f"{case['parameters']} | {case['bytes_up'] / 1e3:.0f} | {case['bytes_down'] / 1e3:.0f}"
        lines.append(f"| {name} | {sizes} | {case['evaluate_ms']:.3f} | {case['to_parameters_ms']:.3f} |")
        print(lines[-1], flush=True)
    path = ROOT / "benchmarks" / "results" / "gpu_host.json" if arguments.page else arguments.json
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.page:
        from compare import replace_between_marks

        note = f"{results['machine']}, {arguments.atoms} atoms, {results['date']}."
        replace_between_marks("gpu host", "\n".join([*lines, "", note]))
    return 0


def measure(potential: object, n_atoms: int, neighbours: float, seconds: float) -> dict[str, float]:
    """Medians of one potential at one size."""
    block = block_of_atoms(potential, neighbours)
    s = repeated([block], max(1, round(n_atoms / block.n_atoms)))
    start = time.perf_counter()
    evaluator = HostPart(potential, s, LossWeights(kappa=0.3))
    setup = time.perf_counter() - start
    x = potential.parameters
    for _ in range(2):  # the second one records the graph
        sums = evaluator.evaluate(x)
    evaluations = repeat(lambda: evaluator.evaluate(x), seconds)
    orders = repeat(lambda: sums.gradient, seconds)
    return {
        "parameters": len(x),
        "atoms": s.n_atoms,
        "bytes_up": evaluator.coefficients.values.nbytes,
        "bytes_down": evaluator._result.nbytes,
        "setup_s": setup,
        "evaluate_ms": 1e3 * float(np.median(evaluations)),
        "to_parameters_ms": 1e3 * float(np.median(orders)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
