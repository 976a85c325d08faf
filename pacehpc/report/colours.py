"""Colours of groups of structures, the same in every figure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

COLOURS = (
    "#1f5a94",
    "#d1600a",
    "#2a8f5b",
    "#b8336a",
    "#7a5cc0",
    "#8a6d1f",
    "#16a0b5",
    "#c23b22",
    "#4d4d4d",
    "#9aa0a6",
)
"""Of groups, the largest first."""


@dataclass(frozen=True)
class Colours:
    """Groups of points, and what each of the largest groups is drawn with."""

    names: list[str]
    """Groups in the order in which they are drawn, the largest first."""
    number: np.ndarray
    """(n_points,): index into `names`."""

    @classmethod
    def of(cls, groups: np.ndarray | None, all_groups: np.ndarray | None = None) -> Colours | None:
        """Of these points; all_groups: whose sizes give the order. None where there are no groups.

        The smallest of many groups share the last colour.
        """
        if groups is None or len(groups) == 0:
            return None
        sizes = Counter((groups if all_groups is None else all_groups).tolist())
        if len(sizes) < 2:
            return None
        order = [name for name, _ in sizes.most_common()]
        kept = order if len(order) <= len(COLOURS) else order[: len(COLOURS) - 1]
        names = kept if kept == order else [*kept, f"{len(order) - len(kept)} more"]
        index = {name: min(k, len(names) - 1) for k, name in enumerate(order)}
        return cls(names, np.array([index[name] for name in groups.tolist()]))

    def repeated(self, times: int) -> Colours:
        """For so many points in place of each."""
        return Colours(self.names, np.repeat(self.number, times))

    def of_points(self, chosen: np.ndarray) -> Colours:
        """Of a part of the points."""
        return Colours(self.names, self.number[chosen])
