"""Check and time the cuda backend on a machine with a GPU: one command, one table, one JSON file.

    python benchmarks/gpu_check.py [INPUT.yaml …] [--atoms 1000,10000,100000,1000000] [--json gpu.json]
    python benchmarks/gpu_check.py --dry        the same path through tests/fake_cupy, without a GPU

Builds the kernels; compares with the golden values (energies 1e-10, forces 5e-9) and with the reference backend
(gradient 1e-9 of its largest component); repeats for equal bits; runs compute-sanitizer where it exists; measures
the device's own ceilings; times loss+gradient and energies+forces, and every kernel against what its counts and the
ceilings allow; says which bars are met. What tells most comes first, the file is written after each step, and nothing
is begun that would not end within --minutes. Exit code 1 if a check failed. Needs CuPy with NVRTC, NumPy, SciPy and
PyYAML. Structures are perturbed fcc blocks with the inputs' numbers of neighbours.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

NAMES = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y "
    "Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os "
    "Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U"
)
SYMBOLS = NAMES.split()
try:
    import ase.data  # noqa: F401
except ImportError:  # of ASE the kernels' tables need only the atomic numbers
    stub = types.ModuleType("ase")
    stub.data = types.ModuleType("ase.data")
    stub.data.atomic_numbers = {symbol: z for z, symbol in enumerate(SYMBOLS)}
    sys.modules |= {"ase": stub, "ase.data": stub.data}

import numpy as np
from gpu_traffic import WALKS, node_bytes

from pacehpc.backends.cuda import N_MAXIMA, N_TERMS, CudaEvaluator
from pacehpc.backends.device import describe, load_cupy
from pacehpc.backends.graph import real_coupling
from pacehpc.backends.interface import LossWeights
from pacehpc.backends.oracle import ReferenceEvaluator
from pacehpc.backends.shape import make_shape
from pacehpc.backends.source import LANES
from pacehpc.potential import Potential, build_potential
from pacehpc.structures import Structures
from pacehpc.yamlio import load_yaml

NEIGHBOURS = {"cu_82": 128, "cu_529": 57, "ethanol_756": 8, "ethanol_4836": 8, "hea_435": 131, "hea_55360": 131}
BUILT_IN = {
    "elements": ["Cu"],
    "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}},
    "bonds": {"ALL": {"radbase": "ChebExpCos", "radparameters": [5.25], "rcut": 5.6, "dcut": 0.01}},
    "functions": {"ALL": {"nradmax_by_orders": [15, 6, 4, 2, 2], "lmax_by_orders": [0, 4, 3, 2, 1]}},
}
FEW = ("alni_mixed", "cuozr_zbl")  # golden potentials that have the most options between them
ORDER = {10**5: 0, 10**3: 1, 10**6: 2, 10**4: 3}  # of the sizes
LIMITS = {"energies": 1e-10, "forces": 5e-9, "gradient": 1e-9, "repeats": 0.5}
SANITIZER_SECONDS = 90.0  # at most, for each tool
CEILINGS = r"""
extern "C" __global__ void numbers(double* to, long long n) {
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (long long)blockDim.x)
    to[i] = 0.618 * i;
}
extern "C" __global__ void copy(const double* from, double* to, long long n) {
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += gridDim.x * (long long)blockDim.x)
    to[i] = from[i];
}
extern "C" __global__ void fma_rate(double* result, int steps) {
  double a[8];
  for (int k = 0; k < 8; k++) a[k] = threadIdx.x + k;
  for (int s = 0; s < steps; s++)
    for (int k = 0; k < 8; k++) a[k] = a[k] * 0.999999 + 1e-6;
  double sum = 0;
  for (int k = 0; k < 8; k++) sum += a[k];
  result[blockIdx.x * (long long)blockDim.x + threadIdx.x] = sum;
}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path, help="default: all of benchmarks/inputs and its folder large")
    parser.add_argument("--atoms", default="1000,10000,100000,1000000")
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each measurement")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--dry", action="store_true", help="through tests/fake_cupy: measures nothing")
    parser.add_argument("--parity-only", action="store_true")
    parser.add_argument("--few", action="store_true", help=f"of the golden potentials compare {' and '.join(FEW)} only")
    parser.add_argument(
        "--single-allocations", action="store_true", help="no memory pool: memcheck sees where arrays end"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="nothing is begun that would take longer")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.dry:
        sys.path.insert(0, str(ROOT / "tests" / "fake_cupy"))
        arguments.atoms, arguments.seconds = "200", 0.0
    started = time.monotonic()
    cupy = load_cupy()
    if arguments.single_allocations:
        cupy.cuda.MemoryPool = SingleAllocations
    results: dict[str, object] = {"dry": arguments.dry, "device": str(describe(0))}
    results["cupy"] = getattr(cupy, "__version__", "")
    print(results["device"])

    def keep(key: str, found: Callable[[], object], where: dict[str, object] = results) -> None:
        """What `found` gives, or how it failed, into the results and the file."""
        try:
            where[key] = found()
        except Exception:
            traceback.print_exc()
            where[key] = {"failed": traceback.format_exc()}
        write(arguments.json, results)

    def left() -> float:
        return 60 * arguments.minutes - (time.monotonic() - started)

    golden = sorted((ROOT / "tests" / "golden" / "potentials").glob("*.extxyz"), key=lambda p: p.stem not in FEW)
    few = golden[: len(FEW)]
    parts: dict[str, object] = {}
    results["parity"] = parts
    for path in few:
        keep(path.stem, lambda p=path: parity(p), parts)
    if arguments.parity_only:
        for path in [] if arguments.few else golden[len(FEW) :]:
            keep(path.stem, lambda p=path: parity(p), parts)
        return int(bool(faults(results)))
    keep("ceilings", lambda: ceilings(cupy, arguments.dry))
    cases: dict[str, object] = {}
    results["cases"] = cases
    results["left_out"] = left_out = []
    paths = {path.stem: path for path in input_paths(arguments.inputs, large=True)}
    if arguments.dry and not arguments.inputs:
        paths = {"small": None}
    potentials: dict[str, Potential] = {}
    slowest = 0.0  # seconds that a bond of a case took

    def run(name: str, n: int) -> None:
        nonlocal slowest
        bonds, start = n * NEIGHBOURS.get(name, 57), time.monotonic()
        if max(slowest * bonds, 2 * arguments.seconds) > left():
            print(f"{name} {n}: left out, it would not end within {arguments.minutes:g} minutes (--minutes)")
            left_out.append(f"{name} {n}")
            return
        if name not in potentials:
            potentials.update(load_inputs([paths[name]]) if paths[name] else {name: build_potential(small_section())})
        case = potentials[name], n, NEIGHBOURS.get(name, 57), arguments.seconds, results["ceilings"]
        keep(f"{name} {n}", lambda: measure(*case), cases)
        print_case(name, cases[f"{name} {n}"])
        if bonds > 10**6:
            slowest = max(slowest, (time.monotonic() - start) / bonds)

    plan = order(list(paths), [int(n) for n in arguments.atoms.split(",")])
    for name, n in plan[:2]:
        run(name, n)
    keep("sanitizer", lambda: sanitizer(left))
    for path in [] if arguments.dry or arguments.few else golden[len(FEW) :]:
        if left() > 0:
            keep(path.stem, lambda p=path: parity(p), parts)
    for name, n in plan[2:]:
        run(name, n)
    results["bars"] = bars({} if arguments.dry else cases)
    results["faults"] = faults(results)
    results["seconds"] = time.monotonic() - started
    print_summary(cases)
    print_bars(results["bars"])
    print("\n".join(results["faults"]) or "no faults", f"\n{results['seconds']:.0f} s")
    write(arguments.json, results)
    return int(bool(results["faults"]))


