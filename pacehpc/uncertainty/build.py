"""Making an `Uncertainty`: the normal matrix over all ranks, its factor, and the calibration."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotrf

from pacehpc.backends.interface import LossWeights
from pacehpc.errors import PacehpcError
from pacehpc.gram import gram
from pacehpc.machine import available_memory, blas_threads_at_most
from pacehpc.objective import compile_on_nodes, compile_rows_on_nodes
from pacehpc.parallel import AgreedError, Ranks
from pacehpc.potential import Potential
from pacehpc.shard import Shard
from pacehpc.sketch import Sizes
from pacehpc.uncertainty.calibration import KINDS, LEVELS, LeftOut, Scale, calibrate, group_names
from pacehpc.uncertainty.leave_out import leave_out
from pacehpc.uncertainty.model import Uncertainty, potential_hash
from pacehpc.uncertainty.parts import Part, choose_rows, combined_parts, every_part

log = logging.getLogger("pacehpc")

DAMPING = 1e-6
"""Of the diagonal of JᵀJ."""
LEAST_DAMPING = 1e-14
"""Of the largest entry of the diagonal: for parameters on which no value depends."""


class Errors(NamedTuple):
    """Leave-one-out errors and variances of the values of a rank's structures."""

    structures: np.ndarray
    """Position in the data, (n_structures,)."""
    counts: np.ndarray
    """Values of each structure, the energy first, (n_structures,)."""
    errors: np.ndarray
    """(n_values,): NaN where no reference is known."""
    variances: np.ndarray
    """(n_values,)."""


