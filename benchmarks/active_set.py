"""Time and memory of an active set of many atoms, and beside the reference program on ethanol.

    python benchmarks/active_set.py [--atoms 1000000] [--ranks 2] [--pace-activeset ENV/bin/pace_activeset]

The atoms are synthetic: copper crystals of 500 atoms, displaced at random, one element and 500 functions. The reference
program is used as a black box, in an environment of its own (see validation.py). Results go to
benchmarks/results/active_set.json.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from ase.build import bulk
from evaluation import machine

from pacehpc import build_potential

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results" / "active_set.json"
SECTION = {
    "elements": ["Cu"],
    "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}},
    "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 5.0, "dcut": 0.01}},
    "functions": {
        "number_of_functions_per_element": 500,
        "ALL": {"nradmax_by_orders": [15, 6, 4, 2, 2], "lmax_by_orders": [0, 4, 3, 2, 1]},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="*", default=[100_000])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--memory", type=float, default=2.0, help="GB of rows that each rank keeps")
    parser.add_argument("--pace-activeset", metavar="FILE", help="of the reference program's environment")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for n_atoms in arguments.atoms:
        results[f"synthetic {n_atoms}"] = synthetic(n_atoms, arguments.ranks, arguments.memory)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(n_atoms, results[f"synthetic {n_atoms}"], flush=True)
    if arguments.pace_activeset:
        results["ethanol"] = ethanol(arguments.pace_activeset)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(results["ethanol"])


def synthetic(n_atoms: int, ranks: int, memory: float) -> dict:
    """Choose the active set of crystals of 500 atoms."""
    rng = np.random.default_rng(0)
    crystal = bulk("Cu", cubic=True) * (5, 5, 5)
    structures = []
    for _ in range(n_atoms // len(crystal)):
        atoms = crystal.copy()
        atoms.set_cell(atoms.cell * rng.uniform(0.93, 1.07), scale_atoms=True)
        atoms.positions += rng.normal(scale=rng.uniform(0.02, 0.3), size=atoms.positions.shape)
        structures.append(atoms)
    with tempfile.TemporaryDirectory() as folder:
        build_potential(SECTION).save(Path(folder, "pot.yaml"))
        pd.DataFrame({"ase_atoms": structures}).to_pickle(Path(folder, "data.pckl.gzip"), compression="gzip")
        command = [sys.executable, "-m", "pacehpc", "activeset", "pot.yaml", "-d", "data.pckl.gzip", "-a"]
        seconds, text = run(["mpirun", "-n", str(ranks), *command, "-m", str(memory)], folder)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {
        "ranks": ranks, "seconds": seconds, "largest_process_gib": peak, "log": text, "machine": machine(),
        "date": str(date.today()),
    }  # fmt: skip


def ethanol(program: str) -> dict:
    """Both programs on all atoms of the ethanol data."""
    found = {"date": str(date.today()), "machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        for source in ("golden/activeset/eth.yaml", "data/ethanol.pckl.gzip"):
            (Path(folder) / Path(source).name).write_bytes((SHARED / source).read_bytes())
        common = ["eth.yaml", "-d", "ethanol.pckl.gzip", "-a"]
        ours = [sys.executable, "-m", "pacehpc", "activeset", *common]
        found["ours_seconds"], found["ours_log"] = run(ours, folder)
        found["theirs_seconds"], _ = run([str(Path(program).absolute()), *common], folder)
    return found


def run(command: list[str], folder: str) -> tuple[float, list[str]]:
    """Seconds of a command, and the lines of its log about the sets."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, re.findall(r".*functions, rank.*", done.stdout)


if __name__ == "__main__":
    main()