def order(names: list[str], sizes: list[int]) -> list[tuple[str, int]]:
    """(potential, atoms) of all cases, what tells most first."""
    names = sorted(names, key=lambda name: (name != "cu_529", name == "hea_55360"))
    cases = [(name, n) for n in sorted(sizes, key=lambda n: ORDER.get(n, 4)) for name in names]
    return sorted(cases, key=lambda case: case not in (("cu_529", 10**5), ("cu_529", 10**3)))


def faults(results: dict[str, object]) -> list[str]:
    """Checks that failed, and what could not be run, one line each."""
    found = []
    for key, part in results["parity"].items():
        if "failed" in part:
            found.append(f"{key}: {part['failed'].splitlines()[-1]}")
            continue
        bad = [f"{what} {part[what]:.1e}" for what, limit in LIMITS.items() if not part[what] <= limit]
        found += [f"{key}: {', '.join(bad)} differ too much"] if bad else []
    if "failed" in results.get("ceilings", {}):
        found.append(f"ceilings: {results['ceilings']['failed'].splitlines()[-1]}")
    for key, case in results.get("cases", {}).items():
        found += [f"{key}: {case['failed'].splitlines()[-1]}"] if "failed" in case else []
    for tool, result in results.get("sanitizer", {}).items():
        found += [f"compute-sanitizer {tool}: {result}"] if result.startswith("errors") else []
    return found


