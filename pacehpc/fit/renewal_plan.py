"""How many rows the renewals of GN-BFGS have, and how often they come.

All of it follows from the potential and the data by counting operations, never from a clock, so that a fit takes the
same path on any number of ranks and after any restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pacehpc.backends.costs import evaluation_operations
from pacehpc.errors import PacehpcError
from pacehpc.fit.gauss_newton import Curvature, Method, NormalMatrix, Renewals, RowMatrix
from pacehpc.fit.optimizers import MEMORY_SHARE
from pacehpc.machine import total_memory
from pacehpc.report.lines import counted, size_text
from pacehpc.sketch import RowPlan, Sizes

if TYPE_CHECKING:
    from pacehpc.objective import Objective
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

# Operations a second on one core with AVX-512: of matrix products whose sums are integers, and of the kernels by their
# own count (see backends.costs). Their ratio alone matters.
PRODUCTS, KERNELS = 30e9, 22e9
NORMAL_FROM = 0.7  # rows over parameters from which the normal matrix costs less operations than Woodbury's formula
FACTORISATIONS = 2.5  # of a renewal: values of μ that are tried
FIRST_PASS, PER_ROW = 0.5, 0.5  # evaluations that the rows of a renewal take: together, and for each row of a structure
FEWEST_GROUPS = 64  # of structures whose rows are added
ADDED = 0.5  # rows that are sums over structures, over those that each see one, for the same fit
MANY_PASSES = 200  # second passes that would be too many for n rows: large structures alone add enough in each
DEAR = 2.0  # cost of a renewal on the ranks of now, over that on one rank, from which the log says so
COST_SHARE = 4.0  # iterations from one renewal to the next, at least, over its cost in evaluations


@dataclass(frozen=True)
class RenewalPlan:
    """What a renewal computes."""

    rows: RowPlan
    n_rows: int
    """About: groups of structures end with their virtual shards."""
    products: bool
    """Whether all ranks form JᵀJ; else the root takes the rows themselves (Woodbury)."""
    cost: float
    """Predicted, in evaluations of one rank."""
    serial: float
    """Of these, what the first rank does alone, so that it weighs more the more ranks there are."""
    interval: int
    """Iterations from one renewal to the next."""
    reduced: bool
    """Fewer rows than asked for, because of their cost or memory."""


def plan_renewals(
    method: Method, n: int, sizes: Sizes, operations: float, energies: bool, forces: bool, memory: float = np.inf
) -> RenewalPlan:
    """Choose the rows.

    At least `method.rows` times n: of every structure the energy and as few combinations of forces as make so many, up
    to `method.combinations`, and beyond, up to n rows, where structures are large. Where there are more structures than
    that, rows of several are added, down to about half as many. Fewer where they cost more than `method.renewal_cost`,
    or take more than the memory.

    Args:
        method: Options.
        n: Trainable parameters.
        sizes: Structures of all ranks.
        operations: Of the kernels in one evaluation.
        energies, forces: Whether the loss has energies, and forces or stress.
        memory: Bytes that the root may use.

    Raises:
        PacehpcError: where even few rows take more memory.
    """
    candidates = _candidates(method, n, sizes, energies, forces)
    costs = [sum(_costs(count, n, rows, operations)) for count, rows in candidates]
    possible = [k for k, (count, _) in enumerate(candidates) if renewal_memory(count, n, method.renew) <= memory]
    if not possible:
        least = candidates[0][0]
        raise PacehpcError(
            f"fit.optimizer GN-BFGS: {n} parameters and {least} rows of the Jacobian need "
            f"{renewal_memory(least, n, method.renew) / 2**30:.1f} GiB, more than the {memory / 2**30:.1f} GiB that "
            "it may use here. Use `optimizer: L-BFGS-B` (for instance with `options: {maxcor: 100}`)."
        )
    cheap = [k for k in possible if costs[k] <= method.renewal_cost]
    chosen = max(cheap) if cheap else possible[0]
    count, rows = candidates[chosen]
    interval = max(method.renew, round(COST_SHARE * costs[chosen]))
    serial, _ = _costs(count, n, rows, operations)
    return RenewalPlan(rows, count, _products(count, n), costs[chosen], serial, interval, chosen < len(candidates) - 1)


def _candidates(method: Method, n: int, sizes: Sizes, energies: bool, forces: bool) -> list[tuple[int, RowPlan]]:
    """(rows, how they are made), from few rows to as many as are wanted."""
    n_structures, wanted = sizes.n_structures, method.rows * n

    def separate(q: int) -> tuple[int, RowPlan]:
        return energies * n_structures + sizes.rows(q), RowPlan(q, 1, energies)

    kinds = int(energies) + int(forces)
    separated = kinds * n_structures <= wanted
    least = 1 if separated else int(np.ceil(kinds * n_structures / (ADDED * wanted)))
    most = max(least, n_structures // FEWEST_GROUPS)
    added = np.unique(np.geomspace(most, least, 20).round().astype(int))[::-1]
    found = [(kinds * -(-n_structures // int(g)), RowPlan(int(forces), int(g), energies)) for g in added if g > 1]
    if not separated:
        return found
    q = int(forces)
    found.append(separate(q))
    while forces and found[-1][0] < wanted and q < sizes.residuals.max(initial=0):
        q += 1
        further = separate(q)
        if q > method.combinations and (found[-1][0] >= n or further[0] - found[-1][0] < n / MANY_PASSES):
            break
        found.append(further)
    return found


def _products(count: int, n: int) -> bool:
    """Whether the normal matrix costs less than Woodbury's formula."""
    return count > NORMAL_FROM * n


