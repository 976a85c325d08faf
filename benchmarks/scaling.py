"""How the time of an evaluation grows with ranks, atoms, bonds and functions, and what limits it.

    python benchmarks/scaling.py [--part strong …] [--seconds 5] [--rounds 3] [--atoms 100000] [--page]

strong: one and two ranks in turns, the fastest of each. balance: the time of each rank's part of an alloy of molecules,
surfaces and dense bulk on 2 to 7 ranks, one after the other in one process, against the prediction. sums: what sums
with the same bits on any number of ranks cost beside a plain allreduce. wait: how late the other ranks hear of the
root, and what waiting takes. growth: time per atom against atoms, bonds and functions, one thread. model: calibrated
terms of the time of an iteration, and the efficiency that they predict for ranks and atoms that are not here.
renewals: the same for what GN-BFGS does between its iterations, in processor time. Parts
that are not asked for keep their results; --page writes docs/scaling.md and its figure, --part with nothing measures
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
import renewals
from evaluation import SHARED, check_parity, machine, randomise, repeat
from threadpoolctl import threadpool_limits

from pacehpc import Dataset, Objective, Potential, Ranks, fixed_point, load_dataset
from pacehpc.backends.costs import atom_costs
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.dataset import Store, neighbours, shards, write_store
from pacehpc.fit.bfgs import InverseHessian
from pacehpc.objective import GRADIENT
from pacehpc.potential import build_potential
from pacehpc.structures import Structures
from pacehpc.yamlio import load_yaml

if TYPE_CHECKING:
    from mpi4py import MPI

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
PAGE, FIGURE = ROOT / "docs" / "scaling.md", ROOT / "docs" / "figures" / "growth.png"
PARTS = ("strong", "balance", "sums", "wait", "growth", "model", "renewals")
MODELLED = ("ethanol_4836", "hea_55360")
STRONG = ("ethanol_4836", "hea_435")
LARGEST = 112_745  # parameters of hea_55360
RANKS, ATOMS = (16, 64, 256, 1024), (10**4, 10**5, 10**6, 10**7, 10**8)
# Of a network, assumed: seconds of a message, and bytes per second, of the 25 GB/s that a port of 200 Gb/s can carry.
LATENCY, BANDWIDTH = 2e-6, 10e9
# Of a GPU, of the order of an H200's and not measured: bytes and operations per second, seconds of the launches.
GPU_BYTES, GPU_FLOPS, GPU_LAUNCHES = 4.3e12, 33.5e12, 2e-4
REMEDIES = {
    "imbalance": "more data, or smaller structures: ranks and threads own whole virtual shards",
    "allreduce": "fewer ranks with more threads each",
    "broadcast": "fewer ranks with more threads each",
    "optimizer": "`backend.optimizer_threads`, L-BFGS-B for many parameters",
    "root": "fewer parameters: a ladder, or `fit.trainable_parameters`",
    "journal": "a faster file system for the folder of the fit",
    "factorisation": "a smaller `options.renewal_cost` of GN-BFGS: factorisations are the first rank's; or BFGS",
    "blocks": "fewer ranks with more threads each: a rank multiplies whole blocks of the sketch",
    "matrix": "a smaller `options.renewal_cost`",
    "launches": "fewer devices, so that each has more atoms",
}
# What relieves an iteration of GN-BFGS, and for how many atoms on how many ranks that is shown.
RELIEF = {"now": {}, "cheap": {"renewal_cost": 3.0}, "spread": {"spread": True}}
RELIEVED = ((10**5, 64), (10**6, 64), (10**6, 1024), (10**7, 1024), (10**8, 1024))
UPDATES = 100  # of the inverse Hessian that an iteration of the model works with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=5.0, help="time spent on each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="times that one and two ranks take turns")
    parser.add_argument("--atoms", type=int, default=100_000, help="largest number of atoms; a million takes 4 GiB")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="write docs/scaling.md and its figure")
    parser.add_argument("--latency", type=float, default=LATENCY, help="of the model's network, s; see osu_latency")
    parser.add_argument("--bandwidth", type=float, default=BANDWIDTH, help="of it, bytes/s; see osu_bw")
    parser.add_argument("--on-ranks", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.on_ranks:
        on_ranks(arguments.on_ranks[0], Path(arguments.on_ranks[1]), arguments.seconds)
        return
    results = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    measures = {
        "strong": lambda: strong(arguments.seconds, arguments.rounds),
        "balance": lambda: balance(arguments.seconds, arguments.rounds),
        "sums": lambda: sums(arguments.seconds),
        "wait": lambda: launch(2, "wait", arguments.seconds),
        "growth": lambda: growth(arguments.seconds, arguments.atoms),
        "model": lambda: model(arguments.seconds),
        "renewals": lambda: renewal_terms(arguments.seconds),
    }
    for part in arguments.part:
        print(f"{part} …", flush=True)
        results[part] = measures[part]()
        results["machine"] = machine() | {"load": os.getloadavg()[0]}
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
        print(json.dumps(results[part], indent=1), flush=True)
    if "model" in results:
        predict_all(results["model"], results.get("renewals"), arguments.latency, arguments.bandwidth)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.page:
        write_page(results)


def case(name: str) -> tuple[Potential, Dataset, float]:
    """Potential with coefficients for timing, data and kappa of a benchmark input."""
    settings = load_yaml(SHARED / "bench" / f"{name}.yaml")
    potential = build_potential(settings["potential"])
    randomise(potential)
    data = load_dataset(str(SHARED / "data" / settings["data"]["filename"]), elements=potential.elements)
    return potential, data, settings["fit"]["loss"]["kappa"]


# ------------------------------------------------------------------------------------------------------------- ranks


def launch(n_ranks: int, what: str, seconds: float) -> dict:
    """What `on_ranks` finds on so many ranks, one core each."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, __file__, "--on-ranks", what, str(found), "--seconds", str(seconds)]
        mpirun = Path(sys.executable).parent / "mpirun"
        subprocess.run([str(mpirun), "-n", str(n_ranks), *command], check=True, cwd=ROOT / "benchmarks")
        return json.loads(found.read_text())