class SingleAllocations:
    """In place of CuPy's memory pool: an allocation for every array, so that memcheck knows where it ends."""

    def malloc(self, size: int) -> object:
        cupy = load_cupy()
        return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)

    def set_limit(self, size: int) -> None:
        pass

    def free_all_blocks(self) -> None:
        pass

    def total_bytes(self) -> int:
        return 0


def write(path: Path | None, results: dict[str, object]) -> None:
    """The results so far, so that an interrupted run leaves what it has."""
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n")


def input_paths(given: list[Path], large: bool = False) -> list[Path]:
    """The inputs that are given, else all of benchmarks/inputs, and of its folder large where that is asked for."""
    folder = ROOT / "benchmarks" / "inputs"
    return given or [*sorted(folder.glob("*.yaml")), *(sorted(folder.glob("large/*.yaml")) if large else [])]


def load_inputs(paths: list[Path], large: bool = False) -> dict[str, Potential]:
    """Potentials with random coefficients (radial δ_nk + 0.05 N(0,1), functions 1e-3 N(0,1)) by the inputs' names."""
    paths = input_paths(paths, large)
    sections = {path.stem: load_yaml(path)["potential"] for path in paths}
    found = {}
    for name, section in sections.items():
        potential = found[name] = build_potential(section)
        rng = np.random.default_rng(1)
        for c in potential.radcoefficients.values():
            c += 0.05 * rng.standard_normal(c.shape)
        for block in potential.blocks:
            block.coefficients[:] = 1e-3 * rng.standard_normal(block.coefficients.shape)
    return found


def small_section() -> dict[str, object]:
    """A potential for the dry run."""
    functions = {"ALL": {"nradmax_by_orders": [4, 2, 2], "lmax_by_orders": [0, 2, 1]}}
    return {**BUILT_IN, "functions": functions}


# ---- structures ----


def block_of_atoms(potential: Potential, neighbours: float, cells: int = 3, seed: int = 0) -> Structures:
    """A perturbed fcc block of 4 cells³ atoms, its lattice constant such that an atom has about `neighbours` bonds."""
    rng = np.random.default_rng(seed)
    rcut = potential.cutoff
    a = (16 / 3 * np.pi * rcut**3 / neighbours) ** (1 / 3)
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    grid = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    positions = a * (grid + corners).reshape(-1, 3)
    positions = positions + rng.normal(0, 0.02 * a, positions.shape)
    species = rng.integers(0, len(potential.elements), len(positions)).astype(np.int32)
    return bonds_of(potential, species, positions, a * cells * np.eye(3), np.ones(3, bool))