def build(
    potential: Potential,
    shard: Shard,
    ranks: Ranks,
    backend: str,
    loss: LossWeights,
    labels: np.ndarray | None,
    trainable: np.ndarray | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Uncertainty | None:
    """Make the uncertainty of a potential from the data that it was fitted to. By all ranks together.

    Args:
        potential: the fitted one.
        shard: this rank's structures.
        ranks: who has the others.
        backend: that all ranks agreed on.
        loss: factors of the loss.
        labels: on the root, the group of each structure in the order of the data, (n_structures,) of str.
        trainable: which parameters were fitted, bool (n_parameters,); None: all.
        origin: what the file says of its origin; on the root.

    Returns:
        On the root; None on other ranks. The same bits on any number of ranks.

    Raises:
        PacehpcError: more parameters than fit into the memory, or derivatives that are not finite.
    """
    start = time.perf_counter()
    columns = np.ones(potential.n_parameters, bool) if trainable is None else trainable
    n, s = int(columns.sum()), shard.structures
    sizes = Sizes.of(s, len(potential.elements), shard.n_bonds, loss.stress > 0)
    choice = choose_rows(Sizes.added(ranks.gather_everywhere(sizes)), n)
    check_memory(choice.rows(sizes), n, ranks)
    before = ranks.gather_everywhere(s.n_structures)[: ranks.rank]
    stress = loss.stress > 0
    compile_on_nodes(backend, potential, ranks, LossWeights() if choice.every else loss, virials=stress)
    compile_rows_on_nodes(backend, potential, ranks, stress)
    with blas_threads_at_most(1):
        given = (potential, shard, backend, loss, columns)
        parts = list(every_part(*given) if choice.every else combined_parts(*given, choice.combinations, sum(before)))
        rows = np.concatenate([np.zeros((0, n)), *(part.rows for part in parts)])
        n_rows = int(ranks.sum(np.array([len(rows)]))[0])
        factor, scales = _factor(gram(rows, ranks), n, ranks)
        del rows
        positions = np.arange(s.n_structures) + sum(before) if shard.rows is None else shard.rows
        errors = ranks.gather(_left_out(parts, positions, factor, scales))

    def root() -> Uncertainty:
        found = _calibrated(errors, labels)
        about = dict(origin or {}) | {"structures": len(labels), "rows": n_rows, "matrix": str(choice)}
        about |= {"every_row": choice.every, "kappa": loss.kappa, "stress": loss.stress}
        made = Uncertainty(potential_hash(potential), columns, factor, scales, *found, about)
        _log(made, time.perf_counter() - start)
        return made

    return ranks.on_root(root)


def compile_for_deviations(backend: str, potential: Potential, ranks: Ranks) -> None:
    """Compile what `deviations` needs on one rank of each node. Called by all ranks together, before it."""
    compile_on_nodes(backend, potential, ranks, LossWeights())
    compile_rows_on_nodes(backend, potential, ranks)


def check_memory(n_rows: int, n: int, ranks: Ranks) -> None:
    """Raise PacehpcError on all ranks where one of them would need more memory than it may use.

    Args:
        n_rows: that this rank keeps.
        n: trainable parameters.
        ranks: all of them.
    """
    needed = 8.0 * (2 * n_rows * n + (4 if ranks.root else 2) * n**2)
    free = available_memory()
    allowed = np.inf if free is None else free / ranks.node_size
    found = ranks.gather_everywhere((needed, allowed))
    for rank, (needed, allowed) in enumerate(found):
        if needed > allowed:
            raise AgreedError(
                f"uncertainty: {n} parameters and {n_rows} rows of the Jacobian need {needed / 2**30:.1f} GiB on rank "
                f"{rank}, more than the {allowed / 2**30:.1f} GiB that it may use. Use more nodes, or fewer functions."
            )


def _factor(
    found: tuple[np.ndarray, np.ndarray, np.ndarray] | None, n: int, ranks: Ranks
) -> tuple[np.ndarray, np.ndarray]:
    """(L, scales) of the damped normal matrix on every rank."""

    def root() -> np.ndarray:
        products, scales, squares = found
        if not np.isfinite(squares).all():
            raise PacehpcError("uncertainty: derivatives of energies and forces are not finite.")
        damping = DAMPING * squares + max(LEAST_DAMPING * squares.max(initial=0.0), np.finfo(float).tiny)
        products[np.diag_indices_from(products)] += damping * scales**2
        factor, info = dpotrf(products, lower=1, clean=1, overwrite_a=1)
        if info != 0:
            raise PacehpcError(
                "uncertainty: the normal matrix has no factor to round-off: the data determine too few of the "
                "parameters. Use fewer functions or more data."
            )
        return factor

    factor = ranks.on_root(root)
    message = np.empty((n + 1, n))  # rows of Lᵀ, then scales
    if ranks.root:
        message[:n], message[n] = factor.T, found[1]
    ranks.receive(message, patiently=True)
    return message[:n].T, message[n].copy()


def _left_out(parts: Iterable[Part], positions: np.ndarray, factor: np.ndarray, scales: np.ndarray) -> Errors:
    """Errors of this rank's structures."""
    counts, errors, variances = [], [np.zeros(0)], [np.zeros(0)]
    for part in parts:
        white = solve_triangular(factor, (part.derivatives * scales).T, lower=True, check_finite=False)
        used, values = part.weights > 0, part.factors > 0
        found = leave_out(
            white[:, values] * part.factors[values],
            white[:, used] * part.weights[used],
            white @ part.gradient,
            part.errors[values],
        )
        counts.append(int(values.sum()))
        errors.append(found[0])
        variances.append(found[1])
    return Errors(positions, np.array(counts, int), np.concatenate(errors), np.concatenate(variances))


def _calibrated(parts: list[Errors], labels: np.ndarray) -> tuple[Scale | None, Scale | None, tuple[str, ...]]:
    """Scales of energies and forces, and the groups."""
    structures = np.concatenate([np.repeat(part.structures, part.counts) for part in parts])
    first = np.concatenate([np.cumsum(part.counts) - part.counts for part in parts])
    begins = np.cumsum([0, *(len(part.errors) for part in parts)])[:-1]
    first += np.repeat(begins, [len(part.counts) for part in parts])
    errors = np.concatenate([part.errors for part in parts])
    s = np.sqrt(np.concatenate([part.variances for part in parts]))
    is_energy = np.zeros(len(errors), bool)
    is_energy[first] = True
    order = np.argsort(structures, kind="stable")
    groups, scales = group_names(labels), []
    for kind in KINDS:
        chosen = order[(is_energy == (kind == "energies"))[order] & np.isfinite(errors[order])]
        scales.append(calibrate(LeftOut(errors[chosen], s[chosen], structures[chosen]), labels, groups))
    return *scales, groups


def _log(made: Uncertainty, seconds: float) -> None:
    log.info(
        "Uncertainty: %d rows of the Jacobian (%s), %d parameters; %.1f s",
        made.origin["rows"], made.origin["matrix"], len(made.scales), seconds,
    )  # fmt: skip
    for kind, unit, factor in (("energies", "meV/atom", 1e3), ("forces", "meV/Å", 1e3)):
        scale: Scale | None = getattr(made, kind)
        if scale is None:
            log.info("Uncertainty of %s: not known, the data have none", kind)
            continue
        factors = ", ".join(
            f"{100 * level:.0f} %: {q:.2f} σ" for level, q in zip(LEVELS, scale.quantiles[0], strict=True)
        )
        log.info(
            "Uncertainty of %s: errors of structures left out %.2f %s (RMSE), alpha %.3g, floor %.3g %s; intervals %s",
            kind, factor * scale.rmse, unit, scale.alpha, factor * scale.floor, unit, factors,
        )  # fmt: skip
