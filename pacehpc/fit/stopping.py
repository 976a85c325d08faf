"""When a minimisation ends before maxiter: the loss no longer falls, or a callback asks to stop."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")


@dataclass
class EarlyStop:
    """Stops when the relative change of the loss per iteration stayed above -threshold for `patience` iterations.

    With d_k = (L_k - L_{k-1}) / L_{k-1} per iteration: there are at least `patience` iterations and every d_k among the
    last `patience` is above -threshold. Losses may come every iteration or every few (test set).
    """

    threshold: float
    patience: int
    _last: tuple[int, float] | None = None
    _improved: int = field(default=0)  # the last iteration with a d_k that was not above -threshold

    def update(self, iteration: int, loss: float) -> bool:
        """Whether to stop, given the loss at `iteration` (from 0, increasing)."""
        if self._last is None:
            self._last, self._improved = (iteration, loss), iteration
            return False
        previous, before = self._last
        if iteration <= previous:
            return False
        self._last = (iteration, loss)
        change = (loss - before) / before / (iteration - previous) if before else 0.0
        if not change > -self.threshold:
            self._improved = iteration
        return iteration - self._improved >= self.patience


def load_callbacks(names: Sequence[str]) -> list[Callable[..., Any]]:
    """Import the functions `module.function`; the working directory, where users keep them, joins sys.path.

    Raises:
        PacehpcError: a module or function is not there.
    """
    folder = str(Path.cwd())
    if names and folder not in sys.path:
        sys.path.insert(0, folder)
    functions = []
    for name in names:
        module, _, attribute = name.rpartition(".")
        try:
            function = getattr(importlib.import_module(module), attribute, None)
        except Exception as error:  # a user's module may raise anything
            raise PacehpcError(
                f"fit.callbacks: {module} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if not callable(function):
            raise PacehpcError(f"fit.callbacks: {module} has no function {attribute}.")
        functions.append(function)
    return functions


class CallbackFailed(Exception):
    """A callback raised; its traceback has been logged."""


def call_all(functions: Sequence[Callable[..., Any]], **keywords: Any) -> bool:
    """Call each; whether one returned True.

    Raises:
        CallbackFailed: one of them raised anything; its traceback has been logged.
    """
    stop = False
    for function in functions:
        try:
            result = function(**keywords)
        except (Exception, SystemExit) as error:
            log.error("callback %s raised; the fit ends here", function.__qualname__, exc_info=True)
            raise CallbackFailed(function.__qualname__) from error
        if isinstance(result, (bool, np.bool_)) and result:  # `error < limit` of arrays gives NumPy's
            log.info("Callback %s asks to stop", function.__qualname__)
            stop = True
    return stop
