"""Minimise f(x) -> (loss, gradient, metrics): BFGS, GN-BFGS, or a method of scipy.optimize by its name.

BFGS is this package's own (`fit.bfgs`), GN-BFGS the same with renewals of its inverse Hessian (`fit.gauss_newton`);
`scipy-BFGS` is scipy's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pacehpc.checkpoint.journal import hash_of
from pacehpc.errors import PacehpcError
from pacehpc.fit.bfgs import DENSE_FROM, TERMS, bfgs
from pacehpc.fit.gauss_newton import Renewals
from pacehpc.fit.state import Minimum
from pacehpc.machine import blas_threads_at_most, total_memory

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
RECENT = 64  # evaluations whose metrics are kept, so that an accepted point of the line search is not evaluated again


class _Stop(Exception):
    """Raised out of a minimisation when `on_iteration` returns True."""


def minimize(
    f: Function,
    x0: np.ndarray,
    method: str = "BFGS",
    maxiter: int = 100,
    options: dict[str, Any] | None = None,
    on_iteration: Callable[[np.ndarray, dict[str, float], int, int], bool] | None = None,
    renewals: Renewals | None = None,
) -> Minimum:
    """Minimise f from x0 (n,).

    Args:
        f: x (n,) -> (loss, gradient or None, metrics).
        x0: start, (n,).
        method: "BFGS", "GN-BFGS", "scipy-BFGS", or one of scipy.optimize.minimize that needs no Hessian.
        maxiter: iterations at most.
        options: of that method; of GN-BFGS those of BFGS.
        on_iteration: called with (x, metrics, iteration, evaluations) at x0 (iteration 0) and after each iteration;
            True stops.
        renewals: of GN-BFGS.

    Raises:
        PacehpcError: the method's matrices are too large for the memory, or the loss at x0 is not finite.
    """
    x0 = np.array(x0, dtype=np.float64)
    check_memory(method, len(x0), maxiter)
    with blas_threads_at_most(1 if len(x0) < SMALL else None):
        return _minimize(f, x0, method, maxiter, options, on_iteration, renewals)


def _minimize(
    f: Function,
    x0: np.ndarray,
    method: str,
    maxiter: int,
    options: dict[str, Any] | None,
    on_iteration: Callable[[np.ndarray, dict[str, float], int, int], bool] | None,
    renewals: Renewals | None,
) -> Minimum:
    memory = _Memory(f)
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
            message = bfgs(memory, x0, step, **{"maxiter": maxiter, **(options or {})})
        elif method == "GN-BFGS":
            renew = partial(renewals.renew, memory)
            message = bfgs(memory, x0, step, **{"maxiter": maxiter, **(options or {})}, renew=renew)
        else:
            import scipy.optimize  # takes its time, and BFGS does not need it

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


class _Memory:
    """f with its last gradient and the metrics of recent points, by hash of x, so that nothing is evaluated twice."""

    def __init__(self, f: Function) -> None:
        self.f = f
        self.count = 0
        self._last: bytes | None = None
        self._value: tuple[float, np.ndarray | None] = (np.nan, None)
        self._recent: OrderedDict[bytes, dict[str, float]] = OrderedDict()
        self._best: tuple[bytes, dict[str, float]] | None = None

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray | None]:
        key = hash_of(x)
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
        key = hash_of(x)
        if self._best is not None and self._best[0] == key:
            return self._best[1]
        if key not in self._recent:
            self(x)
        return self._recent[key]


def optimizer_memory(method: str, n_parameters: int, maxiter: int) -> int:
    """Bytes of what `method` keeps of the Hessian during maxiter iterations."""
    n = n_parameters
    if method == "BFGS" and maxiter <= DENSE_FROM * n:
        return 16 * n * TERMS * -(-maxiter // TERMS)
    return int(8 * n**2 * MATRICES.get(method, 0))


def check_memory(method: str, n_parameters: int, maxiter: int, total: int | None = None) -> None:
    """Raises PacehpcError if that exceeds `MEMORY_SHARE` of the memory (`total` bytes)."""
    needed = optimizer_memory(method, n_parameters, maxiter)
    total = total_memory() if total is None else total
    if needed > MEMORY_SHARE * total:
        raise PacehpcError(
            f"fit.optimizer {method}: {n_parameters} parameters need {needed / 2**30:.1f} GiB in {maxiter} iterations, "
            f"more than {100 * MEMORY_SHARE:.0f} % of the {total / 2**30:.1f} GiB of memory here. Use "
            "`optimizer: L-BFGS-B` (for instance with `options: {maxcor: 100}`)."
        )
