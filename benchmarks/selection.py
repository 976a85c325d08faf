"""Test errors of potentials fitted to selected and to random structures of ethanol; docs/active-learning.md shows them.

    python benchmarks/selection.py [--seeds 1 2 3 4 5] [--number 100]

For each seed the data are cut at random into a pool of 800 structures and 200 for the test. `pacehpc select` chooses
from the pool by the basis alone, before any fit; the others are drawn at random. Both fits have the same input. Results
go to benchmarks/results/selection.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from zuo2020 import errors_of

from pacehpc import build_potential
from pacehpc.active.structure_files import read_structures
from pacehpc.dataset.frames import write_frame
from pacehpc.yamlio import loads_yaml

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "ethanol.pckl.gzip"
RESULTS = ROOT / "benchmarks" / "results" / "selection.json"
FIGURE = ROOT / "docs" / "figures" / "selection.png"
POOL = 800
INPUT = """\
seed: 1
data: {filename: train.pckl.gzip, test_filename: test.pckl.gzip}
potential:
  elements: [C, H, O]
  embeddings: {ALL: {npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}
  bonds: {ALL: {radbase: SBessel, radparameters: [5.25], rcut: 4.5, dcut: 0.01}}
  functions:
    number_of_functions_per_element: 150
    ALL: {nradmax_by_orders: [10, 4, 2, 1], lmax_by_orders: [0, 3, 2, 1]}
fit:
  loss: {kappa: 0.3, L1_coeffs: 1e-8, L2_coeffs: 1e-8}
  optimizer: BFGS
  maxiter: 500
backend: {display_step: 100}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    parser.add_argument("--number", type=int, default=100, help="structures of each fit")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"seeds": {}}
    for seed in arguments.seeds:
        results["seeds"][str(seed)] = compare(seed, arguments.number)
        results |= {"number": arguments.number, "input": INPUT, "date": str(date.today())}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(seed, results["seeds"][str(seed)], flush=True)
    draw(results)
    for key in ("rmse_energy", "rmse_force", "max_force"):
        medians = {
            kind: np.median([one[kind][key] for one in results["seeds"].values()]) for kind in ("selected", "random")
        }
        print(key, medians)


def compare(seed: int, number: int) -> dict[str, dict[str, float]]:
    """Test errors of both fits."""
    frame = read_structures([str(DATA)])
    frame = frame.frame(range(len(frame.atoms)))
    order = np.random.default_rng(seed).permutation(len(frame))
    pool, test = frame.iloc[order[:POOL]], frame.iloc[order[POOL:]]
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_frame(pool, folder / "pool.pckl.gzip")
        build_potential(loads_yaml(INPUT)["potential"]).save(folder / "pot.yaml")
        run(folder, "select", "pool.pckl.gzip", "-p", "pot.yaml", "-m", str(number), "-o", "selected.pkl.gz")
        selected = pd.read_pickle(folder / "selected.pkl.gz", compression="gzip")
        for kind, train in (("selected", selected), ("random", pool.iloc[:number])):
            if len(train) != number:
                raise SystemExit(f"{kind}: {len(train)} structures, {number} expected")
            place = folder / kind
            place.mkdir()
            write_frame(train, place / "train.pckl.gzip")
            write_frame(test, place / "test.pckl.gzip")
            (place / "input.yaml").write_text(INPUT)
            run(place, "input.yaml")
            found[kind] = errors_of(place / "test_pred.pckl.gzip")
    return found


def run(folder: Path, *arguments: str) -> None:
    """Run pacehpc in a folder."""
    done = subprocess.run([sys.executable, "-m", "pacehpc", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def draw(results: dict) -> None:
    """Errors of both kinds by seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = (
        ("rmse_energy", 1e3, "RMSE of energies, meV/atom"),
        ("rmse_force", 1e3, "RMSE of forces, meV/Å"),
        ("max_force", 1.0, "largest force error, eV/Å"),
    )
    for axis, (key, factor, label) in zip(figure.subplots(1, 3), panels, strict=True):
        for place, kind in enumerate(("random", "selected")):
            values = [factor * one[kind][key] for one in results["seeds"].values()]
            axis.plot([place] * len(values), values, "o", color=f"C{place}", alpha=0.6)
            axis.plot([place - 0.2, place + 0.2], [np.median(values)] * 2, color=f"C{place}")
        axis.set(xticks=[0, 1], xticklabels=["random", "selected"], ylabel=label, xlim=(-0.5, 1.5))
        axis.set_ylim(0, None)
    figure.savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
