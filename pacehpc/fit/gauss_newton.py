"""GN-BFGS: BFGS whose inverse Hessian is renewed now and then by a damped, sketched Gauss-Newton one.

After some iterations of BFGS, and again after every so many more, the inverse Hessian is replaced by

    H0 = [2 (JᵀJ + R + μ W D)]⁻¹,    D = diag(JᵀJ) + R,    R = L2 + L1 / (2 |c|),

with a sketch of the Jacobian J of the weighted residuals at the present point (`pacehpc.sketch`), the diagonal R of the
L2 term and of a parabola that touches the L1 term from above (function coefficients alone), W = 1 for function
coefficients and `radial_damping` for radial ones; BFGS updates H0 from there. Loss and gradient stay exact. The damping
μ is found by probes: the smallest μ for which the short step -`probe` H0 g still lowers the loss. docs/optimizer.md
says why, with sources.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from pacehpc.errors import PacehpcError
from pacehpc.fit.bfgs import InverseHessian, Iterate
from pacehpc.fit.line_search import Function

if TYPE_CHECKING:
    from pacehpc.config.models import Fit

log = logging.getLogger("pacehpc")

SMALLEST = 1e-5  # |c| in R: smaller coefficients may cross zero
FLOOR = 1e-10  # of the largest entry of D: the least that damps a parameter
DECREASE = 1e-4  # of the linear prediction that a probe has to reach
FACTOR = 10.0  # between values of μ
FAILURES = 4  # renewals after failed line searches without a step between them; then the fit ends


@dataclass(frozen=True)
class Method:
    """Options of GN-BFGS beside those of BFGS; names and defaults as in `fit.options`."""

    start: int = 50
    """Iterations of BFGS before the first renewal."""
    renew: int = 100
    """Iterations from one renewal to the next, at least."""
    rows: float = 2.0
    """Rows of the sketch over parameters, where their cost allows."""
    combinations: int = 10
    """Of each structure's force and stress residuals, at most; more where structures are large and few."""
    renewal_cost: float = 30.0
    """Evaluations that a renewal may cost, as predicted."""
    mu: float = 1e-4
    """The first damping that is probed."""
    mu_min: float = 1e-10
    mu_max: float = 1e-2
    radial_damping: float = 100.0
    """Damping of radial over function coefficients."""
    probe: float = 0.1
    """Length of the probes, in units of H0 g."""


