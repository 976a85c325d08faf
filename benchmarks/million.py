"""A fit of a few iterations to a million atoms with about 50 neighbours, by the command, and what it took.

    python benchmarks/million.py [--atoms 1000000] [--iterations 3] [--ranks 1] [--folder DIR] [--json FILE]

Cells of 108 copper atoms, each rattled anew, with random targets, in a data frame as users have them. Writes the time
of preparing, of an evaluation, and the largest memory of a process. Needs about 8 GB of memory on one rank.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from evaluation import machine

INPUT = """
cutoff: 5.2
seed: 1
potential:
  elements: [Cu]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}}}
  bonds: {{ALL: {{radbase: ChebExpCos, radparameters: [5.25], rcut: 5.2, dcut: 0.01}}}}
  functions: {{ALL: {{nradmax_by_orders: [15, 3, 2, 2, 1], lmax_by_orders: [0, 2, 2, 1, 1]}}}}
data: {{filename: million.pckl.gzip}}
fit: {{loss: {{kappa: 0.3}}, optimizer: BFGS, maxiter: {iterations}}}
backend: {{display_step: 100, evaluator: cpu}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=1_000_000)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the data and the fit; default: a temporary one")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "million.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        if not (folder / "million.pckl.gzip").exists():
            subprocess.run([sys.executable, __file__, "--write", str(folder), str(arguments.atoms)], check=True)
        (folder / "input.yaml").write_text(INPUT.format(iterations=arguments.iterations))
        program = [sys.executable, "-m", "pacehpc", "input.yaml"]
        launcher = (
            [] if arguments.ranks == 1 else [str(Path(sys.executable).parent / "mpirun"), "-n", str(arguments.ranks)]
        )
        prepare = timed([*program, "--prepare-data"], folder)
        fit = timed([*launcher, *program, "--no-predict", "--fresh"], folder)
        log = (folder / "log.txt").read_text()
    per_atom = [float(value) for value in re.findall(r"Time/eval: ([\d.]+) mcs/at", log)]
    memory = re.findall(r"Memory of a rank: about ([\d.]+) GiB", log)
    found = {
        "atoms": arguments.atoms,
        "ranks": arguments.ranks,
        "bonds": int(re.search(r"(\d+) bonds", log)[1]),
        "prepare_s": prepare,
        "fit_s": fit,
        "us_per_atom": per_atom,
        "predicted_GiB": max(map(float, memory), default=None),
        "largest_process_GiB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
        "machine": machine() | {"load": os.getloadavg()[0]},
    }
    print(json.dumps(found, indent=1))
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def timed(command: list[str], folder: Path) -> float:
    """Seconds of a command that has to succeed."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True)
    return time.perf_counter() - start


def write_data(folder: Path, n_atoms: int) -> None:
    """The data frame, in a process of its own: its memory is not the fit's."""
    import pandas as pd
    from ase import Atoms
    from ase.build import bulk

    rng = np.random.default_rng(0)
    cell = bulk("Cu", "fcc", a=3.61, cubic=True).repeat(3)
    n, size = max(1, n_atoms // len(cell)), len(cell)
    frames = [
        Atoms(cell.numbers, cell.positions + 0.1 * rng.standard_normal((size, 3)), cell=cell.cell, pbc=True)
        for _ in range(n)
    ]
    columns = {
        "ase_atoms": frames,
        "energy_corrected": rng.normal(size=n) * 0.1 * size,
        "forces": [rng.normal(size=(size, 3)) for _ in range(n)],
    }
    pd.DataFrame(columns).to_pickle(folder / "million.pckl.gzip", compression={"method": "gzip", "compresslevel": 1})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_data(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
