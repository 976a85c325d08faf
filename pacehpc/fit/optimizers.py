"""Minimise f(x) -> (loss, gradient, metrics): an own BFGS with an O(n²) update, or a method of scipy.optimize by name.

BFGS applies the update of the inverse Hessian H (J. Nocedal, S. Wright, Numerical Optimization, eq. 6.17) in its
rank-2 form: with s = x' - x, y = g' - g, ρ = 1/(y·s), v = H y,

    H' = H + s uᵀ + u sᵀ,   u = ½ρ(1 + ρ y·v) s - ρ v

H g is known from the step before (the direction is -H g), so H g' gives both v = H g' - H g and the next direction
-(H g' + s u·g' + u s·g'): one product with H per iteration. H starts as 1, and k updates are 2k vectors: that is how H
is kept (4kn operations a product, 2kn numbers) until a matrix costs less, k > n/4; then as one symmetric matrix, read
by one dsymv per iteration, and the vectors of the last updates, which one dsyr2k adds to the matrix when they are
`TERMS`: a dsyr2 per iteration would read and write the matrix once more. scipy multiplies n×n matrices. Line search
(scipy's own), stopping rules and, to round-off, iterates are those of scipy.optimize.minimize(method="BFGS");
`scipy-BFGS` is that one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import scipy.optimize
from scipy.linalg.blas import dsymv, dsyr2k
from threadpoolctl import threadpool_limits

from pacehpc.backends.memory import machine_memory
from pacehpc.errors import PacehpcError

try:  # private in scipy, with the same meaning from 1.12 to 1.17
    from scipy.optimize._optimize import _line_search_wolfe12, _LineSearchError
except ImportError:
    _line_search_wolfe12 = None

Function = Callable[[np.ndarray], tuple[float, np.ndarray | None, dict[str, float]]]

MEMORY_SHARE = 0.5  # of the machine's memory that an optimizer's matrices may take
# n×n matrices of float64 that a method holds at once
MATRICES = {
    "BFGS": 1.5,
    "scipy-BFGS": 5,
    "SLSQP": 1,
    "COBYQA": 3,
    "COBYLA": 1,
    "Powell": 1,
    "Nelder-Mead": 2,
    "trust-constr": 3,
}
GRADIENT_FREE = ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")
SMALL = 2000  # parameters below which a second BLAS thread costs more (waiting for it) than it gives
TERMS = 64  # updates of the inverse Hessian in one array
DENSE_FROM = 0.25  # updates over parameters from which the inverse Hessian is a matrix
RECENT = 64  # evaluations whose metrics are kept, so that an accepted point of the line search is not evaluated again


@dataclass
class Minimum:
    """How a minimisation ended."""

    x: np.ndarray
    """(n,): the last accepted point (gradient-free methods: the best)."""
    loss: float
    metrics: dict[str, float]
    n_iterations: int
    n_evaluations: int
    message: str
    stopped: bool
    """Ended by `on_iteration`."""


class _Stop(Exception):
    """Raised out of a minimisation when `on_iteration` returns True."""


def minimize(
    f: Function,
    x0: np.ndarray,
    method: str = "BFGS",
    maxiter: int = 100,
    options: dict[str, Any] | None = None,
    on_iteration: Callable[[np.ndarray, dict[str, float], int, int], bool] | None = None,
) -> Minimum:
    """Minimise f from x0 (n,).

    method: "BFGS", "scipy-BFGS", or one of scipy.optimize.minimize that needs no Hessian; options: of that method.
    on_iteration(x, metrics, iteration, evaluations): called at x0 (iteration 0) and after each iteration; True stops.
    Raises PacehpcError where the method's matrices do not fit in memory and where the loss at x0 is not finite.
    """
    x0 = np.array(x0, dtype=np.float64)
    check_memory(method, len(x0), maxiter)
    with threadpool_limits(1 if len(x0) < SMALL else None, user_api="blas"):
        return _minimize(f, x0, method, maxiter, options, on_iteration)


def _minimize(
    f: Function,
    x0: np.ndarray,
    method: str,
    maxiter: int,
    options: dict[str, Any] | None,
    on_iteration: Callable[[np.ndarray, dict[str, float], int, int], bool] | None,
) -> Minimum:
    memory = _Evaluations(f)
    loss, _ = memory(x0)
    if not np.isfinite(loss):
        raise PacehpcError(
            f"the loss at the start is {loss}: check the data (closest atoms) and the potential's coefficients."
        )
    iteration, last = 0, x0.copy()

    def step(x: np.ndarray) -> None:
        nonlocal iteration, last
        iteration += 1
        last = np.array(x, dtype=np.float64)
        if on_iteration is not None and on_iteration(last, memory.metrics(last), iteration, memory.count):
            raise _Stop

    def callback(intermediate_result: Any) -> None:  # the name makes scipy pass an OptimizeResult where it can
        step(getattr(intermediate_result, "x", intermediate_result))

    stopped = True
    try:
        if on_iteration is not None and on_iteration(x0, memory.metrics(x0), 0, memory.count):
            raise _Stop
        if len(x0) == 0 or maxiter == 0:
            message = "nothing to minimise" if len(x0) == 0 else "maximum number of iterations reached"
        elif method == "BFGS":
            message = _bfgs(memory.loss, memory.gradient, x0, step, **{"maxiter": maxiter, **(options or {})})
        else:
            result = scipy.optimize.minimize(
                memory.loss,
                x0,
                method=method.removeprefix("scipy-"),
                jac=None if method in GRADIENT_FREE else memory.gradient,
                callback=callback,
                options={"maxiter": maxiter, **(options or {})},
            )
            message, last = str(result.message), np.array(result.x, dtype=np.float64)
        stopped = False
    except _Stop:
        message = "stopped"
    metrics = memory.metrics(last)
    return Minimum(last, metrics["loss"], metrics, iteration, memory.count, message, stopped)


def _bfgs(
    loss: Callable[[np.ndarray], float],
    gradient: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    step: Callable[[np.ndarray], None],
    maxiter: int,
    gtol: float = 1e-5,
    norm: float = np.inf,
    xrtol: float = 0.0,
    c1: float = 1e-4,
    c2: float = 0.9,
) -> str:
    """BFGS from x; calls step(x) after each iteration; returns why it ended."""
    value, g = loss(x), gradient(x)
    old_value = value + np.linalg.norm(g) / 2  # a first step of about 1
    inverse = InverseHessian(len(x))
    p = -g
    for _ in range(maxiter):
        if np.linalg.norm(g, norm) <= gtol:
            return f"gradient below gtol = {gtol:g}"
        found = _line_search(loss, gradient, x, p, g, value, old_value, c1, c2)
        if found is None:
            return "no lower loss found along the search direction (precision of the loss reached)"
        length, value, old_value, g_new = found
        s = length * p
        x = x + s
        if g_new is None:
            g_new = gradient(x)
        y = g_new - g
        g = g_new
        step(x)
        if np.linalg.norm(g, norm) <= gtol:
            return f"gradient below gtol = {gtol:g}"
        if length * np.linalg.norm(p) <= xrtol * (xrtol + np.linalg.norm(x)):
            return f"step below xrtol = {xrtol:g}"
        if not np.isfinite(value):
            return f"the loss became {value}"
        ys = y @ s
        rho = 1.0 / ys if ys != 0.0 else 1000.0
        p = inverse.update(s, y, g, p, rho)
    return "maximum number of iterations reached"


class InverseHessian:
    """The symmetric matrix H = 1 + Σ_k (s_k u_kᵀ + u_k s_kᵀ) of BFGS: its vectors, or, when they are many, its entries.

    entries: (n, n), of 1 and all terms but the last ones, in Fortran order, the upper triangle counts; None as long as
    all vectors are kept.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.entries: np.ndarray | None = None
        self._terms: list[tuple[np.ndarray, np.ndarray]] = []  # (s, u) of TERMS updates each, (TERMS, n)
        self._count = 0

    def update(self, s: np.ndarray, y: np.ndarray, g: np.ndarray, p: np.ndarray, rho: float) -> np.ndarray:
        """H' of the step s; returns the next direction -H' g.

        s, y: (n,), the change of x and of the gradient; g: (n,), the new gradient; p: (n,), the last direction, -H
        times the gradient before; rho: 1/(y·s).
        """
        hg = self.product(g)
        v = hg + p
        u = (0.5 * rho * (1.0 + rho * (y @ v))) * s - rho * v
        self._add(s, u)
        return -(hg + (u @ g) * s + (s @ g) * u)

    def product(self, g: np.ndarray) -> np.ndarray:
        """H g, (n,)."""
        result = g.copy() if self.entries is None else dsymv(1.0, self.entries, g)
        for k, (s, u) in enumerate(self._terms):
            used = min(self._count - k * TERMS, TERMS)
            s, u = s[:used], u[:used]
            result += (u @ g) @ s
            result += (s @ g) @ u
        return result

    def _add(self, s: np.ndarray, u: np.ndarray) -> None:
        if self._count >= (DENSE_FROM * self.n if self.entries is None else TERMS):
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


