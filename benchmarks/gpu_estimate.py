"""What the GPU's kernels should cost, on paper: no GPU is used, and nothing here is measured on one.

    python benchmarks/gpu_estimate.py [INPUT …] [--atoms 100000] [--page]

Of every kernel: floating-point operations; the least bytes of device memory; the bytes that pass where the caches hold
few rows of a tile; registers, by NVIDIA's compiler (NVRTC, pip install nvidia-cuda-nvrtc); warps of a multiprocessor;
and the larger of bytes over bandwidth and operations over rate. Then the memory of a million atoms with 50 neighbours,
by the arithmetic that cuts batches. Rates are those of DEVICE. --page: into docs/performance.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "backends"), str(ROOT / "benchmarks")]

from gpu_check import NEIGHBOURS, kernel_counts, load_inputs
from gpu_traffic import WALKS, node_bytes

from pacehpc import metrics
from pacehpc.backends.cuda import MEMORY_FRACTION, N_MAXIMA
from pacehpc.backends.device_launch import BLOCK, MOMENT_BLOCK
from pacehpc.backends.device_memory import memory_needs, row_memory
from pacehpc.backends.shape import Shape, make_shape
from pacehpc.backends.source import LANES, cuda_source
from pacehpc.dataset.shards import shard_ends

# of the order of an H200: bytes/s of a copy, operations/s of multiply-adds; multiprocessors, registers and most warps
# of one, bytes of its first cache; bytes of the second
DEVICE = {"copy": 4.3e12, "fma": 33.5e12, "sm": 132, "registers": 65536, "warps": 64, "l1": 256 << 10, "l2": 50 << 20}
FORCES = ("make_leaf_tangents", "make_moment_tangents")  # the first kernels of the second pass, either way
STRUCTURE_ATOMS = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path, help="default: cu_529, and all for the memory")
    parser.add_argument("--atoms", type=int, default=100_000)
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    potentials = load_inputs(arguments.inputs)
    shown = potentials if arguments.inputs else {"cu_529": potentials["cu_529"]}
    kernels = "\n\n".join(kernels_text(name, p, arguments.atoms) for name, p in shown.items())
    memory = memory_text(potentials)
    print(f"{kernels}\n\n{memory}")
    if arguments.page:
        from compare import replace_between_marks

        replace_between_marks("gpu counts", kernels)
        replace_between_marks("gpu memory", memory)
    return 0


# ---- kernels ----


def kernels_text(name: str, potential: object, atoms: int) -> str:
    """Markdown: one row a kernel, and sums."""
    bonds, shape = NEIGHBOURS.get(name, 57), make_shape(potential)
    registers = registers_of(shape)
    counts = kernel_counts(potential, bonds) | sums_of_rows(shape, atoms)
    lines = [f"**{name}**, {potential.n_functions} functions, {bonds} bonds per atom, {atoms} atoms:", ""]
    head = "kernel", "registers", "warps", "10³ operations", "least 10³ bytes", "with caches", "ns per atom", "limit"
    lines += [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    sums, second = {"forces": np.zeros(4), "gradient": np.zeros(4)}, False
    for kernel, (flop, least) in counts.items():
        threads = MOMENT_BLOCK if kernel in ("make_batch_moments", "make_moment_tangents") else BLOCK
        warps = resident_warps(registers[kernel], threads)
        room = (DEVICE["l1"] + DEVICE["l2"] / DEVICE["sm"]) / warps / (8 * LANES)
        moved = least
        if kernel in WALKS:
            moved += node_bytes(shape, kernel, room) - node_bytes(shape, kernel)
        times = {"memory": moved / DEVICE["copy"], "arithmetic": flop / DEVICE["fma"]}
        limit = max(times, key=times.get)
        row = np.array([flop, least, moved, times[limit]])
        second |= kernel in FORCES
        if kernel != "make_batch_moments":
            sums["gradient"] += row
            if not second:
                sums["forces"] += row
        lines.append(table_row(kernel, registers[kernel], warps, row, limit))
    lines.append(table_row("sum of energies and forces", "", "", sums["forces"], ""))
    lines.append(table_row("sum, moments stored", "", "", sums["gradient"], ""))
    return "\n".join(lines)


def table_row(name: str, registers: object, warps: object, row: np.ndarray, limit: str) -> str:
    flop, least, moved, time = row
    cells = f"{flop / 1e3:.1f} | {least / 1e3:.1f} | {moved / 1e3:.1f} | {1e9 * time:.1f}"
    return f"| {name} | {registers} | {warps} | {cells} | {limit} |"


def registers_of(shape: Shape) -> dict[str, int]:
    """Registers of a thread for sm_90."""
    import nvrtc

    library = nvrtc.find(13) or nvrtc.find(12)
    if library is None:
        raise SystemExit("needs NVIDIA's compiler: pip install nvidia-cuda-nvrtc")
    kernels, _ = nvrtc.report(library.compile(cuda_source(shape.header(stress=False)), "sm_90"))
    return {name: kernel.registers for name, kernel in kernels.items()}


def resident_warps(registers: int, threads: int) -> int:
    """Warps of a multiprocessor that its registers hold, in whole blocks; a warp takes them in units of 256."""
    warps = threads // LANES
    blocks = DEVICE["registers"] // (-(-registers * LANES // 256) * 256) // warps
    return min(blocks * warps, DEVICE["warps"])


def sums_of_rows(shape: Shape, atoms: int) -> dict[str, tuple[float, float]]:
    """Operations and bytes per atom of what adds up the pieces; rows are cleared, too."""
    rows = row_memory(shape, shards_of(atoms)) / atoms
    terms = len(metrics.TERMS) + N_MAXIMA
    return {
        "add_terms": (terms / STRUCTURE_ATOMS, 8 * terms / STRUCTURE_ATOMS),
        "add_rows": (rows / 8, 2 * rows),
    }


def shards_of(atoms: int) -> np.ndarray:
    """Atoms of each virtual shard of structures of 100 atoms."""
    return np.round(np.diff(shard_ends(atoms // STRUCTURE_ATOMS, atoms)[0]) * atoms).astype(np.int64)


# ---- memory ----


def memory_text(potentials: dict[str, object], atoms: int = 10**6, neighbours: int = 50, memory: float = 80e9) -> str:
    """Markdown: bytes on one device."""
    shards = shards_of(atoms)
    room = MEMORY_FRACTION * memory
    lines = [f"{atoms} atoms with {neighbours} neighbours in {len(shards)} virtual shards, GB:", ""]
    head = "potential", "functions", "bonds, targets, results", "moments", "work, one batch", "sum", "batches in 80 GB"
    lines += [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name, potential in potentials.items():
        shape = make_shape(potential)
        for stored in (True, False):
            resident, moments, work = memory_needs(shape, shards, neighbours * atoms, stored)
            batches = -(-work // int(room - resident - moments))
            cells = [resident, moments, work, resident + moments + work]
            label = name if stored else f"{name}, moments recomputed"
            numbers = " | ".join(f"{cell / 1e9:.1f}" for cell in cells)
            lines.append(f"| {label} | {potential.n_functions} | {numbers} | {batches} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