def bonds_of(
    potential: Potential, species: np.ndarray, positions: np.ndarray, cell: np.ndarray, periodic: np.ndarray
) -> Structures:
    """One structure with its bonds, by trying all images."""
    elements, n = potential.elements, len(species)
    rcut = np.array([[potential.bonds[a, b].rcut for b in elements] for a in elements])
    shifts = np.zeros((1, 3))
    if periodic.any():
        extent = potential.cutoff + np.linalg.norm(np.ptp(positions, axis=0))
        heights = 1 / np.linalg.norm(np.linalg.pinv(cell), axis=0)
        reach = np.where(periodic, np.ceil(extent / heights), 0).astype(int)
        shifts = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1).reshape(-1, 3) @ cell
    vectors, partners, counts = [], [], []
    for i in range(n):
        d = positions[None] + shifts[:, None] - positions[i]
        r = np.linalg.norm(d, axis=2)
        image, j = np.nonzero((r > 0) & (r < rcut[species[i]][species]))
        vectors.append(d[image, j])
        partners.append(j)
        counts.append(len(j))
    return Structures(
        atom_offsets=np.array([0, n]),
        species=species.astype(np.int32),
        bond_offsets=np.cumsum([0, *counts]),
        bond_atom=np.concatenate(partners).astype(np.int32),
        bond_vector=np.concatenate(vectors),
        volumes=np.array([abs(np.linalg.det(cell)) if periodic.all() else 0.0]),
    )