def _line_search(
    loss: Callable,
    gradient: Callable,
    x: np.ndarray,
    p: np.ndarray,
    g: np.ndarray,
    value: float,
    old: float,
    c1: float,
    c2: float,
) -> tuple[float, float, float, np.ndarray | None] | None:
    """(step length, loss there, loss before, gradient there) by the strong Wolfe conditions; None: no such step."""
    if _line_search_wolfe12 is not None:
        try:
            length, _, _, value, old, g_new = _line_search_wolfe12(
                loss, gradient, x, p, g, value, old, amin=1e-100, amax=1e100, c1=c1, c2=c2
            )
        except _LineSearchError:
            return None
        return length, value, old, g_new
    length, _, _, value, old, _ = scipy.optimize.line_search(
        loss, gradient, x, p, g, value, old, c1=c1, c2=c2, amax=1e100
    )
    return None if length is None else (length, value, old, gradient(x + length * p))


class _Evaluations:
    """f with its last gradient and the metrics of recent points (by hash of x), so that nothing is evaluated twice."""

    def __init__(self, f: Function) -> None:
        self.f = f
        self.count = 0
        self._last: bytes | None = None
        self._value: tuple[float, np.ndarray | None] = (np.nan, None)
        self._recent: OrderedDict[bytes, dict[str, float]] = OrderedDict()
        self._best: tuple[bytes, dict[str, float]] | None = None

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray | None]:
        key = _key(x)
        if key != self._last:
            loss, gradient, metrics = self.f(x)
            self.count += 1
            self._last, self._value = key, (loss, gradient)
            self._recent[key] = metrics
            if len(self._recent) > RECENT:
                self._recent.popitem(last=False)
            if self._best is None or loss < self._best[1]["loss"]:
                self._best = key, metrics
        return self._value

    def loss(self, x: np.ndarray) -> float:
        return self(x)[0]

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return self(x)[1]

    def metrics(self, x: np.ndarray) -> dict[str, float]:
        key = _key(x)
        if self._best is not None and self._best[0] == key:
            return self._best[1]
        if key not in self._recent:
            self(x)
        return self._recent[key]