def on_ranks(what: str, path: Path, seconds: float) -> None:
    """Under mpirun: times of the objective of a benchmark input, or of messages."""
    from mpi4py import MPI

    ranks = Ranks.world()
    if what in ("messages", "wait"):
        found = messages(MPI.COMM_WORLD, seconds) if what == "messages" else waits(ranks, MPI.COMM_WORLD, seconds)
        if ranks.root:
            path.write_text(json.dumps(found), encoding="utf-8")
        return
    potential, data, kappa = case(what)
    objective = Objective(potential, data, {"kappa": kappa}, backend="cpu", ranks=ranks)
    if not ranks.root:
        objective.serve()
        return
    objective(objective.x)
    objective.rank_seconds[:] = 0
    times = repeat(lambda: objective(objective.x), seconds)
    objective.close()
    own = objective.rank_seconds
    path.write_text(
        json.dumps(
            {
                "best": min(times),
                "median": float(np.median(times)),
                "imbalance": float(own.max() / own.mean() - 1),
                "bonds": [int(b) for _, _, b in objective.shard_sizes],
            }
        ),
        encoding="utf-8",
    )


def strong(seconds: float, rounds: int) -> dict:
    """Speed-up from one to two ranks."""
    found = {}
    for name in STRONG:
        potential, data, kappa = case(name)
        check_parity(potential, data.structures(potential), LossWeights(kappa))
        runs = {1: [], 2: []}
        for _ in range(rounds):
            for n in runs:
                runs[n].append(launch(n, name, seconds))
        best = {n: min(run["best"] for run in runs[n]) for n in runs}
        median = {n: min(run["median"] for run in runs[n]) for n in runs}
        found[name] = {
            "one_ms": 1e3 * best[1],
            "two_ms": 1e3 * best[2],
            "speedup": best[1] / best[2],
            "speedup_of_medians": median[1] / median[2],
            "imbalance": min(run["imbalance"] for run in runs[2]),
            "predicted_imbalance": max(runs[2][0]["bonds"]) / np.mean(runs[2][0]["bonds"]) - 1,
        }
    return found


