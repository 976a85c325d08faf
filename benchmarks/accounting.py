"""Operations and bytes of every stage of an evaluation by formula, beside its measured time.

    python benchmarks/accounting.py [INPUT.yaml …] [--seconds 2] [--json FILE] [--page]

Counted from the potential's shape and the numbers of neighbours: a fused multiply-add is two operations, the geometry
of bonds is counted as the kernels write it, divisions and the embedding function not at all; core repulsion and virials
are left out. Bytes: every array that a stage reads or writes counts once for each, from whatever cache it comes; what
a tile shares (coefficients, gradient sums) is divided by its atoms. The last columns are operations per time, of
the fastest run, and their share of a matrix product's. Without inputs: all of ../shared/bench;
inputs that are not named keep their results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from collections import Counter
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
from ceilings import matrix_product
from compare import replace_between_marks
from evaluation import SHARED, check_parity, machine, randomise, repeat

from pacehpc import load_dataset
from pacehpc.backends.compile import compile_library, lanes
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.graph import real_coupling
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.backends.shape import ElementTables, Shape
from pacehpc.potential import build_potential
from pacehpc.structures import Structures
from pacehpc.yamlio import load_yaml

RESULTS = Path(__file__).parent / "results" / "accounting.json"
Counts = dict[str, tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of the inputs' data files")
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each input")
    parser.add_argument("--json", type=Path, default=RESULTS, help="results; default: %(default)s")
    parser.add_argument("--page", action="store_true", help="put the tables into docs/performance.md")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kept = json.loads(arguments.json.read_text())["cases"] if arguments.json.exists() else {}
    results: dict[str, object] = {"machine": machine() | {"dgemm_gflops": matrix_product()}, "cases": kept}
    for path in arguments.inputs or sorted((SHARED / "bench").glob("*.yaml")):
        case = account(path, arguments.data, arguments.seconds)
        results["cases"][path.stem] = case
        print(table(path.stem, case, results["machine"]["dgemm_gflops"]) + "\n")
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.page:
        dgemm = results["machine"]["dgemm_gflops"]
        replace_between_marks(
            "accounting", "\n\n".join(table(name, case, dgemm) for name, case in sorted(kept.items()))
        )


def account(path: Path, data_folder: Path, seconds: float) -> dict[str, object]:
    """Counts and times of one input."""
    settings = load_yaml(path)
    potential = build_potential(settings["potential"])
    randomise(potential)
    data = load_dataset(str(data_folder / settings["data"]["filename"]), elements=potential.elements)
    structures = data.structures(potential)
    loss = LossWeights(kappa=settings["fit"]["loss"]["kappa"])
    parity = check_parity(potential, structures, loss)
    evaluator = CpuEvaluator(potential, structures, loss, EvaluatorOptions(threads=1))
    stored = bool(evaluator._problem["moments"][0])
    rows, elements = evaluator._kept["tile_rows"] >= 0, evaluator.layout.tile_element
    bondwise = [
        float(rows[elements == e].mean()) if (elements == e).any() else 0.0 for e in range(len(potential.elements))
    ]
    counts = per_atom(evaluator.shape, structures, stored, bondwise)
    x, runs = potential.parameters, []
    total = repeat(lambda: evaluator.evaluate(x), seconds)
    repeat(lambda: runs.append(evaluator.stage_seconds(x)), seconds)
    best = min(runs, key=lambda run: sum(run.values()))
    scale = 1e6 / structures.n_atoms
    stages = {
        name: {
            "flop": counts.get(name, (0.0, 0.0))[0],
            "bytes": counts.get(name, (0.0, 0.0))[1],
            "us": best[name] * scale,
        }
        for name in best
    }
    return {
        "parity": parity,
        "stages": stages,
        "us_per_atom": min(total) * scale,
        "compile_cpu_s": compile_seconds(evaluator.shape.header(evaluator.loss.stress > 0)),
        "moments_stored": stored,
        "bondwise": float(rows.mean()),
        "fill": structures.n_bonds / evaluator.layout.bond_atoms.size,
    }


def compile_seconds(header: str) -> float:
    """Processor time of compiling the kernels into an empty cache."""
    kept = os.environ.get("PACEHPC_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PACEHPC_CACHE"] = folder
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        compile_library(header)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    os.environ.pop("PACEHPC_CACHE")
    if kept is not None:
        os.environ["PACEHPC_CACHE"] = kept
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def per_atom(shape: Shape, structures: Structures, stored: bool, bondwise: list[float]) -> Counts:
    """(floating-point operations, bytes) of each stage per atom, averaged over elements.

    bondwise: the share of each element's tiles whose radial functions are made bond by bond.
    """
    n = len(shape.elements)
    centre = np.repeat(structures.species, np.diff(structures.bond_offsets))
    pairs = np.bincount(centre * n + structures.species[structures.bond_atom], minlength=n * n).reshape(n, n)
    atoms = np.bincount(structures.species, minlength=n)
    total: Counter[str] = Counter()
    traffic: Counter[str] = Counter()
    for e, table in enumerate(shape.elements):
        if atoms[e]:
            bonds = [(pairs[e, mu] / atoms[e], shape.bond_class[e, mu]) for mu in range(n)]
            for way, share in ((True, bondwise[e]), (False, 1 - bondwise[e])):
                for name, (flop, size) in of_element(shape, table, bonds, stored, way).items():
                    total[name] += share * flop * atoms[e] / structures.n_atoms
                    traffic[name] += share * size * atoms[e] / structures.n_atoms
    return {name: (total[name], traffic[name]) for name in total}


def of_element(
    shape: Shape, table: ElementTables, bonds: list[tuple[float, int]], stored: bool, bondwise: bool
) -> Counts:
    """Counts of one atom; bonds: (number, class) of each neighbour element."""
    nd, graph = shape.n_densities, table.graph
    flop: Counter[str] = Counter()
    n_bonds = sum(count for count, _ in bonds)
    making = rows = angular = 0.0
    for count, kind in bonds:
        if kind < 0:
            continue
        J, L, N = shape.classes[kind]
        n_lm = (L + 1) ** 2
        if bondwise:
            radial = N * (L + 1)
            rows += count * 2 * (radial + nd)
            angular += count * n_lm
            flop["atomic base"] += count * (4 * J * (radial + nd) + radial + 2 * N * n_lm + 2 * nd)
            flop["atomic base"] += count * (chebyshev(J) + harmonics(L) + n_lm)
            flop["forces"] += count * (4 * nd + 4 * N * n_lm + harmonics(L) + bond_force(L))
            flop["tangent moments"] += count * (radial + 4 * N * n_lm + 4 * nd + harmonics(L) + bond_tangent(L))
            flop["radial gradient"] += count * (
                chebyshev(J) + 6 * N * n_lm + 4 * radial + 4 * J * (radial + nd) + 4 * nd
            )
            continue
        flop["atomic base"] += 2 * N * J * n_lm + 2 * nd * J
        flop["moment adjoint"] += 2 * N * J * n_lm + 2 * nd * J
        flop["tangent base"] += 2 * N * J * n_lm + 2 * nd * J
        flop["radial gradient"] += 4 * N * J * n_lm + 4 * nd * J
        flop["forces"] += count * (contraction(J, n_lm) + chebyshev(J) + harmonics(L) + bond_force(L))
        flop["tangent moments"] += count * (4 * J * n_lm + chebyshev(J) + harmonics(L) + bond_tangent(L))
        making += count * (2 * J * n_lm + chebyshev(J) + harmonics(L) + 3 * n_lm)
    for coupling, number in Counter(graph.nodes[:, 0].tolist()).items():
        la, lb, L = shape_coupling(shape, coupling)
        tensor = real_coupling(la, lb, L) != 0
        entries, products = int(tensor.sum()), int(tensor.any(axis=2).sum())
        operands = 2 * la + 2 * lb + 2
        flop["nodes"] += number * (products + 2 * entries - (2 * L + 1))
        flop["node tangents"] += number * (3 * products + 2 * entries - (2 * L + 1))
        flop["node adjoint"] += number * (2 * entries - products + 4 * products + operands)
        flop["node gradient"] += number * (2 * (2 * entries - products) + 8 * products + operands)
    for _, size, _, number in graph.groups.tolist():
        flop["densities"] += 2 * nd * size * (number + 1)
        flop["density adjoint"] += (2 * size + 2 * nd - 1) * number + 2 * nd * size
        flop["density tangents"] += 2 * nd * size * number + 4 * nd * size
        flop["density gradient"] += (10 * size + 8 * nd - 2) * number + 4 * nd * size
    flop["radial gradient"] += 2 * graph.n_leaves
    if not stored and not bondwise:
        flop["atomic base"] += making

    # numbers of 8 bytes
    Phi, leaves, moments = graph.n_components, graph.n_leaves, table.n_moments
    left = int(graph.groups[:, 1].sum())
    nodes, y = Phi - leaves, nd * left
    coefficients = (nd + 0.5) * len(graph.right) / lanes()  # with the table of right nodes
    entries = (nd + 1) * len(graph.right) / lanes()  # with that of left nodes and functions
    gradients = 2 * nd * len(graph.right) / lanes() + 2 * table.n_radial
    row, record = 4, 8.5
    numbers = {
        "atomic base": moments + leaves + (0 if stored else moments + record * n_bonds),
        "nodes": Phi + nodes,
        "densities": Phi + y + coefficients,
        "density adjoint": Phi + 3 * left + y + entries,
        "node adjoint": 3 * Phi,
        "moment adjoint": leaves + moments,
        "forces": moments + (record + 2 * row) * n_bonds,
        "residuals": 4 * row,
        "tangent moments": moments + (record + row) * n_bonds,
        "tangent base": moments + leaves,
        "node tangents": 2 * Phi + nodes,
        "density tangents": 2 * Phi + 2 * y + coefficients,
        "density gradient": 3 * Phi + 2 * left + 2 * y + entries + gradients - 2 * table.n_radial,
        "node gradient": 5 * Phi,
        "radial gradient": 2 * leaves + 2 * moments + 2 * table.n_radial,
    }
    if bondwise:
        numbers |= {
            "atomic base": leaves + record * n_bonds + rows + angular,
            "moment adjoint": 0,
            "forces": leaves + (record + 2 * row) * n_bonds + rows,
            "tangent moments": leaves + (record + row) * n_bonds + rows + 2 * angular,
            "tangent base": 0,
            "radial gradient": 2 * leaves + record * n_bonds + 2 * angular + 2 * table.n_radial,
        }
    return {name: (float(flop[name]), 8.0 * number) for name, number in numbers.items()}


def shape_coupling(shape: Shape, number: int) -> tuple[int, int, int]:
    """(la, lb, L) of a coupling type, in the numbering that all elements share."""
    return sorted({key for table in shape.elements for key in table.graph.couplings})[number]


def chebyshev(J: int) -> int:
    """T_j and its derivative."""
    return 6 * max(J - 2, 0)


def harmonics(L: int) -> int:
    """Q_lm, its derivative and the powers of x + i y."""
    legendre = 2 * L + 4 * (L * (L - 1) // 2)
    return legendre + 6 * L + (L + 1) * (L + 2) // 2 + L * (L + 1) // 2


def contraction(J: int, n_lm: int) -> int:
    """S = Σ_j w T_j and dS = Σ_j w T_j'."""
    return n_lm * max(4 * J - 6, 0)


