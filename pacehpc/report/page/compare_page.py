"""A page that compares fits: a table, and errors against speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bokeh.core.properties import value
from bokeh.models import ColumnDataSource, LabelSet

from pacehpc.report.page import charts
from pacehpc.report.page.charts import Chart
from pacehpc.report.page.html import write_html
from pacehpc.report.page.rows import Table, front_of


@dataclass(frozen=True)
class Candidate:
    """A potential with its errors and its speed."""

    name: str
    speed: float
    """µs per atom of energies and forces."""
    energy: float
    """RMSE, meV per atom."""
    force: float
    """RMSE, meV/Å."""


def write_comparison(
    path: Path, title: str, table: Table, found: Sequence[Candidate], kind: str, notes: Sequence[str]
) -> None:
    """Write the page.

    Args:
        path: of the file.
        title: of the page.
        table: of all numbers.
        found: what is compared.
        kind: which errors these are: `test set`.
        notes: sentences below the table.
    """
    speed = np.array([one.speed for one in found])
    columns = (
        ("energy", f"RMSE energy, {kind} (meV/atom)", np.array([one.energy for one in found])),
        ("force", f"RMSE force, {kind} (meV/Å)", np.array([one.force for one in found])),
    )
    names = [one.name for one in found]
    made = [_front(key, names, speed, errors, label) for key, label, errors in columns if np.isfinite(errors).any()]
    contents = [("table", "Numbers"), ("front", "Errors against speed")]
    write_html(
        path, "compare.html", made, {"structures": {}, "symbols": []}, title=title, contents=contents, table=table,
        fronts=made, notes=notes,
    )  # fmt: skip


def _front(key: str, names: Sequence[str], speed: np.ndarray, errors: np.ndarray, label: str) -> Chart:
    known = np.isfinite(speed) & np.isfinite(errors)
    front = front_of(np.column_stack([speed, errors]))
    plot = charts.plot("µs/atom, energies and forces on one core", label, 380, x_axis_type="log", y_axis_type="log")
    order = np.flatnonzero(front)[np.argsort(speed[front], kind="stable")]
    plot.step(speed[order], errors[order], mode="after", line_color=charts.GREY, line_dash="dashed")
    for chosen, colour, kind in ((known & front, charts.BLUE, "yes"), (known & ~front, charts.ORANGE, "no")):
        source = ColumnDataSource(
            {"x": speed[chosen], "y": errors[chosen], "name": [names[k] for k in np.flatnonzero(chosen)]}
        )
        marks = plot.scatter("x", "y", source=source, size=9, fill_color=colour, line_color=None)
        tooltips = [("fit", "@name"), ("speed", "@x{0.00} µs/atom"), (label, "@y{0.00}"), ("on the front", kind)]
        charts.add_hover(plot, "", tooltips, [marks])
        if len(names) <= 30:
            plot.add_layout(
                LabelSet(
                    x="x", y="y", text="name", source=source, x_offset=6, y_offset=4, text_font_size="11px",
                    text_font=value(charts.FONT), text_color=charts.TEXT,
                )
            )  # fmt: skip
    plot.x_range.range_padding = plot.y_range.range_padding = 0.15
    best = ", ".join(names[k] for k in order)
    caption = f"{label}; on the front: {best}"
    return charts.chart(f"front-{key}", plot, caption, f"Scatter of {label} over the time per atom. {caption}")
