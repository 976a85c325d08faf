"""Another shape of σ, from parameter sets that are each optimal for one value of the data, and a mere distance.

    python benchmarks/pointwise.py

Swinburne and Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025): of each force i of the data the parameters that meet
it exactly at the least loss are δ_i = -r_i M⁻¹f_i / (f_iᵀM⁻¹f_i) away, and the spread of what these predict is an
uncertainty that knows of misspecification. Here its standard deviation stands beside σ of `fit.uncertainty`, with
intervals made in the same way, from errors of structures that were left out: on the left-out kinds of uncertainty.py
and on its first splits at random. The distance grade of `pacehpc activeset --distance` has no units; it is compared in
how it ranks the errors of left-out kinds. Results go to benchmarks/results/pointwise.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
from evaluation import machine
from scipy.linalg import cholesky, solve_triangular
from scipy.stats import spearmanr
from uncertainty import LEFT_OUT, SPLITS, SYSTEMS, WEIGHTS, Case, fit

import pacehpc
from pacehpc.active.data_rows import DataRows
from pacehpc.active.distance import learn
from pacehpc.backends import create_evaluator
from pacehpc.dataset.groups import group_labels
from pacehpc.parallel import Ranks
from pacehpc.uncertainty.calibration import LEAST, LeftOut, conformal
from pacehpc.uncertainty.leave_out import leave_out
from pacehpc.uncertainty.parts import Part, every_part
from pacehpc.uncertainty.rows import evaluator_maker, run_rows, runs

RESULTS = Path(__file__).parent / "results" / "pointwise.json"


def main() -> None:
    results = {"machine": machine(), "date": str(date.today()), "version": pacehpc.__version__}
    cases = [(system, kind) for system in ("Si", "Mo", "Ge") for kind in LEFT_OUT]
    for system, which in [*cases, *((system, SPLITS[0]) for system in SYSTEMS)]:
        found = compare(fit(system, which), with_distance=which in LEFT_OUT)
        results[f"{system} {which}"] = found
        print(system, which, found, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def compare(case: Case, with_distance: bool) -> dict:
    """Both intervals of the forces that were not fitted."""
    made, potential = case.made, case.potential
    root, labels, groups = spread_of_optima(case), group_labels(case.train.names, case.train.info), made.groups
    left_out, own_spread = left_out_forces(case, root)
    structures = case.test.structures(potential)
    prediction = create_evaluator("cpu", potential, structures, WEIGHTS).predict(potential.parameters)
    errors = np.abs(prediction.forces - structures.forces).ravel()
    make, s, spread = evaluator_maker(potential, "cpu"), [], []
    for run in runs(structures):
        piece = structures.select(run)
        for rows in run_rows(make(piece), piece, potential.parameters, stress=False):
            white = made.whitened(rows)[:, 1:]
            s.append(np.linalg.norm(white, axis=0))
            spread.append(np.linalg.norm(root.T @ white, axis=0))
    s, spread = np.concatenate(s), np.concatenate(spread)
    counted = s >= made.forces.cut
    own = np.repeat(case.labels, 3 * structures.atoms_per_structure)[counted]
    scores = np.abs(left_out.errors) / own_spread
    factors = dict.fromkeys(np.unique(own), conformal(scores)[1])
    for group in groups:
        of_group = labels[left_out.structures] == group
        if len(np.unique(left_out.structures[of_group])) >= LEAST:
            factors[group] = conformal(scores[of_group])[1]
    halves = {
        "uncertainty": np.array([made.quantiles("forces", group)[1] for group in own]) * made.forces.sigma(s[counted]),
        "pointwise": np.array([factors[group] for group in own]) * spread[counted],
    }
    measures = {"uncertainty": made.forces.sigma(s[counted]), "pointwise": spread[counted]}
    found = {name: judged(errors[counted], half, measures[name]) for name, half in halves.items()}
    if with_distance:
        found["distance"] = {"rank": rank(errors[counted], np.repeat(distance_grades(case), 3)[counted])}
    return found


def distance_grades(case: Case) -> np.ndarray:
    """Distances of the atoms that were left out from those of the fit, in the space of B functions."""
    rows = DataRows(case.train.atoms, case.potential, "cpu")
    distances = learn(rows.blocks, {element: case.train.n_atoms for element in case.potential.elements}, Ranks())
    left_out = DataRows(case.test.atoms, case.potential, "cpu").predictions(distances=distances)
    return np.concatenate([one.distances for one in left_out])


def parts(case: Case) -> Iterator[tuple[Part, np.ndarray]]:
    """Of the structures of the fit, with their derivatives in whitened parameters, (n, values)."""
    made = case.made
    for part in every_part(case.potential, case.fitted, "cpu", WEIGHTS, made.trainable):
        yield part, solve_triangular(made.factor, (part.derivatives * made.scales).T, lower=True)


def spread_of_optima(case: Case) -> np.ndarray:
    """P, with P Pᵀ the mean of δδᵀ in whitened parameters."""
    n = len(case.made.scales)
    products, count = np.zeros((n, n)), 0
    for part, white in parts(case):
        leverage = np.einsum("kv,kv->v", white, white)
        used = np.sqrt(leverage) >= case.made.forces.cut
        used[0] = False
        steps = white[:, used] * (part.errors[used] / leverage[used])
        products += steps @ steps.T
        count += steps.shape[1]
    products = products / count
    products[np.diag_indices(n)] += 1e-14 * np.trace(products) / n
    return cholesky(products, lower=True)


def left_out_forces(case: Case, root: np.ndarray) -> tuple[LeftOut, np.ndarray]:
    """Forces of structures of the fit that were left out in turn, and their spread."""
    found = []
    for k, (part, white) in enumerate(parts(case)):
        rows = white[:, part.weights > 0] * part.weights[part.weights > 0]
        errors, variances = leave_out(white * part.factors, rows, white @ part.gradient, part.errors)
        spread = np.linalg.norm(root.T @ white, axis=0)
        found.append(np.stack([errors, np.sqrt(variances), np.full(len(errors), k), spread])[:, 1:])
    errors, s, structures, spread = np.concatenate(found, axis=1)
    used = s >= case.made.forces.cut
    return LeftOut(errors[used], s[used], structures[used].astype(int)), spread[used]


def judged(errors: np.ndarray, half: np.ndarray, measure: np.ndarray) -> dict[str, float]:
    """Percentage within, width over what would have been needed, rank correlation of errors with a measure of them."""
    return {
        "90": 100 * float((errors <= half).mean()),
        "width_over_error_90": float(np.median(half) / np.quantile(errors, 0.9)),
        "rank": rank(errors, measure),
    }


def rank(errors: np.ndarray, measure: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(errors, measure)[0])


if __name__ == "__main__":
    main()