def bond_force(L: int) -> int:
    """From S, dS and Y to the force and its places."""
    return 6 * (L + 1) - 2 + sum(8 * (L + 1 - m) + 4 * (L - m) + 18 + 4 * (m < L) for m in range(1, L + 1)) + 28


def bond_tangent(L: int) -> int:
    """From ṙ and Y to the factors of T_j and T_j'."""
    return 21 + 4 * (L + 1) + sum(10 + 11 * (L + 1 - m) for m in range(1, L + 1))


def table(name: str, case: dict[str, object], dgemm: float) -> str:
    """Markdown."""
    way = "moments stored" if case["moments_stored"] else "moments recomputed"
    if case["bondwise"]:
        share = f"in {100 * case['bondwise']:.0f} % of the tiles " if case["bondwise"] < 1 else ""
        way = f"radial functions {share}bond by bond" + (f", else {way}" if share else "")
    lines = [
        f"**{name}**: {case['us_per_atom']:.2f} µs per atom, {100 * case['fill']:.0f} % of the slots hold a bond, "
        f"{way}, kernels compiled in "
        f"{case['compile_cpu_s']:.1f} s of processor time.",
        "",
        "| stage | kflop/atom | kB/atom | µs/atom | GFlop/s | of DGEMM | GB/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    stages = case["stages"]
    flop, size, us = (sum(stage[key] for stage in stages.values()) for key in ("flop", "bytes", "us"))
    counted = [(label, stage) for label, stage in stages.items() if stage["bytes"] or label == "shard sums"]
    for label, stage in (*counted, ("**sum**", {"flop": flop, "bytes": size, "us": us})):
        rate = stage["flop"] / stage["us"] / 1e3 if stage["us"] else 0.0
        cells = [f"{stage['flop'] / 1e3:.2f}", f"{stage['bytes'] / 1e3:.2f}", f"{stage['us']:.3f}"]
        cells += [f"{rate:.1f}", f"{100 * rate / dgemm:.0f} %"] if stage["flop"] else ["", ""]
        cells.append(f"{stage['bytes'] / stage['us'] / 1e3:.1f}" if stage["bytes"] and stage["us"] else "")
        lines.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