def repeated(parts: list[Structures], times: int = 1, seed: int = 1) -> Structures:
    """Structures one after the other, all of them `times` times, with random targets and equal weights."""
    parts = parts * times
    atoms = np.cumsum([0, *(p.n_atoms for p in parts)])
    bonds = np.cumsum([0, *(p.n_bonds for p in parts)])
    rng = np.random.default_rng(seed)
    n, n_atoms = len(parts), int(atoms[-1])
    n_shards = min(n, max(1, n_atoms // 768, min(256, n_atoms // 192)))  # about as many as a fit makes
    shards = np.unique(np.linspace(0, n, n_shards + 1).astype(np.int64))
    return Structures(
        shards=shards,
        atom_offsets=atoms,
        species=np.concatenate([p.species for p in parts]),
        bond_offsets=np.concatenate([[0], *(p.bond_offsets[1:] + b for p, b in zip(parts, bonds, strict=False))]),
        bond_atom=np.concatenate([p.bond_atom + a for p, a in zip(parts, atoms, strict=False)]).astype(np.int32),
        bond_vector=np.concatenate([p.bond_vector for p in parts]),
        volumes=np.concatenate([p.volumes for p in parts]),
        energy=rng.normal(size=n),
        forces=rng.normal(size=(n_atoms, 3)),
        w_energy=np.full(n, 1 / n),
        w_forces=np.full(n_atoms, 1 / n_atoms),
    )


def golden_frames(path: Path) -> list[tuple[list[str], np.ndarray, np.ndarray, np.ndarray]]:
    """(symbols, positions, cell, periodic) of the frames of a golden extxyz file."""
    lines, frames = path.read_text(encoding="utf-8").splitlines(), []
    while lines:
        n, head, rows = int(lines[0]), lines[1], [line.split() for line in lines[2 : 2 + int(lines[0])]]
        lines = lines[2 + n :]
        fields = dict(part.split("=", 1) for part in _quoted(head))
        cell = np.array(fields.get("Lattice", "0 " * 9).split(), float).reshape(3, 3)
        periodic = np.array([flag == "T" for flag in fields.get("pbc", "F F F").split()])
        frames.append(([row[0] for row in rows], np.array([row[1:4] for row in rows], float), cell, periodic))
    return frames


def _quoted(text: str) -> list[str]:
    import shlex

    return [part for part in shlex.split(text) if "=" in part]


# ---- checks ----


def parity(path: Path) -> dict[str, float]:
    """Largest differences from golden values (path: their structures) and the reference backend."""
    loss = LossWeights(kappa=0.3, stress=0.1)
    potential = Potential.load(path.with_suffix(".yaml"))
    parts = []
    for symbols, positions, cell, periodic in golden_frames(path):
        species = np.array([potential.elements.index(symbol) for symbol in symbols])
        parts.append(bonds_of(potential, species, positions, cell, periodic))
    s = repeated(parts)
    stress = 0.01 * np.random.default_rng(2).normal(size=(s.n_structures, 6))
    s.stress = np.where((s.volumes > 0)[:, None], stress, np.nan)
    start = time.perf_counter()
    evaluator, x = CudaEvaluator(potential, s, loss), potential.parameters
    compiled = time.perf_counter() - start
    sums, prediction = evaluator.evaluate(x), evaluator.predict(x)
    golden = np.load(path.with_suffix(".npz"))
    energies = np.concatenate([golden[f"energies_{k}"] for k in range(s.n_structures)])
    forces = np.concatenate([golden[f"forces_{k}"] for k in range(s.n_structures)])
    expected = ReferenceEvaluator(potential, s, loss).evaluate(x)
    again = [evaluator.evaluate(x) for _ in range(3)]
    scale = np.abs(expected.gradient).max()
    found = {
        "energies": float(np.max(np.abs(prediction.energies - energies) / np.maximum(np.abs(energies), 1e-3))),
        "forces": float(np.abs(prediction.forces - forces).max()),
        "gradient": float(np.abs(sums.gradient - expected.gradient).max() / scale),
        "repeats": float(not all(np.array_equal(a.gradient, sums.gradient) for a in again)),
    }
    shown = "  ".join(f"{key} {value:.1e}" for key, value in found.items())
    print(f"{path.stem:18s} {shown}  compiled and set up in {compiled:.1f} s", flush=True)
    return found | {"setup_s": compiled}


def sanitizer(left: Callable[[], float]) -> dict[str, str]:
    """Result of compute-sanitizer's memcheck and racecheck over the parity check; left: seconds that remain."""
    cuda = os.environ.get("CUDA_PATH", "/usr/local/cuda")
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=f"{cuda}/bin")
    results: dict[str, str] = {}
    for tool in ("memcheck", "racecheck"):
        seconds = min(SANITIZER_SECONDS, left())
        if program is None:
            results[tool] = "not run: no compute-sanitizer on PATH"
        elif seconds < 10:
            results[tool] = "not run: no time left (--minutes)"
        else:
            results[tool] = sanitized(program, tool, seconds)
        print(f"compute-sanitizer {tool}: {results[tool]}", flush=True)
    return results


def sanitized(program: str, tool: str, seconds: float) -> str:
    """What one tool says: clean, errors and which, or why it was not run."""
    command = [program, "--tool", tool, "--target-processes", "all", "--error-exitcode", "9"]
    command += [sys.executable, __file__, "--parity-only", "--few", "--single-allocations"]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return f"not run: not finished within {seconds:.0f} s"
    output = run.stdout + run.stderr
    # memcheck: "ERROR SUMMARY: 0 errors"; racecheck: "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    found = [int(number) for number in re.findall(r"SUMMARY: (\d+) (?:error|hazard)", output)]
    if run.returncode == 0 and found and not any(found):
        return "clean"
    if run.returncode == 9 or any(found):
        return f"errors: {output[-4000:]}"
    return f"not run: exit code {run.returncode}, {output[-2000:]}"


# ---- measurements ----


def ceilings(cupy: object, dry: bool) -> dict[str, float]:
    """Bytes per second of a device copy, float64 operations per second of plain FMAs and of DGEMM (0: not measured)."""
    module = cupy.RawModule(code=CEILINGS, options=("-std=c++17",), backend="nvrtc")
    multiprocessors = cupy.cuda.runtime.getDeviceProperties(0)["multiProcessorCount"]
    n, blocks, steps = (1024, 2, 10) if dry else (2**27, 16 * multiprocessors, 20000)
    pool = cupy.cuda.MemoryPool()  # given back at the end
    with cupy.cuda.Stream() as stream, cupy.cuda.using_allocator(pool.malloc):
        a, b = cupy.zeros(n, np.float64), cupy.zeros(n, np.float64)
        out = cupy.zeros(blocks * 256, np.float64)
        module.get_function("numbers")((blocks,), (256,), (a, np.int64(n)))
        copy, fma = module.get_function("copy"), module.get_function("fma_rate")
        copy_s = timed(cupy, stream, lambda: copy((blocks,), (256,), (a, b, np.int64(n))))
        fma_s = timed(cupy, stream, lambda: fma((blocks,), (256,), (out, np.int32(steps))))
        dgemm = 0.0 if dry else dgemm_rate(cupy, stream)
    found = {"copy": 16 * n / copy_s, "fma": 2.0 * 8 * steps * blocks * 256 / fma_s, "dgemm": dgemm}
    print(f"ceilings: copy {found['copy']:.3g} B/s, FMA {found['fma']:.3g} flop/s, DGEMM {found['dgemm']:.3g} flop/s")
    return found


def dgemm_rate(cupy: object, stream: object, n: int = 4096) -> float:
    """Operations per second of a product of n×n matrices; 0 where there is no cuBLAS, which nothing else needs."""
    m = cupy.empty((n, n), np.float64)
    m.set(np.random.default_rng(0).random((n, n)))
    try:
        return 2.0 * n**3 / timed(cupy, stream, lambda: cupy.matmul(m, m))
    except Exception as error:  # of the library's loading: its class differs from one CuPy to the next
        print(f"DGEMM is not measured: {error}")
        return 0.0


def timed(cupy: object, stream: object, call: object, repeats: int = 5) -> float:
    """Median seconds of a queued call, by events."""
    call()
    times = []
    for _ in range(repeats):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record(stream)
        call()
        end.record(stream)
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end) / 1000)
    return max(float(np.median(times)), 1e-12)