def alloy(elements: tuple[str, ...], n_structures: int) -> list:
    """Molecules and clusters, surfaces, and bulk from thin to dense: very different numbers of neighbours."""
    from ase import Atoms
    from ase.build import bulk, fcc111

    rng = np.random.default_rng(0)

    def cluster() -> Atoms:
        cell, n = bulk("Ni", a=3.5, cubic=True).repeat(2), int(rng.integers(2, 14))
        return Atoms(cell.numbers[:n], cell.positions[:n])

    def surface() -> Atoms:
        slab = fcc111("Ni", (2, 2, int(rng.integers(3, 7))), a=3.55, vacuum=8.0)
        slab.pbc = True
        return slab

    kinds = [cluster] * 7 + [surface] * 2
    kinds += [lambda a=a: bulk("Ni", a=a, cubic=True).repeat((2, 2, 1)) for a in (3.0, 3.5, 3.7, 5.0)]
    kinds += [lambda: bulk("Ni", a=3.55, cubic=True).repeat((3, 3, int(rng.integers(2, 4))))]
    frames = []
    for k in range(n_structures):
        atoms = kinds[k % len(kinds)]()
        atoms.symbols = rng.choice(elements, len(atoms))
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
        frames.append(atoms)
    return frames


def balance(seconds: float, rounds: int) -> list[dict]:
    """Times of the parts of 2 to 7 ranks, each alone: of `rounds` evaluators, which lie elsewhere, the fastest."""
    import pandas as pd

    potential, _, kappa = case("hea_435")
    frames = alloy(potential.elements, 2000)
    rng, found = np.random.default_rng(1), []
    with tempfile.TemporaryDirectory() as folder:
        columns = {
            "ase_atoms": frames,
            "energy_corrected": rng.normal(size=len(frames)),
            "forces": [rng.normal(size=(len(atoms), 3)) for atoms in frames],
        }
        pd.DataFrame(columns).to_pickle(Path(folder) / "alloy.pckl.gzip")
        data = load_dataset(Path(folder) / "alloy.pckl.gzip", elements=potential.elements)
        path = Path(folder) / "alloy.h5"
        write_store(path, data, potential, atom_costs=atom_costs(potential))
        with Store(path, potential) as store:
            check_parity(potential, store.read_shard(0, 1), LossWeights(kappa))
            for size in range(2, 8):
                parts = [store.read_shard(rank, size) for rank in range(size)]
                times = [
                    min(time_of_part(potential, part, kappa, seconds / 5) for _ in range(rounds)) for part in parts
                ]
                found.append(
                    {
                        "ranks": size,
                        "atoms": store.n_atoms,
                        "bonds": store.n_bonds,
                        "shards": store.n_shards,
                        "predicted": store.balance(size),
                        "measured": max(times) / float(np.mean(times)) - 1,
                        "seconds": times,
                    }
                )
    return found


def time_of_part(potential: Potential, structures: Structures, kappa: float, seconds: float) -> float:
    """Processor time of the fastest evaluation of a rank's structures by one thread."""
    evaluator = CpuEvaluator(potential, structures, LossWeights(kappa), EvaluatorOptions(threads=1))
    x, times = potential.parameters, []

    def call() -> None:
        start = time.thread_time()
        evaluator.evaluate(x)
        times.append(time.thread_time() - start)

    repeat(call, seconds)
    return min(times)


def messages(comm: MPI.Comm, seconds: float) -> list[dict]:
    """Times of collective calls on n parameters: as encoded sums and as plain float64."""
    found = []
    for n in (1000, 10_000, LARGEST):
        row = {"n": n}
        integers, numbers = np.ones(3 * n, np.int64), np.ones(n)
        total, plain = np.empty_like(integers), np.empty_like(numbers)
        for name, call in (
            ("exact", lambda a=integers, b=total: comm.Allreduce(a, b)),
            ("plain", lambda a=numbers, b=plain: comm.Allreduce(a, b)),
            ("bcast", lambda a=numbers: comm.Bcast(a)),
        ):
            times = []
            for _ in range(max(20, int(100 * seconds))):
                comm.Barrier()
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            row[name] = float(np.median(times))
        found.append(row)
    return found


