"""Many ranks on this machine, more than it has cores: do they get the same bits, and what does each of them take?

    python benchmarks/ranks.py [--ranks 1 2 16 32 64] [--json FILE] [--bare] [--page]

The same small fit with GN-BFGS, ladder steps and a test set on each number of ranks, with data and kernels prepared
beforehand. It reports the time to the first iteration and to the end, the processor time of all ranks, the peak memory
of a rank, the files in the folder, and the shared memory. None of them may grow with the square of the number of ranks,
and waiting ranks must not keep the cores busy. Parameters and tables must be those of one rank, bit for bit. A program
that does nothing but import mpi4py and send arrays around shows how much of the memory is that of MPI; --bare runs this
one alone and keeps the results of the fits. --page writes the table of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import resume
from evaluation import machine

from pacehpc import Potential

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "ranks.json"
SHARED_MEMORY = Path("/dev/shm")
# The program itself, which leaves memory and processor time of each rank.
PROGRAM = """
import re, sys, time
from pathlib import Path
from pacehpc import cli, parallel
code = cli.main(["input.yaml", "--no-predict"])
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
Path(sys.argv[1], str(parallel.launcher_rank())).write_text(f"{peak} {time.process_time()}")
sys.exit(code)
"""
# What MPI alone takes: arrays of 64 KiB to and from the first rank.
BARE = """
import re, sys, time
from pathlib import Path
import numpy as np
from mpi4py import MPI
comm = MPI.COMM_WORLD
for _ in range(10):
    comm.Allreduce(np.ones(2**13), np.empty(2**13))
    comm.gather(np.ones(2**13))
    comm.bcast(np.ones(2**13))
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
Path(sys.argv[1], str(comm.rank)).write_text(f"{peak} {time.process_time()}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2, 16, 32, 64])
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--bare", action="store_true", help="only the program without pacehpc")
    parser.add_argument("--page", action="store_true", help="write the table of docs/scaling.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.bare:
            results = json.loads(arguments.json.read_text(encoding="utf-8"))
        else:
            results = {"machine": machine() | {"load": os.getloadavg()[0]}}
            results["runs"] = measure(arguments.ranks, Path(folder))
        results["bare"] = [{"ranks": n, "peak_MiB": bare(n, Path(folder))} for n in arguments.ranks]
    arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.page:
        from scaling import replace_between_marks

        replace_between_marks("ranks", table(results))


def measure(numbers: list[int], scratch: Path) -> list[dict]:
    """One fit for each number of ranks; SystemExit where the bits differ from those of one rank."""
    first = scratch / "first"
    first.mkdir()
    resume.write_input(first, "GN-BFGS")
    run(first, 1, scratch / "first_ranks")
    expected, found = bits(first), []
    for n in numbers:
        folder = scratch / str(n)
        folder.mkdir()
        for name in ("input.yaml", "prepared_data.h5", "prepared_test_data.h5"):
            shutil.copy(first / name, folder / name)
        found.append({"ranks": n, **run(folder, n, scratch / f"{n}_ranks")})
        print(json.dumps(found[-1]), flush=True)
        if bits(folder) != expected:
            raise SystemExit(f"parity check failed: {n} ranks end with other bits than one")
    return found


def bits(folder: Path) -> tuple:
    """Of the parameters, and the tables."""
    tables = [(folder / f"{name}.txt").read_text(encoding="utf-8") for name in resume.TABLES]
    return (Potential.load(folder / "output_potential.yaml").parameters.tobytes(), *tables)


def bare(n_ranks: int, scratch: Path) -> float:
    """Peak memory in MiB of the rank with the most, in the program without pacehpc."""
    return run(scratch, n_ranks, scratch / f"{n_ranks}_bare", BARE)["peak_MiB"]


def run(folder: Path, n_ranks: int, left: Path, program: str = PROGRAM) -> dict:
    """One fit by the command, or one run of another program."""
    left.mkdir()
    command = [str(resume.MPIRUN), "-n", str(n_ranks), sys.executable, "-c", program, str(left)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start, begun, shared, files = time.perf_counter(), None, 0, 0
    with (left / "said").open("w", encoding="utf-8") as said:
        job = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    while job.poll() is None:
        if begun is None and (folder / "metrics.txt").exists():
            begun = time.perf_counter() - start
        shared = max(shared, sum(path.stat().st_size for path in SHARED_MEMORY.glob("mpich_shm_*") if path.exists()))
        files = max(files, sum(1 for _ in folder.rglob("*")))
        time.sleep(0.05)
    if job.returncode:
        raise SystemExit((left / "said").read_text(encoding="utf-8")[-3000:])
    told = [(left / str(rank)).read_text().split() for rank in range(n_ranks)]
    return {
        "first_iteration_s": begun,
        "whole_s": time.perf_counter() - start,
        "processor_s": sum(float(seconds) for _, seconds in told),
        "peak_MiB": max(int(peak) for peak, _ in told) / 2**10,
        "shared_MiB": shared / 2**20,
        "files": files,
    }


def table(results: dict) -> str:
    lines = [
        "| ranks | time to first iteration | whole fit | processor time | peak memory | MPI alone | shared memory "
        "| files |",
        "| --- |" + " --- |" * 7,
    ]
    alone = {one["ranks"]: one["peak_MiB"] for one in results["bare"]}
    for one in results["runs"]:
        n = one["ranks"]
        lines.append(
            f"| {n} | {one['first_iteration_s']:.1f} s | {one['whole_s']:.1f} s | {one['processor_s'] / n:.1f} s | "
            f"{one['peak_MiB']:.0f} MiB | {alone[n]:.0f} MiB | {one['shared_MiB'] / n:.1f} MiB | {one['files']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
