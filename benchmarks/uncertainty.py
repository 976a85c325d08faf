"""Coverage of the intervals of `fit.uncertainty`: structures like the data of the fit, and kinds that were left out.

    python benchmarks/uncertainty.py [--page]
    python benchmarks/uncertainty.py --page --cases    # only the tables in docs/uncertainty.md

Silicon, molybdenum and germanium of Zuo et al., J. Phys. Chem. A 124, 731 (2020), training and test sets together, and
400 structures of ethanol. In each of three splits at random, 60 % of the structures are fitted and the others are
tested: the share of true values within the intervals of 68 and 90 %, of all and of each kind with ten structures or
more in the test set. Then whole kinds are left out of the fit, surfaces or molecular dynamics, and are the test set.
Forces that are zero by symmetry (s below the cut of the calibration) are not counted. Settings and bars were set before
any case ran. Runs on one core; results go to benchmarks/results/uncertainty.json after each case, and cases that are
there are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from evaluation import machine
from zuo2020 import FREE_ATOMS

import pacehpc
from pacehpc import Objective, load_dataset
from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.dataset import Dataset
from pacehpc.dataset.groups import group_labels
from pacehpc.dataset.loading import weighted
from pacehpc.fit.optimizers import minimize
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential, build_potential
from pacehpc.shard import Shard, shard
from pacehpc.uncertainty.build import build
from pacehpc.uncertainty.calibration import LEAST
from pacehpc.uncertainty.deviations import deviations
from pacehpc.uncertainty.model import Uncertainty

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results" / "uncertainty.json"
PAGE = ROOT / "docs" / "uncertainty.md"

SYSTEMS = {"Si": 4.8, "Mo": 5.0, "Ge": 5.0, "ethanol": 4.0}
"""Cutoffs, Å."""
SPLITS = (1, 2, 3)
LEFT_OUT = ("Surface", "AIMD-NVT")
SHARE = 0.6
ETHANOL = 400
LOSS = {"kappa": 0.05, "L1_coeffs": 1e-8, "L2_coeffs": 1e-8}
WEIGHTS = LossWeights(LOSS["kappa"], 0.0)
ITERATIONS = 250
ELASTIC = "Elastic"  # strained crystals, whose forces vanish and which any interval covers
BARS = {"forces_68": 6, "forces_90": 3, "energies_68": 13, "energies_90": 6, "group": 4}
"""Percentage points by which a median may miss its level."""
LEAST_OF_LEFT_OUT = 80
CASES = [
    *((system, SPLITS[0]) for system in SYSTEMS),
    *((system, kind) for system in ("Si", "Mo", "Ge") for kind in LEFT_OUT),
    *((system, split) for split in SPLITS[1:] for system in SYSTEMS),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=[f"{system} {which}" for system, which in CASES])
    parser.add_argument("--page", action="store_true", help="put the tables into docs/uncertainty.md")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for system, which in CASES:
        name = f"{system} {which}"
        if name in arguments.cases and name not in results:
            results[name] = measure(system, which)
            print(name, json.dumps(results[name]), flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.page:
        write_page(results)


class Case(NamedTuple):
    """A fit to one part of the data."""

    potential: Potential
    made: Uncertainty
    fitted: Shard
    train: Dataset
    test: Dataset
    labels: np.ndarray
    """Kinds of the tested structures."""
    seconds: dict[str, float]


def fit(system: str, which: int | str) -> Case:
    """Fit a split of a system, or all structures but those of a kind, and build the uncertainty."""
    pool, section = load(system)
    labels = group_labels(pool.names, pool.info)
    seed = which if isinstance(which, int) else SPLITS[0]
    if isinstance(which, int):
        order = np.random.default_rng(which).permutation(len(labels))
        fitted, tested = np.split(order, [round(SHARE * len(labels))])
    else:
        fitted, tested = np.flatnonzero(labels != which), np.flatnonzero(labels == which)
    fitted, tested = np.sort(fitted), np.sort(tested)
    train, test = weighted(pool.subset(fitted)), weighted(pool.subset(tested))
    start = time.process_time()
    objective = Objective(build_potential(section, rng=np.random.default_rng(seed)), train, LOSS, backend="cpu")
    potential = objective.potential_at(minimize(objective.evaluate, objective.x, "BFGS", ITERATIONS).x)
    del objective
    middle = time.process_time()
    own = shard(train, potential, Ranks())
    made = build(potential, own, Ranks(), "cpu", WEIGHTS, labels[fitted])
    seconds = {"fit": middle - start, "build": time.process_time() - middle}
    return Case(potential, made, own, train, test, labels[tested], seconds)


def measure(system: str, which: int | str) -> dict:
    """Fit one part of the data and look at the intervals of the other."""
    potential, made, own, _, test, labels, seconds = fit(system, which)
    structures = test.structures(potential)
    evaluator = create_evaluator("cpu", potential, structures, WEIGHTS)
    evaluator.predict(1.000001 * potential.parameters)  # lays out the memory
    times = [time.process_time()]
    prediction = evaluator.predict(potential.parameters)
    times.append(time.process_time())
    spreads = list(deviations(made, potential, "cpu", structures))
    times.append(time.process_time())
    n_atoms = structures.atoms_per_structure
    energies = np.add.reduceat(prediction.energies, structures.atom_offsets[:-1])
    found = {
        "machine": machine(), "date": str(date.today()), "version": pacehpc.__version__,
        "functions": potential.n_functions, "parameters": potential.n_parameters,
        "structures": [own.structures.n_structures, structures.n_structures], "seconds": seconds,
        "microseconds_per_atom": dict(zip(("forces", "sigma"), 1e6 * np.diff(times) / n_atoms.sum(), strict=True)),
    }  # fmt: skip
    values = {
        "energies": (
            (energies - structures.energy) / n_atoms,
            np.array([one.energy for one in spreads]) / n_atoms,
            np.ones_like(n_atoms),
        ),
        "forces": (
            (prediction.forces - structures.forces).ravel(),
            np.concatenate([one.forces.ravel() for one in spreads]),
            3 * n_atoms,
        ),
    }
    for kind, (errors, sigma, counts) in values.items():
        owners = np.repeat(labels, counts)
        structure = np.repeat(np.arange(len(labels)), counts)
        found[kind] = {"all": coverage(made, kind, errors, sigma, owners, structure)}
        for group in np.unique(owners):
            own = owners == group
            found[kind][group] = coverage(made, kind, errors[own], sigma[own], owners[own], structure[own])
    return found


def load(system: str) -> tuple[Dataset, dict]:
    """All structures, and the section `potential`."""
    if system == "ethanol":
        elements, files, rows, reference = ["C", "H", "O"], SHARED / "data" / "ethanol.pckl.gzip", slice(ETHANOL), None
        size, shape = 100, {"nradmax_by_orders": [8, 4, 2, 1], "lmax_by_orders": [0, 2, 1, 1]}
    else:
        files = [SHARED / "zuo2020" / f"{system}_{part}.extxyz.gz" for part in ("train", "test")]
        elements, rows, reference = [system], None, {system: FREE_ATOMS[system]}
        size, shape = 200, {"nradmax_by_orders": [16, 6, 4, 2], "lmax_by_orders": [0, 3, 2, 1]}
    section = {
        "elements": elements,
        "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}},
        "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": SYSTEMS[system], "dcut": 0.01}},
        "functions": {"number_of_functions_per_element": size, "ALL": shape | {"coefs_init": "random"}},
    }
    return load_dataset(files, elements=elements, rows=rows, reference_energy=reference), section


def coverage(
    made: Uncertainty, kind: str, errors: np.ndarray, sigma: np.ndarray, groups: np.ndarray, structures: np.ndarray
) -> dict:
    """Percentages of values within their intervals, and what says how wide these are."""
    scale = getattr(made, kind)
    counted = sigma > scale.sigma(scale.cut)
    errors, sigma, groups = np.abs(errors[counted]), sigma[counted], groups[counted]
    if not len(errors):
        return {"structures": 0}
    half = np.array([made.quantiles(kind, group) for group in groups]) * sigma[:, None]
    within = 100 * (errors[:, None] <= half).mean(0)
    return {
        "structures": len(np.unique(structures[counted])),
        "values": len(errors),
        "68": within[0],
        "90": within[1],
        "constant_90": 100 * float((errors <= 1.645 * scale.rmse).mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "width_over_error_90": float(np.median(half[:, 1]) / np.quantile(errors, 0.9)),
    }


def write_page(results: dict) -> None:
    """Put the tables between their marks in docs/uncertainty.md."""
    begin, end = "<!-- coverage -->", "<!-- end of coverage -->"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(begin)
    text = "\n".join(tables(results))
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def tables(results: dict) -> list[str]:
    """Lines of the page; figures that miss their bar are bold."""
    splits = {s: [results[f"{s} {k}"] for k in SPLITS if f"{s} {k}" in results] for s in SYSTEMS}
    lines = ["| | structures fitted, tested | forces, 68 and 90 % | energies, 68 and 90 % | kinds' forces, 90 % |"]
    lines.append("|" + " --- |" * 5)
    for system, cases in splits.items():
        if not cases:
            continue
        cells = []
        for kind in ("forces", "energies"):
            levels = {level: median(case[kind]["all"][level] for case in cases) for level in ("68", "90")}
            cells.append(", ".join(judged(v, float(k), BARS[f"{kind}_{k}"]) for k, v in levels.items()))
        groups = []
        for group in sorted({group for case in cases for group in case["forces"]} - {"all", "others"}):
            own = [case["forces"][group] for case in cases if group in case["forces"]]
            own = [one["90"] for one in own if one["structures"] >= LEAST]
            if own:
                bar = np.inf if group == ELASTIC else BARS["group"]
                groups.append(f"{group} {judged(median(own), 90, bar)}")
        fitted, tested = cases[0]["structures"]
        lines.append(f"| {system} | {fitted}, {tested} | {cells[0]} | {cells[1]} | {', '.join(groups) or '–'} |")
    lines += [
        "",
        "| left out of the fit | structures | forces, 90 % | with one width for all | width over 90 % of the errors "
        "| energies, 90 % |",
        "|" + " --- |" * 6,
    ]
    for system in SYSTEMS:
        for kind in LEFT_OUT:
            if f"{system} {kind}" in results:
                one, energies = (results[f"{system} {kind}"][values]["all"] for values in ("forces", "energies"))
                share = f"{one['90']:.0f}" if one["90"] >= LEAST_OF_LEFT_OUT else f"**{one['90']:.0f}**"
                lines.append(
                    f"| {system}: {kind} | {one['structures']} | {share} | {one['constant_90']:.0f} "
                    f"| {one['width_over_error_90']:.1f} | {energies['90']:.0f} |"
                )
    cost = {s: median(c["microseconds_per_atom"]["sigma"] for c in cases) for s, cases in splits.items() if cases}
    plain = {s: median(c["microseconds_per_atom"]["forces"] for c in splits[s]) for s in cost}
    fit = {s: [median(c["seconds"][k] for c in splits[s]) for k in ("fit", "build")] for s in cost}
    first = next(iter(results.values()))
    lines += [
        "",
        f"Per cent; medians of {min(len(splits[s]) for s in cost)} splits. σ of energy and forces takes "
        + ", ".join(f"{v:.0f} µs per atom ({s}, {v / plain[s]:.0f} times energy and forces)" for s, v in cost.items())
        + "; making the file "
        + ", ".join(f"{b:.0f} s after {a:.0f} s of fit ({s})" for s, (a, b) in fit.items())
        + f" (processor time of one core, {first['machine']['processor']}, {first['date']}).",
    ]
    return lines


def judged(value: float, level: float, bar: float) -> str:
    """A percentage, bold where it misses its level by more than the bar."""
    return f"{value:.0f}" if abs(value - level) <= bar else f"**{value:.0f}**"


if __name__ == "__main__":
    main()
