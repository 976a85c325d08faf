"""Figures of the page, made with Bokeh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.embed import json_item
from bokeh.models import (
    ColumnDataSource,
    CustomJSHover,
    CustomJSTicker,
    CustomJSTickFormatter,
    FactorRange,
    HoverTool,
    Label,
    LogAxis,
    NumeralTickFormatter,
    Range1d,
    Scatter,
    Span,
)
from bokeh.plotting import figure
from bokeh.settings import settings

from pacehpc.report.page.rows import set_name

settings.perform_document_validation = False  # of figures that are made here alone: a sixth of their time

BLUE, ORANGE, GREY, TEXT = "#1f5a94", "#d1600a", "#7f7f7f", "#333333"
SET_COLOURS = {"train": BLUE, "test": ORANGE}
SET_MARKERS = {"train": "circle", "test": "diamond"}
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"

# What a hover says of a point: looked up in the page, so that no text is repeated for each point.
_OF_STRUCTURE = "return PACEHPC.structures['{which}'].{what}[value]"
_SYMBOL = "return PACEHPC.symbols[value]"


# Ticks of logarithmic axes: mantissas by the width of the range, and plain numbers.
_LOG_TICKS = """
const {start, end} = cb_data.range
const decades = Math.log10(end / start)
const ticks = []
if (decades < 0.6) {
  const rough = (end - start) / 4, power = 10 ** Math.floor(Math.log10(rough))
  const step = power * (rough < 2 * power ? 1 : rough < 5 * power ? 2 : 5)
  for (let k = Math.ceil(start / step); k * step <= end; k++) ticks.push(k * step)
  return ticks
}
const mantissas = decades > 4 ? [1] : decades > 1.2 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8]
for (let power = Math.floor(Math.log10(start)); power <= Math.log10(end); power++)
  for (const mantissa of mantissas) ticks.push(mantissa * 10 ** power)
return ticks.filter(tick => tick >= start && tick <= end)
"""
_SHORTENED = "return tick.length > 26 ? tick.slice(0, 25) + '…' : tick"
_PLAIN = "return String(+tick.toPrecision(4))"


@dataclass
class Chart:
    """A figure with the words around it."""

    key: str
    """Unique in the page."""
    item: Mapping[str, Any]
    """What BokehJS draws."""
    caption: str
    description: str
    """For those who do not see it."""


@dataclass
class Points:
    """Points of a figure, each of a structure."""

    which: str
    """The data set."""
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray
    structure: np.ndarray
    """(n,): number among the structures that the page knows."""
    colour: np.ndarray
    """(n,): index of the colour of its group."""
    more: dict[str, np.ndarray] = field(default_factory=dict)
    """Further columns, by the names of `MORE`."""


MORE = {
    "element": ("element", "@element{custom}"),
    "atom": ("atom", "@atom"),
    "grade": ("grade γ", "@grade{0.00}"),
    "std": ("predicted σ", "@std{0.0} meV"),
}


def chart(key: str, plot: Any, caption: str, description: str) -> Chart:
    """A finished figure as the page embeds it."""
    return Chart(key, json_item(plot), caption, description)


def plot(
    x_label: str, y_label: str, height: int = 300, square: bool = False, tooltips: bool = True, **options: Any
) -> Any:
    """An empty figure in the page's style; it takes the width that there is."""
    sizes = {"width": 420, "height": 420, "sizing_mode": "scale_width"} if square else {
        "height": height, "sizing_mode": "stretch_width"
    }  # fmt: skip
    p = figure(
        tools="pan,box_zoom,wheel_zoom,reset,save", active_drag="box_zoom", active_scroll=None,
        toolbar_location="above", x_axis_label=x_label, y_axis_label=y_label, **{**sizes, **options},
    )  # fmt: skip
    p.toolbar.logo = None
    p.outline_line_color = "#bbbbbb"
    p.grid.grid_line_color = "#e6e6e6"
    p.axis.axis_line_color = p.axis.major_tick_line_color = GREY
    p.axis.minor_tick_line_color = None
    for axis in p.axis:
        if isinstance(axis, LogAxis):
            axis.ticker = CustomJSTicker(major_code=_LOG_TICKS)
            axis.formatter = CustomJSTickFormatter(code=_PLAIN)
    for grid, axis in zip(p.grid, (p.xaxis[0], p.yaxis[0]), strict=True):
        grid.ticker = axis.ticker
    p.axis.axis_label_text_font = p.axis.major_label_text_font = FONT
    p.axis.axis_label_text_font_style = "normal"
    p.axis.axis_label_text_font_size = "13px"
    p.axis.major_label_text_font_size = "12px"
    p.axis.axis_label_text_color = p.axis.major_label_text_color = TEXT
    return p


