"""The JSON of the page's figures, read by Bokeh's own library, which knows all models and their attributes."""

from __future__ import annotations

import json
import logging.handlers
import queue
import re

import bokeh
import fits
import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import GlyphRenderer, HoverTool, Legend, Plot

from pacehpc.report.page import charts
from pacehpc.report.page.bokehjs import column, model, value
from pacehpc.report.page.fit_page import write_page


def read(item: dict) -> Document:
    """What Bokeh makes of a figure; it refuses wrong values, and warns of unknown attributes."""
    said, log = queue.SimpleQueue(), logging.getLogger("bokeh")
    handler = logging.handlers.QueueHandler(said)
    log.addHandler(handler)
    try:
        doc = {**json.loads(json.dumps(item["doc"])), "config": model("DocumentConfig"), "version": bokeh.__version__}
        document = Document.from_json(doc)
    finally:
        log.removeHandler(handler)
    if not said.empty():
        raise ValueError(said.get().getMessage())
    return document


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[dict[str, Document], list]:
    """The figures of a page with all that it may show, and the data."""
    folder = fits.folder_with_potential(tmp_path_factory.mktemp("fit"))
    rng = np.random.default_rng(1)
    stress = rng.normal(0, 5, (12, 6))
    test = fits.compared(
        "test", 12, 1, stress=stress, stress_pred=stress + 0.1, grades=rng.uniform(0.5, 3, 48),
        energy_std=rng.uniform(0.005, 0.02, 12), forces_std=rng.uniform(0.02, 0.1, (48, 3)),
    )  # fmt: skip
    sets = [fits.compared("train", 30), test]
    text = write_page(folder, fits.summary(sets), sets, fits.curves()).read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script[^>]*id="page-data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    return {key: read(item) for key, item in data["charts"].items()}, sets


def test_bokeh_understands_every_figure(page):
    documents, _ = page
    assert len(documents) >= 15
    for document in documents.values():
        (figure,) = document.roots
        assert isinstance(figure, Plot) and figure.renderers
        assert figure.toolbar.active_drag in figure.toolbar.tools
        for tool in figure.select(HoverTool):
            assert set(tool.renderers) <= set(figure.renderers)


def test_points_are_those_of_the_data(page):
    documents, (train, _) = page
    (figure,) = documents["energy-train"].roots
    groups = [one for one in figure.renderers if (one.name or "").startswith("group ")]
    x = np.sort(np.concatenate([one.data_source.data["x"] for one in groups]))
    np.testing.assert_array_equal(x, np.sort(train.energy[train.known_energy]))
    assert all(one.glyph.fill_alpha.value == 0.6 for one in groups)


def test_sets_are_named_where_there_are_two(page):
    documents, sets = page
    (legend,) = documents["distribution-energies"].roots[0].select(Legend)
    assert [item.label.value for item in legend.items] == ["training set", "test set"]
    alone = charts.histogram({"train": sets[0].energy}, "energy", "structures")
    assert not list(read(charts.chart("one", alone, "", "").item).roots[0].select(Legend))


def test_a_source_that_two_glyphs_share_stands_once():
    plot = charts.plot("x", "y")
    found = model("ColumnDataSource", data={"type": "map", "entries": [["x", [1.0, 2.0]]]})
    for glyph in ("Line", "Scatter"):
        plot.draw(glyph, found, x=column("x"), y=column("x"))
    renderers = read(charts.chart("one", plot, "", "").item).roots[0].select(GlyphRenderer)
    assert len({one.data_source.id for one in renderers}) == 1


def test_bokeh_refuses_what_it_does_not_know():
    plot = charts.plot("x", "y")
    plot.draw("Scatter", {"x": [1.0]}, x=column("x"), y=column("x"), sice=value(3))
    with pytest.raises(ValueError, match="sice"):
        read(charts.chart("one", plot, "", "").item)
