"""Time of the linear algebra of GN-BFGS, and a model of its iterations on machines that are not here.

Used by scaling.py. Matrix products with sums as integers, factorisations, solutions and products with spread columns
are measured on one core, in processor time; who does them, and how often, is what `fit.renewal_plan` decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from pacehpc import Potential, Ranks
from pacehpc.backends.costs import evaluation_operations
from pacehpc.fit import renewal_plan
from pacehpc.fit.gauss_newton import Method, NormalMatrix
from pacehpc.gram import BLOCK, gram
from pacehpc.sketch import Sizes
from pacehpc.spread_columns import SpreadColumns
from pacehpc.structures import Structures

ROWS, COLUMNS = 2048, 1500  # of what is timed


def rates(seconds: float) -> dict[str, float]:
    """Operations and bytes per second on this core."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(ROWS, COLUMNS))
    with threadpool_limits(1, user_api="blas"):
        formed = fastest(lambda: gram(rows.copy(), Ranks()), seconds)
        matrix = NormalMatrix(*gram(rows.copy(), Ranks()))
        e = 1e-4 * matrix.squares
        factored = fastest(lambda: matrix.damped(e), seconds)
        damped, g = matrix.damped(e), rng.normal(size=COLUMNS)
        solved = fastest(lambda: damped(g), seconds / 4)
        columns = SpreadColumns(rows, Ranks())
        w = rng.normal(size=ROWS)
        multiplied = fastest(lambda: (columns.times(g), columns.transposed_times(w)), seconds / 4)
    return {
        "products_per_s": ROWS * COLUMNS**2 / formed,
        "factor_per_s": COLUMNS**3 / 3 / factored,
        "solve_bytes_per_s": 8 * COLUMNS**2 / solved,
        "columns_bytes_per_s": 16 * ROWS * COLUMNS / multiplied,
    }


def fastest(call: Callable[[], object], seconds: float) -> float:
    """Least processor time of a call, of those that fit into so many seconds of it, three at least."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def work(potential: Potential, structures: Structures) -> dict[str, float]:
    """Operations of an atom in an evaluation, by the count that plans renewals, and residuals of a structure."""
    species = np.bincount(structures.species, minlength=len(potential.elements))
    operations = evaluation_operations(potential, structures.n_bonds, species)
    return {"operations_per_atom": operations / structures.n_atoms}


def predicted(terms: dict, seconds: dict[str, float], atoms: int, ranks: int) -> dict:
    """Seconds of each part of an iteration of GN-BFGS, from those of BFGS, and the share that evaluates.

    terms: of scaling.py, with `rates` and `work`. seconds: of an iteration of BFGS, by part.
    """
    n, latency, bandwidth = terms["parameters"], terms["latency_s"], terms["bytes_per_s"]
    of_structure = terms["atoms_of_structure"]
    sizes = Sizes(
        np.array([round(3 * of_structure)]), np.array([max(1, round(atoms / of_structure))]), np.array([atoms]), 0
    )
    plan = renewal_plan.plan_renewals(Method(), n, sizes, terms["operations_per_atom"] * atoms, True, True)
    m, tries = plan.n_rows, renewal_plan.FACTORISATIONS
    rows_of_structure = plan.rows.energies + plan.rows.combinations
    passes = renewal_plan.FIRST_PASS + renewal_plan.PER_ROW * rows_of_structure
    steps = np.ceil(np.log2(ranks))
    if plan.products:
        formed = m * n**2 / terms["products_per_s"] / min(ranks, max(1, m // BLOCK))
        factored = tries * n**3 / 3 / terms["factor_per_s"]
        product, messages = 8 * n**2 / terms["solve_bytes_per_s"], 0.0
        moved = 8 * n**2 / 2
    else:
        share = min(ranks, max(1, n // BLOCK))
        formed = tries * m**2 * n / terms["products_per_s"] / share
        factored = tries * m**3 / 3 / terms["factor_per_s"]
        product = 16 * m * n / terms["columns_bytes_per_s"] / share + 8 * m**2 / terms["solve_bytes_per_s"]
        messages = 4 * 2 * steps * latency + 8 * (2 * n + 3 * m + n) / bandwidth
        moved = tries * 8 * m**2 / 2
    renewal = passes * seconds["evaluation"] + formed + factored + moved / bandwidth
    parts = dict(seconds)
    parts["optimizer"] = product + messages + terms["optimizer_s"]
    parts["renewals"] = renewal / plan.interval
    total = sum(parts.values())
    others = {name: value for name, value in parts.items() if name != "evaluation"}
    return {
        "seconds": parts,
        "efficiency": parts["evaluation"] / total,
        "limit": max(others, key=others.get),
        "rows_of_sketch": m,
        "renewal_evaluations": renewal / (sum(seconds.values())),
        "over_bfgs": total / sum(seconds.values()),
    }