def measure(
    potential: Potential, n_atoms: int, neighbours: float, seconds: float, limits: dict[str, float]
) -> dict[str, object]:
    """Times of one potential at one size; µs per atom."""
    block = block_of_atoms(potential, neighbours)
    s = repeated([block], max(1, round(n_atoms / block.n_atoms)))
    start = time.perf_counter()
    evaluator = CudaEvaluator(potential, s, LossWeights(kappa=0.3))
    setup = time.perf_counter() - start
    x = potential.parameters
    full = repeat(lambda: evaluator.evaluate(x), seconds)
    forces = repeat(lambda: evaluator.evaluate(x, gradient=False), seconds / 3)
    device = device_seconds(evaluator, x)
    per_kernel = evaluator.stage_seconds(x)
    counts = kernel_counts(potential, s.n_bonds / s.n_atoms) | counts_of_sums(evaluator)
    kernels = {}
    for name, spent in per_kernel.items():
        operations, moved = counts.get(name, (0.0, 0.0))
        floor = s.n_atoms * max(moved / limits.get("copy", np.inf), operations / limits.get("fma", np.inf))
        kernels[name] = {
            "us_per_atom": 1e6 * spent / s.n_atoms,
            "share": spent / sum(per_kernel.values()),
            "bytes_per_s": s.n_atoms * moved / spent,
            "flops_per_s": s.n_atoms * operations / spent,
            "times_floor": spent / floor if floor else None,
        }
    scale = 1e6 / s.n_atoms
    return {
        "asked": n_atoms,
        "functions": potential.n_functions,
        "atoms": s.n_atoms,
        "bonds_per_atom": s.n_bonds / s.n_atoms,
        "setup_s": setup,
        "batches": len(evaluator.batches),
        "moments_stored": evaluator.moments_stored,
        "peak_bytes": evaluator.peak_bytes,
        "evaluation_ms": 1e3 * float(np.median(full)),
        "device_ms": 1e3 * device,
        "kernels_ms": 1e3 * sum(per_kernel.values()),
        "graph": evaluator._records,
        "us_per_atom": scale * float(np.median(full)),
        "us_per_atom_min": scale * min(full),
        "us_per_atom_forces": scale * float(np.median(forces)),
        "kernels": kernels,
    }