def _costs(count: int, n: int, rows: RowPlan, operations: float) -> tuple[float, float]:
    """Of a renewal, in evaluations: what the first rank does alone, what is spread over the ranks."""
    factors = FACTORISATIONS * (n if _products(count, n) else count) ** 3 / 3
    products = count * n**2 if _products(count, n) else FACTORISATIONS * count**2 * n
    passes = FIRST_PASS + PER_ROW * (rows.energies + rows.combinations)
    unit = KERNELS / PRODUCTS / operations
    return factors * unit, passes + products * unit


def renewal_memory(count: int, n: int, interval: int) -> int:
    """Bytes of rows, matrices (the one, and the factors of two values of μ and of before) and updates on the root."""
    matrices = 4 * n * n if _products(count, n) else 3 * count * count
    return 8 * (2 * count * n + matrices + 2 * n * (interval + 1))  # the rows of the node's other ranks, too


def plan_of(objective: Objective, method: Method) -> RenewalPlan:
    """The plan of an objective, said in the log. On the root; raises PacehpcError where memory does not suffice."""
    plan = plan_for(
        method, objective.potential, len(objective.x), objective.sizes, objective.kappa, objective.loss["stress"]
    )
    here = plan.cost - plan.serial + plan.serial * objective.ranks.size
    if here > DEAR * max(plan.cost, 1.0):
        log.info(
            "GN-BFGS: on %d ranks a renewal costs about %.0f evaluations, because factorisations are the first rank's: "
            "a smaller options.renewal_cost pays",
            objective.ranks.size, here,
        )  # fmt: skip
    return plan


def plan_for(method: Method, potential: Potential, n: int, sizes: Sizes, kappa: float, stress: float) -> RenewalPlan:
    """The same from a potential, its number n of trainable parameters, the data, and factors of the loss."""
    operations = evaluation_operations(potential, sizes.n_bonds, sizes.species)
    energies, forces = kappa < 1.0, kappa > 0.0 or stress > 0.0
    plan = plan_renewals(method, n, sizes, operations, energies, forces, MEMORY_SHARE * total_memory())
    parts = ["the energy"] * energies + [f"{counted(plan.rows.combinations, 'combination')} of forces"] * forces
    of = "each structure" if plan.rows.together == 1 else f"each {plan.rows.together} structures, added"
    log.info(
        "GN-BFGS: a renewal has about %d rows for %d parameters (%s of %s), costs about %.1f evaluations and comes "
        "after %d iterations; %s, %s",
        plan.n_rows, n, " and ".join(parts), of, plan.cost, plan.interval,
        "normal matrix" if plan.products else "Woodbury's formula",
        size_text(renewal_memory(plan.n_rows, n, plan.interval)),
    )  # fmt: skip
    if plan.reduced:
        log.info(
            "GN-BFGS: these are fewer rows than %g times the parameters (options.rows): more would cost more than %g "
            "evaluations (options.renewal_cost), or take too much memory",
            method.rows, method.renewal_cost,
        )  # fmt: skip
    return plan


def renewals_of(
    objective: Objective,
    method: Method,
    plan: RenewalPlan,
    seed: int,
    before: Callable[[], None] = lambda: None,
) -> Renewals:
    """The renewals of a minimisation of the objective, on the root; before: called before each of them."""

    def curvature(x: np.ndarray, number: int) -> Curvature:
        before()
        if plan.products:
            return NormalMatrix(*objective.products(x, plan.rows, seed, number))
        return RowMatrix(objective.sketch(x, plan.rows, seed, number))

    n_radial = sum(c.size for c in objective.potential.radcoefficients.values())
    radial = np.flatnonzero(objective.trainable) < n_radial
    l1, l2 = float(objective.loss["L1_coeffs"]), float(objective.loss["L2_coeffs"])
    return Renewals(method, plan.interval, curvature, radial, l1, l2)
