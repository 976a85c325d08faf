"""Time of the linear algebra of GN-BFGS, and a model of its iterations on machines that are not here.

Used by scaling.py. Matrix products with sums as integers, factorisations, solutions and products with spread columns
are measured on one core, in processor time, and so are rows of the Jacobian; who does them, and how often, is what
`fit.renewal_plan` decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import rows
from evaluation import SHARED
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
STRUCTURES = 20  # whose rows are timed
SPREAD = 0.5  # of the ranks' speed that a factorisation on all of them would have
RENEWAL = ("rows", "products", "blocks", "factorisation", "matrix")


def rates(seconds: float) -> dict[str, float]:
    """Operations and bytes per second on this core."""
    rng = np.random.default_rng(0)
    matrix_of_rows = rng.normal(size=(ROWS, COLUMNS))
    with threadpool_limits(1, user_api="blas"):
        formed = fastest(lambda: gram(matrix_of_rows.copy(), Ranks()), seconds)
        matrix = NormalMatrix(*gram(matrix_of_rows.copy(), Ranks()))
        e = 1e-4 * matrix.squares
        factored = fastest(lambda: matrix.damped(e), seconds)
        damped, g = matrix.damped(e), rng.normal(size=COLUMNS)
        solved = fastest(lambda: damped(g), seconds / 4)
        columns = SpreadColumns(matrix_of_rows, Ranks())
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


def work(name: str, potential: Potential, structures: Structures, seconds: float) -> dict[str, float]:
    """Operations of an atom in an evaluation, by the count that plans renewals, and the cost of rows, measured.

    Rows are of a part of the structures; `first_pass` and `per_row` are in evaluations.
    """
    species = np.bincount(structures.species, minlength=len(potential.elements))
    operations = evaluation_operations(potential, structures.n_bonds, species)
    few, many = 1, 5
    path = SHARED / "bench" / f"{name}.yaml"
    measured = rows.measure(path, SHARED / "data", [few, many], seconds, STRUCTURES)["rows"]
    per_row = (measured[many]["evaluations"] - measured[few]["evaluations"]) / (many - few)
    return {
        "operations_per_atom": operations / structures.n_atoms,
        "per_row": per_row,
        "first_pass": measured[few]["evaluations"] - (few + 1) * per_row,
    }


def predicted(
    terms: dict,
    seconds: dict[str, float],
    atoms: int,
    ranks: int,
    renewal_cost: float = Method.renewal_cost,
    spread: bool = False,
) -> dict:
    """Seconds of each part of an iteration of GN-BFGS, renewals shared out over the iterations between them.

    Args:
        terms: of scaling.py, with `rates` and `work`.
        seconds: of an iteration of BFGS, by part.
        atoms, ranks: of the run.
        renewal_cost: option of GN-BFGS.
        spread: what no program here does: the factorisation and the products with its result on all ranks, at half of
            what their cores could do.

    Returns:
        Seconds by part; the share of the ranks' time that is work shared out evenly ("efficiency"); the largest part of
        the rest ("limit"); the cost of a renewal in iterations of BFGS, and that of an iteration over one of BFGS.
    """
    n, latency, bandwidth = terms["parameters"], terms["latency_s"], terms["bytes_per_s"]
    of_structure = terms["atoms_of_structure"]
    sizes = Sizes(
        np.array([round(3 * of_structure)]), np.array([max(1, round(atoms / of_structure))]), np.array([atoms]), 0
    )
    method = Method(renewal_cost=renewal_cost)
    plan = renewal_plan.plan_renewals(method, n, sizes, terms["operations_per_atom"] * atoms, True, True)
    m, tries = plan.n_rows, renewal_plan.FACTORISATIONS
    passes = terms["first_pass"] + terms["per_row"] * (plan.rows.energies + plan.rows.combinations)
    steps = np.ceil(np.log2(ranks))
    if plan.products:
        work, size, shares = m * n**2, n, max(1, m // BLOCK)
        product, messages = 8 * n**2 / terms["solve_bytes_per_s"], 0.0
    else:
        work, size, shares = tries * m**2 * n, m, max(1, n // BLOCK)
        product = 16 * m * n / terms["columns_bytes_per_s"] / min(ranks, shares) + 8 * m**2 / terms["solve_bytes_per_s"]
        messages = 4 * 2 * steps * latency + 8 * (2 * n + 3 * m + n) / bandwidth
    ideal = work / terms["products_per_s"] / ranks
    factored = tries * size**3 / 3 / terms["factor_per_s"]
    moved = (1 if plan.products else tries) * 8 * size**2 / 2 / bandwidth
    if spread:
        over = max(1.0, SPREAD * min(ranks, max(1, size // BLOCK)))
        factored, product = factored / over, product / over
        messages += 2 * 2 * steps * latency + 2 * 8 * size / bandwidth
        moved /= over
    parts = dict(seconds)
    parts["optimizer"] = product + messages + terms["optimizer_s"]
    parts["rows"] = passes * seconds["evaluation"] / plan.interval
    parts["products"] = ideal / plan.interval
    parts["blocks"] = ideal * (ranks / min(ranks, shares) - 1) / plan.interval
    parts["factorisation"] = factored / plan.interval
    parts["matrix"] = moved / plan.interval
    shared = {name: parts.pop(name) for name in ("evaluation", "rows", "products")}
    total = sum(shared.values()) + sum(parts.values())
    renewal = plan.interval * sum(value for name, value in (parts | shared).items() if name in RENEWAL)
    return {
        "seconds": shared | parts,
        "efficiency": sum(shared.values()) / total,
        "limit": max(parts, key=parts.get),
        "rows_of_sketch": m,
        "renewal_evaluations": renewal / sum(seconds.values()),
        "over_bfgs": total / sum(seconds.values()),
    }