def split_options(options: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
    """`fit.options` of GN-BFGS as its own and those of BFGS."""
    own = {field.name for field in fields(Method)}
    method = Method(**{key: value for key, value in options.items() if key in own})
    return method, {key: value for key, value in options.items() if key not in own}


def renews(stage: Fit) -> bool:
    """Whether a minimisation with these settings is long enough for a renewal."""
    return stage.optimizer == "GN-BFGS" and stage.maxiter > split_options(stage.options)[0].start


class Damped(Protocol):
    """The matrix [2 (JᵀJ + diag(e))]⁻¹."""

    def __call__(self, g: np.ndarray) -> np.ndarray:
        """Its product with g, (n,)."""
        ...


class Curvature(Protocol):
    """JᵀJ of a sketch at one point."""

    squares: np.ndarray
    """(n,): its diagonal."""

    def damped(self, e: np.ndarray) -> Damped | None:
        """With a diagonal e > 0, (n,), added; None where that is not positive definite to round-off."""
        ...


class NormalMatrix:
    """JᵀJ as a matrix: for more rows than parameters."""

    def __init__(self, products: np.ndarray, scales: np.ndarray, squares: np.ndarray) -> None:
        """Take what `gram.gram` returns."""
        self._products, self._scales, self.squares = products, scales, squares

    def damped(self, e: np.ndarray) -> Damped | None:
        """See `Curvature`."""
        factor = self._products.copy(order="F")
        factor[np.diag_indices_from(factor)] += e * self._scales**2
        factor, info = dpotrf(factor, lower=1, clean=0, overwrite_a=1)
        if info != 0:
            return None
        scales = self._scales
        return lambda g: 0.5 * scales * dpotrs(factor, scales * g, lower=1)[0]


class Rows(Protocol):
    """The rows of J, wherever they are."""

    squares: np.ndarray
    """(n,): sum of squares of each column."""

    def times(self, v: np.ndarray) -> np.ndarray:
        """J v, (n_rows,)."""
        ...

    def transposed_times(self, w: np.ndarray) -> np.ndarray:
        """Jᵀ w, (n,)."""
        ...

    def weighted_gram(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """J diag(weights) Jᵀ as `gram.gram` returns it."""
        ...


class RowMatrix:
    """JᵀJ as the rows of J: for fewer rows than parameters, by Woodbury's formula."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self.squares = rows, rows.squares

    def damped(self, e: np.ndarray) -> Damped | None:
        """See `Curvature`."""
        rows, inverse = self._rows, 1.0 / e
        inner, scales, _ = rows.weighted_gram(inverse)
        inner[np.diag_indices_from(inner)] += scales**2
        factor, info = dpotrf(inner, lower=1, clean=0, overwrite_a=1)
        if info != 0:
            return None

        def product(g: np.ndarray) -> np.ndarray:
            v = inverse * g
            w = scales * dpotrs(factor, scales * rows.times(v), lower=1)[0]
            return 0.5 * (v - inverse * rows.transposed_times(w))

        return product


class Renewals:
    """The renewals of one minimisation: a function `renew` for `fit.bfgs.bfgs`, and what became of μ.

    Args:
        method: Options.
        interval: Iterations from one renewal to the next.
        curvature: (x (n,), number of the renewal) -> JᵀJ of a sketch at x.
        radial: Which parameters are radial coefficients, bool (n,).
        l1, l2: Factors of the sums of absolute values and of squares of the others in the loss.
    """

    def __init__(
        self,
        method: Method,
        interval: int,
        curvature: Callable[[np.ndarray, int], Curvature],
        radial: np.ndarray,
        l1: float,
        l2: float,
    ) -> None:
        self.method, self.interval, self._curvature = method, interval, curvature
        self._weights = np.where(radial, method.radial_damping, 1.0)
        self._l1, self._l2 = np.where(radial, 0.0, l1), np.where(radial, 0.0, l2)
        self.mu = method.mu
        self.count = 0
        self._due, self._failures, self._failed_at = method.start, 0, -1

    def renew(self, f: Function, iterate: Iterate, failed: bool) -> InverseHessian | None:
        """A new inverse Hessian where one is due or, with a larger μ, after a failed line search; else None.

        Args:
            f: x (n,) -> (loss, gradient); asked for the probes.
            iterate: Where BFGS stands.
            failed: Whether the last line search found no step.
        """
        if failed:
            self._failures = self._failures + 1 if self._failed_at == iterate.number else 1
            self._failed_at = iterate.number
            if self._failures > FAILURES:
                return None
            failed = self.count > 0  # before the first renewal there was no μ to blame
            if failed:
                self.mu = min(self.mu * FACTOR, self.method.mu_max)
        elif iterate.number < self._due:
            return None
        inverse = self._find(f, iterate, failed)
        log.info("Inverse Hessian renewed (%d): damping %.0e", self.count, self.mu)
        self._due = iterate.number + self.interval
        return InverseHessian(len(iterate.x), inverse)

    def _find(self, f: Function, iterate: Iterate, failed: bool) -> Damped:
        """H0 at this point: μ falls by one factor of 10 where the probe allows it, the first time by any number."""
        method = self.method
        curvature = self._curvature(iterate.x, self.count)
        if not np.isfinite(curvature.squares).all():
            raise PacehpcError("fit.optimizer GN-BFGS: derivatives of energies and forces are not finite.")
        first, self.count = self.count == 0, self.count + 1
        penalty = self._l2 + self._l1 / (2.0 * np.maximum(np.abs(iterate.x), SMALLEST))
        diagonal = curvature.squares + penalty
        diagonal = np.maximum(diagonal, max(FLOOR * diagonal.max(), np.finfo(float).tiny))

        def inverse(mu: float) -> Damped | None:
            return curvature.damped(penalty + mu * self._weights * diagonal)

        def lowers(damped: Damped | None) -> bool:
            if damped is None:
                return False
            step = method.probe * damped(iterate.gradient)
            slope = step @ iterate.gradient
            return bool(slope > 0 and f(iterate.x - step)[0] <= iterate.loss - DECREASE * slope)

        found = None
        if failed:
            pass  # it has just been raised
        elif first and not lowers(found := inverse(self.mu)):
            while self.mu < 0.99 * method.mu_max:
                self.mu *= FACTOR
                if lowers(found := inverse(self.mu)):
                    break
        else:
            while self.mu > 1.01 * method.mu_min and lowers(lower := inverse(self.mu / FACTOR)):
                self.mu, found = self.mu / FACTOR, lower
                if not first:
                    break
        found = inverse(self.mu) if found is None else found
        while found is None:  # not positive definite to round-off
            self.mu *= FACTOR
            found = inverse(self.mu)
        return found