def device_seconds(evaluator: CudaEvaluator, x: np.ndarray, repeats: int = 5) -> float:
    """Median seconds from the first kernel of an evaluation to the last, launched as in a fit, by events."""
    cupy, times = load_cupy(), []
    evaluator.evaluate(x)
    for _ in range(repeats):
        with evaluator.on_device():
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record(evaluator._stream)
            evaluator._run_evaluation(gradient=True)
            end.record(evaluator._stream)
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(begin, end) / 1000)
    return float(np.median(times))


def repeat(call: object, seconds: float) -> list[float]:
    """Wall times of repeated calls over about `seconds`, after one to warm up."""
    call()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def bars(cases: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """What the backend has to reach, what it reached, and whether that is enough."""
    found = []

    def bar(what: str, case: str, value: float, limit: float) -> None:
        found.append({"bar": what, "case": case, "value": value, "limit": limit, "met": bool(value <= limit)})

    for key, case in cases.items():
        if "failed" in case:
            continue
        if case["asked"] >= 10**5:
            if key.startswith("cu_529 "):
                bar("µs/atom loss+gradient", key, case["us_per_atom"], 0.1)
                bar("µs/atom energies and forces", key, case["us_per_atom_forces"], 0.05)
            for kernel, row in case["kernels"].items():
                if row["times_floor"]:
                    bar(f"times the floor, {kernel}", key, row["times_floor"], 3.0)
        if case["asked"] <= 10**3:
            bar("ms an evaluation", key, case["evaluation_ms"], 1.0)
    return found


def print_bars(found: list[dict[str, object]]) -> None:
    """The bars of times, then the kernels that miss theirs."""
    kernels = [row for row in found if row["bar"].startswith("times")]
    print(f"\n{'bar':44s} {'case':22s} {'value':>9s} {'limit':>7s}")
    for row in found:
        if row not in kernels or not row["met"]:
            met = "pass" if row["met"] else "MISS"
            print(f"{row['bar']:44s} {row['case']:22s} {row['value']:9.3f} {row['limit']:7.2f}  {met}")
    print(f"kernels within 3 times their floor: {sum(row['met'] for row in kernels)} of {len(kernels)}")


def print_summary(cases: dict[str, dict[str, object]]) -> None:
    """One line a case. device: first kernel to last, kernels: their sum; last: the one farthest from its counts."""
    head = f"{'µs/atom':>9s} {'E+F':>9s} {'ms':>9s} {'device':>9s} {'kernels':>9s} {'GiB':>7s}"
    print(f"\n{'case':24s} {head}  slowest kernel against its counts")
    for name, case in cases.items():
        if "failed" in case:
            print(f"{name:24s} failed")
            continue
        times = {k: v["times_floor"] for k, v in case["kernels"].items() if v["times_floor"]}
        worst = max(times, key=times.get, default="-")
        print(
            f"{name:24s} {case['us_per_atom']:9.3f} {case['us_per_atom_forces']:9.3f} {case['evaluation_ms']:9.3f} "
            f"{case['device_ms']:9.3f} {case['kernels_ms']:9.3f} {case['peak_bytes'] / 2**30:7.2f}  "
            f"{worst} {times.get(worst, 0.0):.1f}"
        )


def print_case(name: str, case: dict[str, object]) -> None:
    if "failed" in case:
        return
    print(
        f"\n{name} {case['functions']} functions, {case['atoms']} atoms, {case['bonds_per_atom']:.1f} bonds per atom: "
        f"{case['us_per_atom']:.4f} µs/atom loss+gradient, {case['us_per_atom_forces']:.4f} energies and forces, "
        f"{case['evaluation_ms']:.3f} ms per evaluation (device {case['device_ms']:.3f}, kernels "
        f"{case['kernels_ms']:.3f}; {'one graph' if case['graph'] else 'single launches'}), "
        f"{case['batches']} batches, {case['peak_bytes'] / 2**30:.2f} GiB, set up in {case['setup_s']:.1f} s"
    )
    for kernel, row in sorted(case["kernels"].items(), key=lambda item: -item[1]["share"]):
        floor = f"{row['times_floor']:6.1f} x floor" if row["times_floor"] else ""
        print(
            f"    {kernel:24s} {row['us_per_atom']:8.4f} µs/atom {100 * row['share']:5.1f} % "
            f"{row['bytes_per_s'] / 1e9:8.1f} GB/s {row['flops_per_s'] / 1e9:8.1f} GFlop/s {floor}",
            flush=True,
        )


# ---- counts ----


def counts_of_sums(evaluator: CudaEvaluator) -> dict[str, tuple[float, float]]:
    """Operations and bytes per atom of the sums over structures and over rows of gradients."""
    s = evaluator.structures
    terms = (N_TERMS + N_MAXIMA) * s.n_structures / s.n_atoms
    rows = evaluator._columns * sum(batch.n_rows for batch in evaluator.batches) / s.n_atoms
    return {"add_terms": (terms, 8 * terms), "add_rows": (rows, 8 * rows)}


def kernel_counts(potential: Potential, bonds: float) -> dict[str, tuple[float, float]]:
    """Floating-point operations (an FMA is two) and least bytes of device memory per atom, kernel by kernel.

    bonds: per atom. Averages over central elements; bonds spread evenly over neighbour elements; padding not counted.
    """
    shape = make_shape(potential)
    rows = []
    for e in range(len(potential.elements)):
        table, graph, nd = shape.elements[e], shape.elements[e].graph, shape.n_densities
        classes = [shape.classes[c] for c in shape.bond_class[e] if c >= 0]
        per_bond = np.mean([(J * (L + 1) ** 2, J, (L + 1) ** 2) for J, L, _ in classes], axis=0)
        products, _, angular = bonds * per_bond
        contraction = 2.0 * sum(J * (L + 1) ** 2 * N for J, L, N in classes)
        entries = sum(np.count_nonzero(real_coupling(*graph.couplings[t])) for t in _types(shape, graph))
        sizes = np.repeat(graph.groups[:, 1], graph.groups[:, 3]).sum()  # components of all right nodes
        leaves, y, G, functions = graph.n_leaves, nd * graph.groups[:, 1].sum(), table.n_moments, len(graph.right)
        n_radial = table.n_radial + table.n_first
        sums = 16 / LANES  # bytes of a tile's sum of gradients, read and written, per atom
        rows.append(
            {
                "make_batch_moments": (2 * products + 12 * angular, 68 * bonds + 8 * G),
                "make_leaves": (contraction, 8 * (G + leaves)),
                "couple_nodes": (3 * entries, 0),
                "make_energies": (2 * nd * sizes + 2 * y, 0),
                "adjoint_of_densities": (2 * sizes + 2 * nd * functions + 2 * y, 0),
                "adjoint_of_nodes": (6 * entries, 0),
                "adjoint_of_moments": (contraction, 8 * (G + leaves)),
                "make_bond_forces": (4 * products + 20 * angular, 100 * bonds + 8 * G),
                "gather_forces": (6 * bonds, 72 * bonds),
                "make_residuals": (20, 130),
                "make_moment_tangents": (4 * products + 20 * angular, 100 * bonds + 8 * G),
                "make_leaf_tangents": (contraction, 8 * (G + leaves)),
                "couple_node_tangents": (6 * entries, 0),
                "make_density_tangent": (2 * nd * sizes + 4 * y, 0),
                "make_density_gradient": (
                    10 * sizes + 8 * nd * functions + 4 * y,
                    sums * nd * functions,
                ),
                "make_node_gradient": (12 * entries, 0),
                "make_radial_gradient": (2 * contraction, 16 * (leaves + G) + sums * n_radial),
            }
        )
    found = {name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]}
    for name in WALKS:
        found[name][1] += node_bytes(shape, name)
    return {name: tuple(counts.tolist()) for name, counts in found.items()}


def _types(shape: object, graph: object) -> list[int]:
    """Coupling type of each node as an index into the element's own list."""
    numbers = sorted(set(graph.nodes[:, 0].tolist()))
    own = {number: k for k, number in enumerate(numbers)}
    return [own[t] for t in graph.nodes[:, 0].tolist()]


if __name__ == "__main__":
    raise SystemExit(main())
