"""Fits to the public benchmark of Zuo et al., J. Phys. Chem. A 124, 731 (2020): errors on its test sets, and times.

    python benchmarks/zuo2020.py [--elements Cu Ni Li Mo Si Ge] [--seeds 1 2 3] [--page]
    python benchmarks/zuo2020.py --page --elements      # only the table in docs/validation.md, from the results

Train and test sets are those of the publication (BSD licence; ../shared/zuo2020 has them as extended xyz). All elements
have the same settings but for the cutoff and the energy of a free atom. They were chosen on an eighth of the training
structures of molybdenum, held out, before any test set was evaluated. Each seed is one fit on one rank; the first seed
is fitted on two ranks as well, for the time. Results go to benchmarks/results/zuo2020.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from evaluation import machine

import pacehpc

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "zuo2020"
RESULTS = ROOT / "benchmarks" / "results" / "zuo2020.json"
PAGE = ROOT / "docs" / "validation.md"

FREE_ATOMS = {"Cu": -0.62, "Ni": -1.0, "Li": -0.30, "Mo": -4.62, "Si": -0.87, "Ge": -0.78}
"""eV, from bulk and cohesive energies."""
CUTOFFS = {"Cu": 5.2, "Ni": 5.2, "Li": 6.5, "Mo": 5.5, "Si": 5.5, "Ge": 5.5}
"""Å: the fourth shell or so."""
PUBLISHED = {  # mean absolute errors: GAP energy, force; MTP energy, force (meV/atom, eV/Å)
    "Cu": (0.46, 0.01, 0.41, 0.01),
    "Ni": (0.42, 0.02, 0.48, 0.01),
    "Li": (0.49, 0.01, 0.49, 0.01),
    "Mo": (2.24, 0.09, 2.83, 0.09),
    "Si": (2.91, 0.07, 2.21, 0.06),
    "Ge": (2.06, 0.05, 1.79, 0.05),
}
INPUT = """\
seed: {seed}
data:
  filename: {train}
  test_filename: {test}
  reference_energy: {{{element}: {free}}}
potential:
  elements: [{element}]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}}}
  bonds: {{ALL: {{radbase: SBessel, radparameters: [5.25], rcut: {rcut}, dcut: 0.01}}}}
  functions:
    number_of_functions_per_element: 500
    ALL: {{nradmax_by_orders: [20, 8, 5, 3, 2], lmax_by_orders: [0, 4, 3, 2, 1]}}
fit:
  loss: {{kappa: 0.02, L1_coeffs: 1e-8, L2_coeffs: 1e-8}}
  optimizer: BFGS
  maxiter: 1500
backend: {{display_step: 100}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", nargs="*", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--page", action="store_true", help="put the table into docs/validation.md")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for element in arguments.elements:
        for seed in arguments.seeds:
            runs = [fit(element, seed, ranks) for ranks in ([1, 2] if seed == arguments.seeds[0] else [1])]
            if len(runs) == 2 and runs[0]["errors"] != runs[1]["errors"]:
                raise SystemExit(f"{element}: one rank and two give other errors: {runs[0]} {runs[1]}")
            case = results.setdefault(element, {"input": INPUT, "seeds": {}})
            case |= {"input": INPUT, "machine": machine(), "date": str(date.today()), "version": pacehpc.__version__}
            case["seeds"][str(seed)] = runs[0]["errors"] | {"seconds": {r["ranks"]: r["seconds"] for r in runs}}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(element, seed, runs, flush=True)
    if arguments.page:
        write_page(results)


def fit(element: str, seed: int, ranks: int) -> dict:
    """Fit one element and return its errors on the test set (eV/atom, eV/Å) and the seconds of the whole command."""
    train, test = (DATA / f"{element}_{part}.extxyz.gz" for part in ("train", "test"))
    text = INPUT.format(
        element=element, seed=seed, train=train, test=test, free=FREE_ATOMS[element], rcut=CUTOFFS[element]
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "input.yaml").write_text(text, encoding="utf-8")
        command = ["mpirun", "-n", str(ranks), sys.executable, "-m", "pacehpc", "input.yaml"]
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        errors = {part: errors_of(Path(folder, f"{part}_pred.pckl.gzip")) for part in ("train", "test")}
    return {"ranks": ranks, "seconds": seconds, "errors": errors}


def errors_of(path: Path) -> dict[str, float]:
    """Errors of a file of predictions: energies per structure (eV/atom), forces per component (eV/Å)."""
    columns = pd.read_pickle(path, compression="gzip")
    n_atoms = columns["NUMBER_OF_ATOMS"].to_numpy()
    energy = (columns["energy_pred"] - columns["energy_corrected"]).to_numpy() / n_atoms
    force = np.concatenate([np.ravel(a - b) for a, b in zip(columns["forces_pred"], columns["forces"], strict=True)])
    return {
        "mae_energy": float(np.abs(energy).mean()),
        "rmse_energy": float(np.sqrt((energy**2).mean())),
        "mae_force": float(np.abs(force).mean()),
        "rmse_force": float(np.sqrt((force**2).mean())),
        "max_force": float(np.abs(force).max()),
    }


def write_page(results: dict) -> None:
    """Put the table between its marks in docs/validation.md."""
    lines = [
        "| element | GAP | MTP | pacehpc: MAE (three seeds) | pacehpc: RMSE | time on 1 rank, 2 ranks, s |",
        "|" + " --- |" * 6,
    ]
    for element, case in results.items():
        seeds = [seed["test"] for seed in case["seeds"].values()]
        values = {key: [s[key] * (1e3 if "energy" in key else 1.0) for s in seeds] for key in seeds[0]}
        gap_e, gap_f, mtp_e, mtp_f = PUBLISHED[element]
        mae, rmse = (
            f"{median(values[k + '_energy']):.2f} ({min(values[k + '_energy']):.2f} to "
            f"{max(values[k + '_energy']):.2f}), {median(values[k + '_force']):.4f}"
            for k in ("mae", "rmse")
        )
        seconds = next(s["seconds"] for s in case["seeds"].values() if len(s["seconds"]) == 2)
        times = ", ".join(f"{t:.0f}" for t in seconds.values())
        lines.append(f"| {element} | {gap_e}, {gap_f} | {mtp_e}, {mtp_f} | {mae} | {rmse} | {times} |")
    machines = {case["machine"]["processor"] for case in results.values()}
    lines += [
        "",
        "Energies in meV/atom, force components in eV/Å, on the test sets of the publication. Medians of the seeds, in "
        f"brackets the range of the energies. {', '.join(sorted(machines))}, two cores, "
        f"{max(case['date'] for case in results.values())}; times are of the whole command.",
        "",
        "```yaml",
        next(iter(results.values()))["input"].replace("{{", "{").replace("}}", "}").strip(),
        "```",
    ]
    begin, end = "<!-- zuo2020 -->", "<!-- end of zuo2020 -->"
    page = PAGE.read_text()
    if begin not in page or end not in page:
        raise SystemExit(f"{PAGE} lacks the lines {begin} and {end}")
    PAGE.write_text(f"{page.split(begin)[0]}{begin}\n" + "\n".join(lines) + f"\n{end}{page.split(end)[1]}")


if __name__ == "__main__":
    main()
