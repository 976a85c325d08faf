"""BFGS with an update of the inverse Hessian in O(n²).

The update of the inverse Hessian H (J. Nocedal, S. Wright, Numerical Optimization, eq. 6.17) has a rank-2 form: with
s = x' - x, y = g' - g, ρ = 1/(y·s), v = H y,

    H' = H + s uᵀ + u sᵀ,   u = ½ρ(1 + ρ y·v) s - ρ v

H g is known from the step before (the direction is -H g), so H g' gives both v = H g' - H g and the next direction
-(H g' + s u·g' + u s·g'): one product with H per iteration. k updates are 2k vectors: that is how H is kept (4kn
operations a product, 2kn numbers) until a matrix costs less, k > n/4; then as one symmetric matrix, read by one dsymv
per iteration, and the vectors of the last updates, which one dsyr2k adds to the matrix when they are `TERMS`: a dsyr2
per iteration would read and write the matrix once more. Stopping rules, trial points of the line search and, to
round-off, iterates are those of scipy.optimize.minimize(method="BFGS"), which multiplies n×n matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dsymv, dsyr2k

from pacehpc.fit.line_search import Function, strong_wolfe

TERMS = 64  # updates of the inverse Hessian in one array
DENSE_FROM = 0.25  # updates over parameters from which the inverse Hessian is a matrix
PRECISION_REACHED = "no lower loss found along the search direction (precision of the loss reached)"


@dataclass
class Iterate:
    """Where BFGS stands before a line search."""

    x: np.ndarray
    """(n,)"""
    loss: float
    gradient: np.ndarray
    """(n,)"""
    number: int
    """Finished iterations."""


def bfgs(
    f: Function,
    x: np.ndarray,
    step: Callable[[np.ndarray], None],
    maxiter: int,
    gtol: float = 1e-5,
    norm: float = np.inf,
    xrtol: float = 0.0,
    c1: float = 1e-4,
    c2: float = 0.9,
    renew: Callable[[Iterate, bool], InverseHessian | None] | None = None,
) -> str:
    """Minimise f from x.

    Args:
        f: x (n,) -> (loss, gradient (n,)). No point is asked for twice, but for the start where `renew` asks.
        x: start, (n,).
        step: called with x (n,) after each iteration; what it raises ends the minimisation.
        maxiter: iterations at most.
        gtol: stop where the norm of the gradient (of order `norm`) is below.
        xrtol: stop where a step is below this part of x.
        c1, c2: of the line search.
        renew: called with (iterate, False) before each line search and with (iterate, True) after one that failed; an
            inverse Hessian that it returns takes the place of the present one, with -H g as the next direction and 1
            as its first trial length. None keeps the present one, or, after a failed search, ends the minimisation.

    Returns:
        Why it ended.
    """
    loss, g = f(x)
    previous = loss + np.linalg.norm(g) / 2  # a first step of about 1
    inverse = InverseHessian(len(x))
    p = -g
    for number in range(maxiter):
        if np.linalg.norm(g, norm) <= gtol:
            return f"gradient below gtol = {gtol:g}"
        failed = False
        while True:
            new = None if renew is None else renew(Iterate(x, loss, g, number), failed)
            if new is not None:
                inverse, p = new, -new.product(g)
                previous = loss + abs(g @ p) / 2
            elif failed:
                return PRECISION_REACHED
            found = strong_wolfe(f, x, p, loss, g, previous, c1, c2)
            if found is not None:
                break
            failed = True
        s = found.length * p
        x, previous, loss = x + s, loss, float(found.loss)
        y, g = found.gradient - g, found.gradient
        step(x)
        if np.linalg.norm(g, norm) <= gtol:
            return f"gradient below gtol = {gtol:g}"
        if found.length * np.linalg.norm(p) <= xrtol * (xrtol + np.linalg.norm(x)):
            return f"step below xrtol = {xrtol:g}"
        ys = y @ s
        rho = 1.0 / ys if ys != 0.0 else 1000.0
        p = inverse.update(s, y, g, p, rho)
    return "maximum number of iterations reached"


class InverseHessian:
    """The symmetric matrix H = H0 + Σ_k (s_k u_kᵀ + u_k s_kᵀ): its vectors, or, when they are many, its entries.

    Args:
        n: number of parameters.
        start: the product g (n,) -> H0 g (n,); None: H0 = 1. With a product, all vectors are kept: for runs of few
            updates (at most n/4).

    Attributes:
        entries: (n, n), of H0 and all terms but the last ones, in Fortran order, the upper triangle counts; None as
            long as all vectors are kept.
    """

    def __init__(self, n: int, start: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.n = n
        self.entries: np.ndarray | None = None
        self._start = start
        self._terms: list[tuple[np.ndarray, np.ndarray]] = []  # (s, u) of TERMS updates each, (TERMS, n)
        self._count = 0

    def update(self, s: np.ndarray, y: np.ndarray, g: np.ndarray, p: np.ndarray, rho: float) -> np.ndarray:
        """H' of the step s; returns the next direction -H' g, (n,).

        Args:
            s, y: change of x and of the gradient, (n,).
            g: new gradient, (n,).
            p: last direction, -H times the gradient before, (n,).
            rho: 1/(y·s).
        """
        hg = self.product(g)
        v = hg + p
        u = (0.5 * rho * (1.0 + rho * (y @ v))) * s - rho * v
        self._add(s, u)
        return -(hg + (u @ g) * s + (s @ g) * u)

    def product(self, g: np.ndarray) -> np.ndarray:
        """H g, (n,)."""
        if self._start is not None:
            result = np.array(self._start(g))
        else:
            result = g.copy() if self.entries is None else dsymv(1.0, self.entries, g)
        for k, (s, u) in enumerate(self._terms):
            used = min(self._count - k * TERMS, TERMS)
            s, u = s[:used], u[:used]
            result += (u @ g) @ s
            result += (s @ g) @ u
        return result

    def _add(self, s: np.ndarray, u: np.ndarray) -> None:
        full = DENSE_FROM * self.n if self.entries is None else TERMS
        if self._start is None and self._count >= full:
            self._add_to_entries()
        block, row = divmod(self._count, TERMS)
        if row == 0:
            self._terms.append((np.empty((TERMS, self.n)), np.empty((TERMS, self.n))))
        self._terms[block][0][row], self._terms[block][1][row] = s, u
        self._count += 1

    def _add_to_entries(self) -> None:
        entries = np.eye(self.n, order="F") if self.entries is None else self.entries
        while self._terms:
            s, u = self._terms.pop()
            used = self._count - len(self._terms) * TERMS
            entries = dsyr2k(1.0, s[:used].T, u[:used].T, beta=1.0, c=entries, overwrite_c=1)
            self._count -= used
        self.entries = entries
