"""Another shape of σ, from parameter sets that are each optimal for one value of the data, and a mere distance.

    python benchmarks/pointwise.py

Swinburne and Perez, Mach. Learn.: Sci. Technol. 6, 015008 (2025): of each force i of the data the parameters that meet
it exactly at the least loss are δ_i = -r_i M⁻¹f_i / (f_iᵀM⁻¹f_i) away, and the spread of what these predict is an
uncertainty that knows of misspecification. Here its standard deviation, times a factor for which 90 % of the forces of
the data lie within it, stands beside the intervals of `fit.uncertainty`, on the left-out kinds of uncertainty.py. The
distance grade of `pacehpc activeset --distance` has no units; it is compared in how it ranks the errors.
Results go to benchmarks/results/pointwise.json.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
from evaluation import machine
from scipy.linalg import cholesky, solve_triangular
from scipy.stats import spearmanr
from uncertainty import LEFT_OUT, WEIGHTS, Case, fit

import pacehpc
from pacehpc.active.data_rows import DataRows
from pacehpc.active.distance import learn
from pacehpc.backends import create_evaluator
from pacehpc.parallel import Ranks
from pacehpc.uncertainty.parts import every_part
from pacehpc.uncertainty.rows import evaluator_maker, run_rows, runs

RESULTS = Path(__file__).parent / "results" / "pointwise.json"


def main() -> None:
    results = {"machine": machine(), "date": str(date.today()), "version": pacehpc.__version__}
    for system in ("Si", "Mo", "Ge"):
        for kind in LEFT_OUT:
            results[f"{system} {kind}"] = compare(fit(system, kind))
            print(system, kind, results[f"{system} {kind}"], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def compare(case: Case) -> dict:
    """Both intervals of the forces that were left out."""
    made, potential = case.made, case.potential
    products, factor_90 = pointwise(case)
    structures = case.test.structures(potential)
    prediction = create_evaluator("cpu", potential, structures, WEIGHTS).predict(potential.parameters)
    errors = np.abs(prediction.forces - structures.forces).ravel()
    make, s, spread = evaluator_maker(potential, "cpu"), [], []
    for run in runs(structures):
        piece = structures.select(run)
        for rows in run_rows(make(piece), piece, potential.parameters, stress=False):
            white = made.whitened(rows)[:, 1:]
            s.append(np.linalg.norm(white, axis=0))
            spread.append(np.linalg.norm(products.T @ white, axis=0))
    s, spread = np.concatenate(s), np.concatenate(spread)
    counted = s >= made.forces.cut
    halves = {
        "uncertainty": made.quantiles("forces", None)[1] * made.forces.sigma(s[counted]),
        "pointwise": factor_90 * spread[counted],
    }
    found = {name: judged(errors[counted], half) for name, half in halves.items()}
    return found | {"distance": {"rank": rank(errors[counted], np.repeat(distance_grades(case), 3)[counted])}}


def distance_grades(case: Case) -> np.ndarray:
    """Distances of the atoms that were left out from those of the fit, in the space of B functions."""
    rows = DataRows(case.train.atoms, case.potential, "cpu")
    distances = learn(rows.blocks, {element: case.train.n_atoms for element in case.potential.elements}, Ranks())
    left_out = DataRows(case.test.atoms, case.potential, "cpu").predictions(distances=distances)
    return np.concatenate([one.distances for one in left_out])


def pointwise(case: Case) -> tuple[np.ndarray, float]:
    """(P, factor): P Pᵀ the mean of δδᵀ in whitened parameters; the factor that covers 90 % of the data's forces."""
    made, whites, errors = case.made, [], []
    n = len(made.scales)
    products, count = np.zeros((n, n)), 0
    for part in every_part(case.potential, case.fitted, "cpu", WEIGHTS, made.trainable):
        white = solve_triangular(made.factor, (part.derivatives * made.scales).T, lower=True)[:, 1:]
        leverage = np.einsum("kv,kv->v", white, white)
        used = np.sqrt(leverage) >= made.forces.cut
        white, leverage, own = white[:, used], leverage[used], part.errors[1:][used]
        steps = white * (own / leverage)
        products += steps @ steps.T
        count += steps.shape[1]
        whites.append(white)
        errors.append(np.abs(own))
    products = products / count
    products[np.diag_indices(n)] += 1e-14 * np.trace(products) / n
    root = cholesky(products, lower=True)
    scores = np.concatenate([own / np.linalg.norm(root.T @ w, axis=0) for own, w in zip(errors, whites, strict=True)])
    return root, float(np.quantile(scores, 0.9))


def judged(errors: np.ndarray, half: np.ndarray) -> dict[str, float]:
    """Percentage within, width over what would have been needed, rank correlation of errors with widths."""
    return {
        "90": 100 * float((errors <= half).mean()),
        "width_over_error_90": float(np.median(half) / np.quantile(errors, 0.9)),
        "rank": rank(errors, half),
    }


def rank(errors: np.ndarray, measure: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(errors, measure)[0])


if __name__ == "__main__":
    main()