def waits(ranks: Ranks, comm: MPI.Comm, seconds: float) -> list[dict]:
    """How late a rank hears of the root after the root was busy for a while, and the processor time that it waited."""
    found = []
    message, done = np.zeros(10_000), np.zeros(1)
    for busy in (1e-4, 1e-3, 1e-2, 1e-1):
        row = {"busy_s": busy}
        for way in ("spin", "yield"):
            late, used, passed = [], 0.0, 0.0
            for _ in range(max(5, min(200, int(seconds / busy / 4)))):
                comm.Barrier()
                start, used_before = time.perf_counter(), time.process_time()
                if comm.rank == 0:
                    while time.perf_counter() < start + busy:
                        pass
                called = time.perf_counter()
                ranks.receive(message, patiently=way == "yield")
                used += time.process_time() - used_before
                passed += time.perf_counter() - start
                comm.Reduce(done, None if comm.rank else np.zeros(1))
                late.append(time.perf_counter() - called)
            row[way] = {"late_s": float(np.median(late)), "processor": float(comm.bcast(used / passed, root=1))}
        found.append(row)
    return found


def sums(seconds: float) -> dict:
    """Seconds that exact sums add to an evaluation: encoding of shards, decoding, three integers for a number."""
    allreduce = launch(2, "messages", min(seconds, 1.0))
    found = {"messages": allreduce, "cases": {}}
    sizes = [row["n"] for row in allreduce]
    extra = [row["exact"] - row["plain"] for row in allreduce]
    for name in (*STRONG, "hea_55360"):
        potential, data, kappa = case(name)
        structures = data.structures(potential, data.shard_rows(0, 1))
        structures.shards = data.shard_bounds(0, 1)
        check_parity(potential, structures, LossWeights(kappa))
        evaluator = CpuEvaluator(potential, structures, LossWeights(kappa), EvaluatorOptions(threads=1))
        x = potential.parameters
        whole = min(repeat(lambda e=evaluator, x=x: e.evaluate(x), seconds))
        stages = [evaluator.stage_seconds(x)["shard sums"] for _ in range(5)]
        encoded = evaluator.evaluate(x).encoded_gradient
        decoding = min(repeat(lambda a=encoded: fixed_point.decode(a), min(seconds, 0.3)))
        cost = {
            "evaluation_ms": 1e3 * whole,
            "encoding_ms": 1e3 * min(stages),
            "decoding_ms": 1e3 * decoding,
            "messages_ms": 1e3 * max(0.0, float(np.interp(len(x), sizes, extra))),
        }
        added = cost["encoding_ms"] + cost["decoding_ms"] + cost["messages_ms"]
        found["cases"][name] = {
            "parameters": len(x),
            **cost,
            "share_on_one_rank": (cost["encoding_ms"] + cost["decoding_ms"]) / (1e3 * whole),
            "share_on_two_ranks": (added - cost["encoding_ms"] / 2) / (1e3 * whole / 2),
        }
    return found


# ------------------------------------------------------------------------------------------------------------ growth


def copper(n_atoms: int, rcut: float = 5.2, functions: tuple = (15, 3, 2, 2, 1)) -> tuple[Potential, Structures]:
    """A potential for one element, and rattled cells of 108 atoms with random targets; 5.2 Å: 54 neighbours."""
    section = {
        "elements": ["Cu"],
        "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}},
        "bonds": {"ALL": {"radbase": "ChebExpCos", "radparameters": [5.25], "rcut": rcut, "dcut": 0.01}},
        "functions": {
            "ALL": {"nradmax_by_orders": list(functions), "lmax_by_orders": [0, 2, 2, 1, 1][: len(functions)]}
        },
    }
    potential = build_potential(section)
    randomise(potential)
    return potential, repeated(potential, n_atoms, rcut)


