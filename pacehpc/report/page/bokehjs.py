"""Figures as the JSON that BokehJS reads.

Bokeh's library for Python takes a second to load and to write the same. Names and attributes are those of Bokeh's
models; what is not said has the default of BokehJS.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

Model = dict[str, Any]
"""Of BokehJS: `attributes` may still change; a model that stands at several places is a `reference` at all but one."""

_numbers = count(1)
_KINDS = {
    "linear": ("LinearAxis", "LinearScale", "DataRange1d"),
    "log": ("LogAxis", "LogScale", "DataRange1d"),
    "names": ("CategoricalAxis", "CategoricalScale", "FactorRange"),
}
"""Of axes: models of axis, scale and range."""


def library() -> str:
    """BokehJS."""
    folder = find_spec("bokeh").submodule_search_locations[0]
    return (Path(folder) / "server" / "static" / "js" / "bokeh.min.js").read_text(encoding="utf-8")


def model(name: str, /, **attributes: Any) -> Model:
    """A new model."""
    return {"type": "object", "name": name, "id": f"p{next(_numbers)}", "attributes": attributes}


def reference(one: Model) -> dict[str, str]:
    """Stands for a model that is described before."""
    return {"id": one["id"]}


def column(name: str) -> dict[str, str]:
    """A value for each point: of this column."""
    return {"type": "field", "field": name}


def value(of_all: Any) -> dict[str, Any]:
    """One value for all points."""
    return {"type": "value", "value": of_all}


def mapping(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values."""
    return {"type": "map", "entries": [[name, entry] for name, entry in entries.items()]}


def source(columns: Mapping[str, np.ndarray | Sequence[Any]]) -> Model:
    """A data source. Arrays are of float64, float32 or int32; other columns are lists."""
    return model("ColumnDataSource", data=mapping({name: _values(found) for name, found in columns.items()}))


def _values(found: np.ndarray | Sequence[Any]) -> Any:
    if not isinstance(found, np.ndarray):
        return list(found)
    packed = base64.b64encode(gzip.compress(np.ascontiguousarray(found).tobytes(), mtime=0)).decode()
    array = {"type": "bytes", "data": packed}
    return {"type": "ndarray", "dtype": found.dtype.name, "shape": [*found.shape], "order": "little", "array": array}


class Plot:
    """A figure with one axis below and one on the left, a toolbar, and a legend where something is named in it."""

    def __init__(
        self, kinds: tuple[str, str], labels: tuple[str, str], axis: Mapping[str, Any], grid: Mapping[str, Any],
        **attributes: Any,
    ) -> None:  # fmt: skip
        """Make an empty one.

        Args:
            kinds: of the axes below and on the left: "linear", "log" or "names".
            labels: of these axes.
            axis, grid: attributes of all axes and grids.
            attributes: of the figure.
        """
        x, y = (_KINDS[kind] for kind in kinds)
        self.axes = tuple(
            model(name, axis_label=label, **axis) for (name, *_), label in zip((x, y), labels, strict=True)
        )
        self.grids = tuple(model("Grid", axis=reference(one), dimension=k, **grid) for k, one in enumerate(self.axes))
        self.x_range, self.y_range = model(x[2]), model(y[2])
        self.renderers: list[Model] = []
        self._tools = [model(f"{name}Tool") for name in ("Pan", "BoxZoom", "WheelZoom", "Reset", "Save")]
        self._layouts: list[Model] = []
        self._named: dict[str, list[Model]] = {}
        self._attributes = {**attributes, "x_scale": model(x[1]), "y_scale": model(y[1])}

    def draw(
        self, glyph: str, data: Model | Mapping[str, Any], name: str = "", legend: str = "", **attributes: Any
    ) -> Model:
        """Draw a glyph for each point; returns its renderer.

        Args:
            glyph: its model: "Scatter", "Line".
            data: a source that has been drawn before, or columns.
            name: of the renderer.
            legend: its name in the legend.
            attributes: of the glyph.
        """
        held = data if data.get("type") == "object" else source(data)
        known = any(one["attributes"]["data_source"]["id"] == held["id"] for one in self.renderers)
        renderer = model(
            "GlyphRenderer", data_source=reference(held) if known else held, glyph=model(glyph, **attributes), name=name
        )
        self.renderers.append(renderer)
        if legend:
            self._named.setdefault(legend, []).append(reference(renderer))
        return renderer

    def hover(self, tooltips: Sequence[tuple[str, str]], renderers: Sequence[Model], **attributes: Any) -> None:
        """Say on hover over what the renderers draw: names and values."""
        shown = [reference(one) for one in renderers]
        tips = [list(tip) for tip in tooltips]
        self._tools.append(model("HoverTool", visible=False, renderers=shown, tooltips=tips, **attributes))

    def add(self, layout: Model) -> None:
        """Put a span or a label over the figure."""
        self._layouts.append(layout)

    def item(self, legend: Mapping[str, Any]) -> dict[str, Any]:
        """What `Bokeh.embed.embed_item` takes, but for the version; legend: attributes of the legend above."""
        entries = [model("LegendItem", label=value(name), renderers=found) for name, found in self._named.items()]
        above = [model("Legend", items=entries, **legend)] if entries else []
        zoom = reference(self._tools[1])
        figure = model(
            "Figure",
            x_range=self.x_range, y_range=self.y_range, title=model("Title"), renderers=self.renderers,
            toolbar=model("Toolbar", tools=self._tools, logo=None, active_drag=zoom, active_scroll=None),
            toolbar_location="above", left=[self.axes[1]], below=[self.axes[0]], above=above,
            center=[*self.grids, *self._layouts], **self._attributes,
        )  # fmt: skip
        return {"target_id": None, "root_id": figure["id"], "doc": {"title": "", "roots": [figure]}}