def _key(x: np.ndarray) -> bytes:
    return blake2b(np.ascontiguousarray(x, dtype=np.float64), digest_size=16).digest()


def optimizer_memory(method: str, n_parameters: int, maxiter: int) -> int:
    """Bytes of what `method` keeps of the Hessian during maxiter iterations."""
    n = n_parameters
    if method == "BFGS" and maxiter <= DENSE_FROM * n:
        return 16 * n * TERMS * -(-maxiter // TERMS)
    return int(8 * n**2 * MATRICES.get(method, 0))


def check_memory(method: str, n_parameters: int, maxiter: int, total: int | None = None) -> None:
    """Raises PacehpcError if that exceeds `MEMORY_SHARE` of the memory (`total` bytes)."""
    needed = optimizer_memory(method, n_parameters, maxiter)
    total = machine_memory() if total is None else total
    if needed > MEMORY_SHARE * total:
        raise PacehpcError(
            f"fit.optimizer {method}: {n_parameters} parameters need {needed / 2**30:.1f} GiB in {maxiter} iterations, "
            f"more than {100 * MEMORY_SHARE:.0f} % of the {total / 2**30:.1f} GiB of memory here. Use "
            "`optimizer: L-BFGS-B` (for instance with `options: {maxcor: 100}`)."
        )