def repeated(potential: Potential, n_atoms: int, rcut: float) -> Structures:
    """Structures of at least n_atoms atoms: 30 different cells over and over."""
    from ase.build import bulk

    rng = np.random.default_rng(0)
    cell = bulk("Cu", "fcc", a=3.61, cubic=True).repeat(3)
    size = len(cell)
    kinds = max(1, min(30, n_atoms // size))
    atoms = np.arange(kinds + 1) * size
    positions = (cell.positions + 0.1 * rng.standard_normal((kinds, size, 3))).reshape(-1, 3)
    cells = np.repeat(cell.cell.array[None], kinds, axis=0)
    species = np.zeros(kinds * size, np.int32)
    found, vectors = neighbours.find_neighbours(
        atoms, positions, cells, np.ones((kinds, 3), bool), species, np.array([[rcut]])
    )
    times = -(-n_atoms // (kinds * size))
    n_structures, n = kinds * times, kinds * size * times
    shift = np.repeat(np.arange(times) * (kinds * size), len(found.atom)).astype(np.int32)
    return Structures(
        atom_offsets=np.arange(n_structures + 1) * size,
        species=np.zeros(n, np.int32),
        bond_offsets=np.concatenate(([0], np.cumsum(np.tile(np.diff(found.offsets), times)))),
        bond_atom=np.tile(found.atom.astype(np.int32), times) + shift,
        bond_vector=np.tile(vectors, (times, 1)),
        volumes=np.full(n_structures, cell.get_volume()),
        energy=rng.normal(size=n_structures),
        forces=rng.normal(size=(n, 3)),
        w_energy=np.full(n_structures, 1 / n_structures),
        w_forces=np.full(n, 1 / n),
        shards=np.unique((shards.shard_ends(n_structures, n)[0] * n_structures).astype(np.int64)),
    )


def growth(seconds: float, most_atoms: int) -> dict:
    """µs per atom against atoms, bonds per atom and functions."""
    found: dict[str, list] = {"atoms": [], "bonds": [], "functions": []}

    def measure(kind: str, potential: Potential, structures: Structures) -> None:
        check_parity(potential, structures, LossWeights(0.3))
        evaluator = CpuEvaluator(
            potential, structures, LossWeights(0.3), EvaluatorOptions(threads=1, store_moments=False)
        )
        x = potential.parameters
        best = min(repeat(lambda: evaluator.evaluate(x), min(seconds, 2.0)))
        found[kind].append(
            {
                "atoms": structures.n_atoms,
                "bonds_per_atom": structures.n_bonds / structures.n_atoms,
                "functions": potential.n_functions,
                "us_per_atom": 1e6 * best / structures.n_atoms,
            }
        )

    n = 1000
    while n <= most_atoms:
        measure("atoms", *copper(n))
        n *= 10
    for rcut in (3.0, 4.0, 5.2, 6.0, 7.0):
        measure("bonds", *copper(5000, rcut))
    for functions in ((15, 3), (15, 3, 2), (15, 4, 3, 2), (15, 5, 4, 2, 1), (15, 6, 5, 3, 2)):
        measure("functions", *copper(5000, 5.2, functions))
    return found


# ------------------------------------------------------------------------------------------------------------- model


def model(seconds: float) -> dict:
    """Calibrated terms of the time of an iteration for two shapes."""
    found = {"cases": {}}
    for name in MODELLED:
        potential, data, kappa = case(name)
        structures = data.structures(potential, np.arange(min(len(data), 100 if name.startswith("hea") else 400)))
        check_parity(potential, structures, LossWeights(kappa))
        objective = Objective(
            potential, structures, {"kappa": kappa}, backend="cpu", options=EvaluatorOptions(threads=1)
        )
        x = objective.x
        whole = min(repeat(lambda o=objective, x=x: o(x), seconds))
        root = min(repeat(finishing(objective, x), min(seconds, 0.3)))
        terms = {
            "parameters": len(x),
            "per_atom_s": (whole - root) / structures.n_atoms,
            "atoms_of_structure": float(data.n_atoms / len(data)),
            "root_s": root,
            "optimizer_s": optimizer_seconds(len(x)),
            "journal_s": journal_seconds(len(x)),
        }
        gpu = terms | {"per_atom_s": gpu_seconds(name, potential), "launches_s": GPU_LAUNCHES}
        found["cases"][name] = {"terms": terms, "gpu_terms": gpu}
    return found


def renewal_terms(seconds: float) -> dict:
    """What the model needs to know of the renewals of GN-BFGS."""
    found = {"rates": renewals.rates(seconds), "work": {}}
    for name in MODELLED:
        potential, data, _ = case(name)
        part = data.structures(potential, np.arange(min(len(data), 20)))
        found["work"][name] = renewals.work(name, potential, part, seconds)
    return found


def predict_all(found: dict, of_renewals: dict | None, latency: float, bandwidth: float) -> None:
    """Seconds of an iteration and efficiencies for all sizes on a network: "rows" and "gpu" of every case."""
    network = {"latency_s": latency, "bytes_per_s": bandwidth}
    found |= network
    for name, one in found["cases"].items():
        for rows, terms in (("rows", one["terms"]), ("gpu", one["gpu_terms"])):
            one[rows] = [
                {"ranks": ranks, "atoms": atoms, **predicted(terms | network, atoms, ranks)}
                for atoms in ATOMS
                for ranks in RANKS
            ]
        if of_renewals is None:
            continue
        terms = one["terms"] | network | of_renewals["rates"] | of_renewals["work"][name]
        one["gn"] = [
            {"ranks": row["ranks"], "atoms": row["atoms"]}
            | renewals.predicted(terms, row["seconds"], row["atoms"], row["ranks"])
            for row in one["rows"]
        ]
        one["relief"] = [
            {"ranks": row["ranks"], "atoms": row["atoms"]}
            | {
                kind: renewals.predicted(terms, row["seconds"], row["atoms"], row["ranks"], **options)
                for kind, options in RELIEF.items()
            }
            for row in one["rows"]
            if (row["atoms"], row["ranks"]) in RELIEVED
        ]


def finishing(objective: Objective, x: np.ndarray) -> Callable[[], object]:
    """What the root does with the sums of all ranks: decoding, regularisation, metrics."""
    total, own = objective._reduce(GRADIENT, x)
    return lambda: objective._finish(GRADIENT, x, total, own)


def gpu_seconds(name: str, potential: Potential) -> float:
    """Estimate for an atom: every kernel by its operations or its bytes, whichever takes longer."""
    from gpu_check import NEIGHBOURS, kernel_counts

    counts = kernel_counts(potential, NEIGHBOURS[name])
    return sum(max(operations / GPU_FLOPS, moved / GPU_BYTES) for operations, moved in counts.values())


def optimizer_seconds(n: int) -> float:
    """Median time of an update of BFGS that has UPDATES behind it, with one thread, as by default."""
    rng = np.random.default_rng(0)
    inverse = InverseHessian(n)
    times = []
    with threadpool_limits(1, user_api="blas"):
        for k in range(UPDATES + 10):
            s, g = 1e-3 * rng.standard_normal(n), rng.standard_normal(n)
            start = time.perf_counter()
            inverse.update(s, s, g, -g, 1.0 / (s @ s))
            if k >= UPDATES:
                times.append(time.perf_counter() - start)
    return float(np.median(times))


def journal_seconds(n: int) -> float:
    """Median time of appending a record with a gradient to a file and flushing it."""
    record = np.ones(n + 100).tobytes()
    with tempfile.TemporaryFile() as file:

        def append() -> None:
            file.write(record)
            file.flush()

        return float(np.median(repeat(append, 0.2)))


def predicted(terms: dict, atoms: int, ranks: int) -> dict:
    """Seconds of each part of an iteration, and the share of the ranks' time that evaluates.

    Messages by halves (R. Thakur, R. Rabenseifner, W. Gropp, Int. J. High Perform. Comput. Appl. 19, 49 (2005)):
    2 log₂ p messages, twice the buffer over the wire. Ranks own whole virtual shards, which differ by a structure.
    """
    n, steps = terms["parameters"], np.ceil(np.log2(ranks))
    latency, bandwidth = terms["latency_s"], terms["bytes_per_s"]
    evaluation = atoms * terms["per_atom_s"] / ranks
    ends, _ = shards.shard_ends(int(atoms / terms["atoms_of_structure"]), atoms)
    n_shards = len(ends) - 1
    whole_shards = shards.imbalance(np.diff(ends), ranks)
    # a rank is off by a structure in each of its shards, or by one shard, whichever is less
    of_shard = min(terms["atoms_of_structure"] / (atoms / n_shards), ranks / n_shards)
    seconds = {
        "evaluation": evaluation,
        "imbalance": evaluation * (whole_shards + of_shard),
        "allreduce": 2 * steps * latency + 2 * (24 * n + 48 * ranks) / bandwidth,
        "broadcast": 2 * steps * latency + 2 * 8 * n / bandwidth,
        "root": terms["root_s"],
        "launches": terms.get("launches_s", 0.0),
        "optimizer": terms["optimizer_s"],
        "journal": terms["journal_s"],
    }
    others = {name: value for name, value in seconds.items() if name != "evaluation"}
    total = sum(seconds.values())
    return {"seconds": seconds, "efficiency": evaluation / total, "limit": max(others, key=others.get)}


# -------------------------------------------------------------------------------------------------------------- page


def write_page(results: dict) -> None:
    """Tables between their marks in docs/scaling.md, and the figure."""
    tables = {
        "strong": strong_table,
        "balance": balance_table,
        "sums": sums_table,
        "wait": wait_table,
        "model": model_table,
    }
    for part, table in tables.items():
        if part in results:
            replace_between_marks(part, table(results[part]))
    if "growth" in results:
        draw(results["growth"])


def replace_between_marks(name: str, text: str) -> None:
    """Put text between <!-- name --> and <!-- end of name --> of docs/scaling.md."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    page = PAGE.read_text()
    PAGE.write_text(f"{page.split(begin)[0]}{begin}\n{text}\n{end}{page.split(end)[1]}")


def strong_table(found: dict) -> str:
    lines = [
        "| input | one rank, ms | two ranks, ms | speed-up | imbalance measured | predicted |",
        "| --- |" + " --- |" * 5,
    ]
    for name, row in found.items():
        lines.append(
            f"| {name} | {row['one_ms']:.1f} | {row['two_ms']:.1f} | {row['speedup']:.2f} | "
            f"{100 * row['imbalance']:.1f} % | {100 * row['predicted_imbalance']:.1f} % |"
        )
    return "\n".join(lines)


def balance_table(found: list[dict]) -> str:
    first = found[0]
    lines = ["| ranks | predicted | measured |", "| --- |" + " --- |" * 2]
    lines += [f"| {r['ranks']} | {100 * r['predicted']:.2f} % | {100 * r['measured']:.1f} % |" for r in found]
    return "\n".join([f"{first['atoms']} atoms, {first['bonds']} bonds, {first['shards']} shards:", "", *lines])


def sums_table(found: dict) -> str:
    lines = [
        "| input | parameters | evaluation, ms | encoding | decoding | messages | share, one rank | two ranks |",
        "| --- |" + " --- |" * 7,
    ]
    for name, row in found["cases"].items():
        lines.append(
            f"| {name} | {row['parameters']} | {row['evaluation_ms']:.1f} | {row['encoding_ms']:.3f} | "
            f"{row['decoding_ms']:.3f} | {row['messages_ms']:.3f} | {100 * row['share_on_one_rank']:.1f} % | "
            f"{100 * row['share_on_two_ranks']:.1f} % |"
        )
    return "\n".join(lines)


def wait_table(found: list[dict]) -> str:
    lines = [
        "| the root is busy for | `spin`: late by | core used | `yield`: late by | core used |",
        "| --- |" + " --- |" * 4,
    ]
    for row in found:
        cells = [f"{1e6 * row[w]['late_s']:.0f} µs | {100 * row[w]['processor']:.0f} %" for w in ("spin", "yield")]
        lines.append(f"| {1e3 * row['busy_s']:g} ms | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def model_table(found: dict) -> str:
    blocks, limits = [], set()
    for name, one in found["cases"].items():
        terms, gpu = one["terms"], one["gpu_terms"]
        blocks += [
            f"**{name}**, {terms['parameters']} parameters: evaluation {1e6 * terms['per_atom_s']:.1f} µs per atom, "
            f"root {1e3 * terms['root_s']:.2f} ms, optimizer {1e3 * terms['optimizer_s']:.2f} ms, journal "
            f"{1e3 * terms['journal_s']:.2f} ms. Efficiency on CPU cores, and what costs most of the rest:",
            efficiencies(one["rows"], "ranks"),
            "With GN-BFGS, whose rows and products are shared out as evaluations are and count as useful; renewals are "
            "spread over the iterations between them. In brackets the time of an iteration over that of BFGS, of which "
            "it needs several times more:",
            efficiencies(one["gn"], "ranks"),
            "What would relieve it: renewals that cost at most 3 evaluations, an option, and a factorisation and "
            f"products with H on all ranks at {renewals.SPREAD:g} of their speed, which the program does not have:",
            relief_table(one["relief"]),
            f"The same on GPUs, an estimate and not a measurement: {1e6 * gpu['per_atom_s']:.2f} µs per atom from the "
            f"counts of its kernels at {GPU_BYTES / 1e12:g} TB/s and {GPU_FLOPS / 1e12:g} Tflop/s, "
            f"{1e3 * GPU_LAUNCHES:g} ms for launches.",
            efficiencies(one["gpu"], "GPUs"),
        ]
        limits |= {row["limit"] for row in one["rows"] + one["gpu"] + one["gn"]}
    lines = ["| limit | what removes it |", "| --- | --- |"]
    lines += [f"| {limit} | {remedy} |" for limit, remedy in REMEDIES.items() if limit in limits]
    blocks = [block if block.startswith("|") else textwrap.fill(block, 120) for block in blocks]
    return "\n\n".join([*blocks, "\n".join(lines)])


def relief_table(rows: list[dict]) -> str:
    lines = [
        "| atoms | ranks | now | `renewal_cost: 3` | factorisation and H on all ranks |",
        "| --- |" + " --- |" * 4,
    ]
    for row in rows:
        cells = [
            f"{100 * found['efficiency']:.0f} % {found['limit']} ({found['over_bfgs']:.1f})"
            for found in (row[kind] for kind in RELIEF)
        ]
        lines.append(f"| 10^{int(np.log10(row['atoms']))} | {row['ranks']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def efficiencies(rows: list[dict], unit: str) -> str:
    lines = ["| atoms | " + " | ".join(f"{n} {unit}" for n in RANKS) + " |", "| --- |" + " --- |" * len(RANKS)]
    for atoms in ATOMS:
        cells = [
            f"{100 * row['efficiency']:.0f} % {row['limit']}"
            + (f" ({row['over_bfgs']:.1f})" if "over_bfgs" in row else "")
            for row in rows
            if row["atoms"] == atoms
        ]
        lines.append(f"| 10^{int(np.log10(atoms))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(found: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axis, kind, key, label in zip(
        axes,
        ("atoms", "bonds", "functions"),
        ("atoms", "bonds_per_atom", "functions"),
        ("atoms", "bonds per atom", "functions"),
        strict=True,
    ):
        axis.plot([r[key] for r in found[kind]], [r["us_per_atom"] for r in found[kind]], "o-", color="0.2")
        axis.set(xlabel=label, ylim=(0, None))
    axes[0].set(xscale="log", ylabel="time per atom, µs")
    figure.savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
