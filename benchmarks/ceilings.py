"""What one core of this machine can do: matrix product, fused multiply-adds, and bandwidth by cache level.

    python benchmarks/ceilings.py [--json FILE] [--page]

A read-modify-write of 8 bytes counts 8 bytes (each way), a copy too. --page puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
from compare import replace_between_marks
from evaluation import machine, repeat

from pacehpc.backends.compile import architecture, compiler, lanes
from pacehpc.backends.cpu import aligned

RESULTS = Path(__file__).parent / "results" / "ceilings.json"
ROUNDS = 50  # short, so that the best one had the core to itself


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS, help="results; default: %(default)s")
    parser.add_argument("--page", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    results = measure()
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    print(text)
    if arguments.page:
        replace_between_marks("ceilings", text)


def measure() -> dict[str, object]:
    """Best of several rounds each: GFlop/s, and GB/s by cache level."""
    library = build()
    repeats = 200_000
    fma = max(2 * 12 * lanes() * repeats / library.fused_multiply_adds(repeats) for _ in range(ROUNDS)) / 1e9
    bandwidth = {name: bandwidth_of(library, size) for name, size in working_sets().items()}
    return machine() | {"dgemm_gflops": matrix_product(), "fma_gflops": fma, "lanes": lanes(), "bandwidth": bandwidth}


def matrix_product() -> float:
    """GFlop/s, the best of several sizes."""
    rng, best = np.random.default_rng(0), 0.0
    for n in (512, 1024, 2048):
        a, b = rng.standard_normal((2, n, n))
        best = max(best, 2 * n**3 / min(repeat(lambda a=a, b=b: a @ b, 1.0)) / 1e9)
    return best


def bandwidth_of(library: ctypes.CDLL, size: int) -> dict[str, float]:
    """GB/s each way of loops over a working set of `size` bytes."""
    n = size // (8 * lanes())
    x, y = aligned(n, lanes()), aligned(n // 2, lanes())
    x[:], y[:] = 0, 0
    repeats = max(1, 2**26 // size)
    update = min(library.read_modify_write(x.ctypes.data, n, repeats) for _ in range(ROUNDS))
    copy = min(library.copy(y.ctypes.data, x.ctypes.data, n // 2, repeats) for _ in range(ROUNDS))
    return {
        "bytes": size,
        "read_modify_write_gb_s": size * repeats / update / 1e9,
        "copy_gb_s": size / 2 * repeats / copy / 1e9,
    }


def working_sets() -> dict[str, int]:
    """Bytes that half fill each cache of a core, and eight times the last one (at least 256 MiB) for memory."""
    sizes = {"L1": 2**15, "L2": 2**20, "L3": 2**24}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (folder / "type").read_text().strip() != "Instruction":
            level = "L" + (folder / "level").read_text().strip()
            number, unit = re.fullmatch(r"(\d+)([KM])\s*", (folder / "size").read_text()).groups()
            sizes[level] = int(number) * {"K": 2**10, "M": 2**20}[unit]
    sets = {level: size // 2 for level, size in sorted(sizes.items())}
    return sets | {"memory": max(2**28, 8 * max(sizes.values()))}


def build() -> ctypes.CDLL:
    """The loops of ceilings.cpp."""
    source = Path(__file__).with_suffix(".cpp")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ceilings.so"
        flags = [
            "-O3",
            "-std=c++17",
            "-ffp-contract=fast",
            "-fPIC",
            "-shared",
            f"-march={architecture()}",
            f"-DLANES={lanes()}",
        ]
        subprocess.run([compiler(), *flags, "-o", path, source], check=True)
        library = ctypes.CDLL(str(path))
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    library.fused_multiply_adds.argtypes = [count]
    library.read_modify_write.argtypes = [pointer, count, count]
    library.copy.argtypes = [pointer, pointer, count, count]
    for name in ("fused_multiply_adds", "read_modify_write", "copy"):
        getattr(library, name).restype = ctypes.c_double
    return library


def table(results: dict[str, object]) -> str:
    """Markdown."""
    lines = [
        f"One core of {results['processor']}, {results['lanes']} doubles a vector: matrix product "
        f"**{results['dgemm_gflops']:.0f} GFlop/s**, fused multiply-adds in registers "
        f"{results['fma_gflops']:.0f} GFlop/s.",
        "",
        "| working set | read-modify-write, GB/s each way | copy, GB/s each way |",
        "| --- | --- | --- |",
    ]
    for name, level in results["bandwidth"].items():
        size = level["bytes"] / 2**10
        label = f"{size:.0f} KiB" if size < 2**10 else f"{size / 2**10:.0f} MiB"
        lines.append(f"| {name}, {label} | {level['read_modify_write_gb_s']:.0f} | {level['copy_gb_s']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