def scattered(
    p: Any, points: Points, colours: Sequence[str], quantities: tuple[str, str], unit: str, error_unit: str
) -> None:
    """Draw points, a renderer for each colour, and say on hover what they are.

    Args:
        p: the figure.
        points: to draw.
        colours: of the groups.
        quantities: what x and y are.
        unit, error_unit: of x and y, and of the error.
    """
    size = 8 if len(points.x) < 500 else 6 if len(points.x) < 5000 else 4
    size += 3 if points.which == "test" else 0  # a diamond covers less than a circle
    renderers = []
    order = list(range(len(colours)))[::-1] if len(colours) > 1 else [0]
    for k in sorted(order, key=lambda k: -int(np.count_nonzero(points.colour == k))):  # small groups on top
        chosen = points.colour == k
        if not chosen.any():
            continue
        columns = {"x": points.x, "y": points.y, "error": points.error, "structure": points.structure, **points.more}
        source = ColumnDataSource({name: values[chosen] for name, values in columns.items()})
        source.data["group"] = source.data["structure"]
        glyph = Scatter(
            size=size, marker=SET_MARKERS[points.which], fill_color=colours[k], fill_alpha=0.6, line_color=None
        )
        renderers.append(p.add_glyph(source, glyph, name=f"group {k}"))  # `scatter` would make two more glyphs of each
    tooltips = [("structure", "@structure{custom}"), ("group", "@group{custom}")]
    tooltips += [MORE[name] for name in points.more if name in MORE]
    tooltips += [
        (quantities[0], f"@x{{0.0000}} {unit}"),
        (quantities[1], f"@y{{0.0000}} {unit}"),
        ("error", f"@error{{0.00}} {error_unit}"),
    ]
    if len(colours) == 1:
        tooltips.pop(1)
    add_hover(p, points.which, tooltips, renderers)


def add_hover(p: Any, which: str, tooltips: Sequence[tuple[str, str]], renderers: Sequence[Any]) -> None:
    """Say on hover what `tooltips` name; structure, group and element are looked up in the page."""
    formatters = {
        "@structure": CustomJSHover(code=_OF_STRUCTURE.format(which=which, what="text")),
        "@group": CustomJSHover(code=_OF_STRUCTURE.format(which=which, what="group")),
        "@element": CustomJSHover(code=_SYMBOL),
    }
    used = {key: value for key, value in formatters.items() if any(f"{key}{{" in text for _, text in tooltips)}
    p.add_tools(HoverTool(tooltips=list(tooltips), formatters=used, renderers=list(renderers), limit=3, visible=False))


def parity(points: Points, colours: Sequence[str], what: str, unit: str, error_unit: str) -> Any:
    """Predicted over reference values, with the diagonal."""
    p = plot(f"{what}, reference ({unit})", f"{what}, predicted ({unit})", square=True, match_aspect=True)
    low, high = limits(np.concatenate([points.x, points.y]))
    p.x_range, p.y_range = Range1d(low, high), Range1d(low, high)
    p.line([low, high], [low, high], color=GREY, line_width=1)
    scattered(p, points, colours, ("reference", "predicted"), unit, error_unit)
    return p


def error_over(points: Points, colours: Sequence[str], x_label: str, y_label: str, unit: str) -> Any:
    """|Errors| over a measure of uncertainty, both on logarithmic axes."""
    p = plot(x_label, y_label, height=360, x_axis_type="log", y_axis_type="log")
    low, high = np.quantile(points.y, 0.002), points.y.max()  # errors of nearly nothing would take half the panel
    p.y_range = Range1d(low / 1.3, 1.3 * high)
    scattered(p, points, colours, (x_label, y_label), "", unit)
    return p


def histogram(values: Mapping[str, np.ndarray], label: str, y_label: str) -> Any:
    """Histograms of the data sets on common bins."""
    known = {which: found[np.isfinite(found)] for which, found in values.items()}
    everything = np.concatenate(list(known.values()))
    low, high = (everything.min(), everything.max()) if np.ptp(everything) > 1e-9 else limits(everything)
    n_bins = int(np.clip(2 * max(len(v) for v in known.values()) ** (1 / 3), 10, 60))
    edges = np.linspace(low, high, n_bins + 1)
    p = plot(label, y_label, height=230)
    for which, found in known.items():
        counts, _ = np.histogram(found, edges)
        shown = p.quad(
            top=counts, bottom=0, left=edges[:-1], right=edges[1:], fill_color=SET_COLOURS[which], fill_alpha=0.55,
            line_color="white", line_width=0.5, legend_label=set_name(which),
        )  # fmt: skip
        p.add_tools(
            HoverTool(
                visible=False,
                renderers=[shown],
                tooltips=[("set", set_name(which)), (label, "@left{0.000} to @right{0.000}"), (y_label, "@top{0,0}")],
            )
        )
    p.y_range.start = 0
    finish_legend(p, len(known) > 1)
    return p


