"""Tables as texts, and numbers for reading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Table:
    """Rows of texts with a caption."""

    caption: str
    columns: Sequence[str]
    rows: list[Sequence[str]]
    words: frozenset[int] = field(default_factory=lambda: frozenset({0}))
    """Columns of words; the others are numbers, to the right."""


def number(value: float | None, digits: int = 4) -> str:
    """A number for reading; a dash where it is not known."""
    if value is None or not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 10**digits or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def error(value: float) -> str:
    """An error in meV, or GPa: two decimals, fewer where it is large."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def span(values: np.ndarray, pattern: str = "{:.3f}") -> str:
    """Smallest to largest of the finite values."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "–"
    low, high = pattern.format(known.min()), pattern.format(known.max())
    return low if low == high else f"{low} to {high}"


def seconds_text(seconds: float) -> str:
    """A time for reading."""
    if seconds < 100:
        return f"{number(seconds, 3)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def set_name(which: str) -> str:
    """`training set`, `test set`."""
    return {"train": "training set", "test": "test set"}.get(which, which)


def files_text(names: Iterable[str]) -> str:
    """Names with commas, at most five of them."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def text_table(table: Table) -> str:
    """The table for a terminal; long names of columns take two lines."""
    heads = [name.rsplit(" ", 1) if " " in name else ["", name] for name in table.columns]
    lines = [[head[0] for head in heads], [head[1] for head in heads], *table.rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(heads))]

    def cell(text: str, k: int) -> str:
        return text.ljust(widths[k]) if k in table.words else text.rjust(widths[k])

    shown = ["  ".join(cell(text, k) for k, text in enumerate(line)).rstrip() for line in lines]
    return "\n".join([table.caption, *shown])


def front_of(costs: np.ndarray) -> np.ndarray:
    """Which points no other point beats: bool (n,).

    Args:
        costs: (n, m), to be small; rows with NaN are on no front.
    """
    known = np.isfinite(costs).all(axis=1)
    front = known.copy()
    for k in np.flatnonzero(known):
        no_worse = (costs[known] <= costs[k]).all(axis=1)
        front[k] = not (no_worse & (costs[known] < costs[k]).any(axis=1)).any()
    return front
