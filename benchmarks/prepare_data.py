"""Time and memory of preparing and loading many structures: python benchmarks/prepare_data.py --size 10000

Synthetic structures (2 to 6 atoms, mostly crystals) are written as one data file, prepared by `pacehpc --prepare-data`
on all ranks, and loaded by the ranks, each its own part. Prints JSON; --output keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CUTOFF = 5.0


def synthetic(size: int, seed: int = 0):
    """`size` structures of Al and Ni at about the density of a metal, as a Dataset."""
    from pacehpc.dataset import Dataset

    random = np.random.default_rng(seed)
    n_atoms = random.integers(2, 7, size)
    offsets = np.concatenate(([0], np.cumsum(n_atoms)))
    total = int(offsets[-1])
    place = np.arange(total) - np.repeat(offsets[:-1], n_atoms)
    lattice = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]]) * 2.3
    lengths = np.full((size, 3), 4.6) + random.uniform(0, 0.4, (size, 3))
    cells = np.zeros((size, 3, 3))
    cells[:, range(3), range(3)] = lengths
    energy = -4.0 * n_atoms + random.normal(0, 0.3, size)
    return Dataset(
        sources=["synthetic"], source=np.zeros(size, np.int32), rows=np.arange(size), index=list(range(size)),
        names=[""] * size, info=[{}] * size, atom_offsets=offsets.astype(np.int64),
        numbers=random.choice(np.array([13, 28], np.uint8), total),
        positions=lattice[place] + random.normal(0, 0.1, (total, 3)), cells=cells,
        pbc=np.repeat(random.random(size) < 0.9, 3).reshape(-1, 3), energy=energy, energy_corrected=energy,
        flat_forces=random.normal(0, 0.5, (total, 3)), stress=None, w_energy=np.full(size, 1 / size),
        flat_w_forces=np.full(total, 1 / total), low=np.ones(size, bool),
    )  # fmt: skip


def peak_gib(who: int = resource.RUSAGE_SELF) -> float:
    """Largest resident memory so far, GiB."""
    return resource.getrusage(who).ru_maxrss / 2**20


def load() -> None:
    """One rank's share of the prepared file; the root prints what all ranks took."""
    from mpi4py import MPI

    from pacehpc.dataset import Store

    comm = MPI.COMM_WORLD
    comm.Barrier()
    start = time.perf_counter()
    with Store("prepared_data.h5") as store:
        part = store.read_shard(comm.rank, comm.size)
    mine = (time.perf_counter() - start, peak_gib(), part.n_structures, part.n_atoms, part.n_bonds)
    everyone = comm.gather(mine)
    if comm.rank == 0:
        seconds, memory, structures, atoms, bonds = np.array(everyone).T
        found = {"load_seconds": seconds.max(), "load_peak_gib_per_rank": memory.max(), "structures": structures.sum()}
        print(json.dumps(found | {"atoms": atoms.sum(), "bonds": bonds.sum()}))


def measure(size: int, ranks: int, kind: str, folder: Path) -> dict[str, object]:
    """All steps in `folder`."""
    from pacehpc.dataset.writing import write_data
    from pacehpc.machine import processor

    data = folder / f"data.{kind}"
    start = time.perf_counter()
    write_data(synthetic(size), data)
    written = time.perf_counter() - start
    (folder / "input.yaml").write_text(f"cutoff: {CUTOFF}\ndata: {{filename: {data.name}, reference_energy: 0}}\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    mpirun = ["mpirun", "-n", str(ranks), sys.executable]

    def run(*arguments: str) -> tuple[float, str]:
        start = time.perf_counter()
        done = subprocess.run([*mpirun, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
        return time.perf_counter() - start, done.stdout

    prepared, _ = run("-m", "pacehpc", "--prepare-data")
    memory = peak_gib(resource.RUSAGE_CHILDREN)
    reused, shown = run("-m", "pacehpc", "--prepare-data")
    assert "prepared before" in shown
    _, loaded = run(os.path.abspath(__file__), "--load")
    return {
        "size": size, "ranks": ranks, "data_file": kind, "cutoff": CUTOFF, "write_data_seconds": round(written, 2),
        "prepare_seconds": round(prepared, 2), "prepare_peak_gib": round(memory, 3), "reuse_seconds": round(reused, 2),
        "data_gib": round(data.stat().st_size / 2**30, 4),
        "store_gib": round((folder / "prepared_data.h5").stat().st_size / 2**30, 4),
        **{k: round(v, 3) for k, v in json.loads(loaded).items()},
        "cpu": processor(), "cpus": os.cpu_count(),
    }  # fmt: skip


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--size", type=int, default=10_000, help="structures; default: %(default)s")
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--format", default="h5", choices=("h5", "pckl.gzip", "extxyz", "db"), help="of the data file")
    p.add_argument("--output", type=Path)
    p.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    arguments = p.parse_args()
    if arguments.load:
        load()
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        found = measure(arguments.size, arguments.ranks, arguments.format, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