def learning_curve(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    starts: Mapping[tuple[int, int], float],
    label: str,
    logarithmic: bool,
) -> Any:
    """A quantity over all iterations.

    Args:
        curves: by set: iterations on the axis of all minimisations, values, and iterations of their own minimisation.
        starts: of each (ladder step, cycle), marked by solid and dotted lines.
        label: of the quantity.
        logarithmic: also the axis of iterations, which then begins at 1.
    """
    p = plot("iteration", label, height=260, x_axis_type="log" if logarithmic else "linear", y_axis_type="log")
    later, last = [], 1.0
    for which, (x, y, own) in curves.items():
        shown = np.isfinite(x) & (y > 0) & ((x > 0) | (not logarithmic))
        later += y[shown & (own > 0)].tolist()
        last = max(last, float(np.nanmax(x, initial=1.0)))
        source = ColumnDataSource({"x": x[shown], "y": y[shown]})
        colour = SET_COLOURS[which]
        p.line("x", "y", source=source, color=colour, line_width=1.6, legend_label=set_name(which))
        marks = p.scatter(
            "x", "y", source=source, color=colour, size=5, marker=SET_MARKERS[which], legend_label=set_name(which)
        )
        p.add_tools(
            HoverTool(
                visible=False,
                renderers=[marks],
                tooltips=[("set", set_name(which)), ("iteration", "@x{0,0}"), (label, "@y{0.000}")],
            )
        )
    p.x_range = Range1d(1, last * 1.05) if logarithmic else Range1d(-0.01 * last, last * 1.02)
    if len(later) > 3:  # the starting points, far above the rest, leave the panel
        low, high = min(later), max(later)
        margin = 1.1 * (high / low) ** 0.06
        p.y_range = Range1d(low / margin, high * margin)
    _mark_starts(p, starts, logarithmic)
    if not logarithmic:
        p.xaxis.formatter = NumeralTickFormatter(format="0,0")
        p.xaxis[0].ticker.min_interval = 1
    finish_legend(p, len(curves) > 1)
    return p


def _mark_starts(p: Any, starts: Mapping[tuple[int, int], float], logarithmic: bool) -> None:
    """Solid, numbered lines where ladder steps begin, dotted ones where cycles do."""
    steps = sorted({step for step, _ in starts})
    numbered = steps[:: max(1, len(steps) // 15)]
    first = {step: min(cycle for s, cycle in starts if s == step) for step in steps}
    for (step, cycle), x in starts.items():
        if x == 0 and (logarithmic or len(steps) == 1):
            continue
        begins = cycle == first[step] and len(steps) > 1
        p.add_layout(Span(location=x, dimension="height", line_color=GREY, line_dash="solid" if begins else "dotted"))
        if begins and step in numbered:
            text = {"text": str(step), "text_font_size": "11px", "text_font": FONT, "text_color": TEXT}
            p.add_layout(Label(x=x, y=2, y_units="screen", x_offset=3, text_baseline="bottom", **text))


def bars(groups: Sequence[str], values: Mapping[str, Sequence[float]], label: str) -> Any:
    """Horizontal bars, one for each group and set."""
    p = plot(label, "", height=70 + (18 * len(values) + 8) * len(groups), y_range=FactorRange(*reversed(groups)))
    width = 0.8 / len(values)
    for k, (which, found) in enumerate(values.items()):
        known = [j for j, value in enumerate(found) if np.isfinite(value)]
        source = ColumnDataSource(
            {
                "group": [groups[j] for j in known],
                "y": [(groups[j], 0.4 - width * (k + 0.5)) for j in known],
                "value": [found[j] for j in known],
            }
        )
        shown = p.hbar(
            y="y", right="value", height=0.9 * width, source=source, color=SET_COLOURS[which], line_color=None,
            legend_label=set_name(which),
        )  # fmt: skip
        p.add_tools(
            HoverTool(
                visible=False,
                renderers=[shown],
                tooltips=[("group", "@group"), ("set", set_name(which)), (label, "@value{0.00}")],
            )
        )
    p.x_range.start = 0
    p.yaxis.formatter = CustomJSTickFormatter(code=_SHORTENED)
    p.ygrid.grid_line_color = None
    finish_legend(p, len(values) > 1)
    return p


def finish_legend(p: Any, shown: bool) -> None:
    """The legend above the figure, where its points cannot be hidden by it; none where there is one set."""
    if not p.legend:
        return
    legend = p.legend[0]
    legend.visible = shown
    legend.orientation, legend.click_policy = "horizontal", "hide"
    legend.label_text_font, legend.label_text_font_size, legend.label_text_color = FONT, "12px", TEXT
    legend.border_line_color, legend.padding, legend.margin = None, 2, 0
    p.add_layout(legend, "above")


def limits(values: np.ndarray) -> tuple[float, float]:
    """Limits just around the finite values; never of zero width."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    width = high - low
    if width <= 1e-12 * max(abs(low), abs(high)) or width < 1e-300:
        width = 0.1 * abs(high) or 1.0
        return low - width / 2, high + width / 2
    return low - 0.04 * width, high + 0.04 * width
