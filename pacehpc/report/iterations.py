"""Rows of metrics.txt on one axis that runs through all ladder steps and cycles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def starts_of(table: Mapping[str, np.ndarray]) -> dict[tuple[int, int], float]:
    """First iteration of each (ladder step, cycle) on an axis that runs through all of them."""
    starts: dict[tuple[int, int], float] = {}
    end = 0.0
    for ladder, cycle, iteration in zip(table["ladder_step"], table["cycle_step"], table["iter_num"], strict=True):
        key = (int(ladder), int(cycle))
        starts.setdefault(key, end)
        end = max(end, starts[key] + iteration)
    return starts


def global_iterations(table: Mapping[str, np.ndarray], starts: Mapping[tuple[int, int], float]) -> np.ndarray:
    """(n_rows,) iterations on that axis; NaN for minimisations that `starts` lacks."""
    keys = zip(table["ladder_step"], table["cycle_step"], table["iter_num"], strict=True)
    return np.array([starts.get((int(ladder), int(cycle)), np.nan) + n for ladder, cycle, n in keys])
