"""report/index.html in a real browser: no network, no errors, all figures, hovers that name structures."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import fits
import numpy as np
import pytest
from browser import Browser

from pacehpc.report.page.fit_page import write_page
from pacehpc.report.page.sample import MOST, WORST, sample

READY = "document.querySelectorAll('[data-drawn]').length && [...document.querySelectorAll('[data-drawn]')].every(" \
        "e => e.querySelector('.bk-Figure')) && Bokeh.documents.every(d => d.is_idle)"  # fmt: skip
# Places of the first drawn points of a figure in the window, and their columns.
POINTS = """(() => {
  const element = document.getElementById("chart-KEY"), doc = Bokeh.documents.find(d =>
    [...d.all_models].some(m => m.type === "Figure" && Bokeh.index.find_one_by_id(m.id)?.el.parentElement === element))
  const model = [...doc.all_models].find(m => m.type === "Figure"), view = Bokeh.index.find_one_by_id(model.id)
  const box = view.el.getBoundingClientRect(), found = []
  for (const one of model.renderers.filter(r => (r.name || "").startsWith("group ")))
    for (let k = 0; k < one.data_source.get_length(); k++) {
      const data = one.data_source.data
      found.push({
        x: box.left + view.frame.x_scale.compute(data.x[k]), y: box.top + view.frame.y_scale.compute(data.y[k]),
        text: PACEHPC.structures.SET.text[data.structure[k]],
      })
    }
  return found
})()"""
TOOLTIP = "(function deep(e) { if (e.className?.includes?.('bk-tooltip-row') || e.className?.includes?.(" \
          "'bk-tooltip-content')) return e.innerText; for (const c of [...(e.shadowRoot?.children || []), " \
          "...e.children]) { const t = deep(c); if (t) return t } return '' })(document.body)"  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """With stress, grades and uncertainties in the test set."""
    folder = fits.folder_with_potential(tmp_path_factory.mktemp("fit"))
    rng = np.random.default_rng(1)
    stress = rng.normal(0, 5, (12, 6))
    test = fits.compared(
        "test", 12, 1, stress=stress, stress_pred=stress + 0.1, grades=rng.uniform(0.5, 3, 48),
        energy_std=rng.uniform(0.005, 0.02, 12), forces_std=rng.uniform(0.02, 0.1, (48, 3)),
    )  # fmt: skip
    sets = [fits.compared("train", 30), test]
    return write_page(folder, fits.summary(sets), sets, fits.curves())


def test_the_page_asks_for_nothing_and_complains_of_nothing(page, browser):
    browser.open(page)
    browser.wait_for(READY)
    assert [address for address in browser.requests if not address.startswith("data:")] == [page.resolve().as_uri()]
    assert browser.complaints == []
    drawn = set(browser.value("[...document.querySelectorAll('[data-drawn]')].map(e => e.dataset.chart)"))
    expected = {f"{kind}-{which}" for kind in ("energy", "force") for which in ("train", "test")}
    expected |= {"stress-test", "grade-test", "std-energy-test", "std-force-test", "groups-rmse_epa"}
    expected |= {"groups-rmse_f_comp", "curve-loss-linear", "curve-rmse_epa-linear", "curve-rmse_f_comp-linear"}
    assert drawn == expected | {f"distribution-{name}" for name in ("energies", "volumes", "distances", "forces")}
    captions = browser.value("[...document.querySelectorAll('caption')].map(e => e.innerText)")
    assert sum("worst structures" in text for text in captions) == 2 and len(captions) == 11
    anchors = browser.value("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    assert anchors


def test_texts_of_the_user_stay_texts(page, browser):
    browser.open(page)
    browser.wait_for(READY)
    assert browser.value("window.hacked === undefined")
    assert browser.value("document.querySelectorAll('b').length") == 0
    cells = browser.value("[...document.querySelectorAll('td')].map(e => e.textContent)")
    assert fits.HOSTILE in cells
    assert fits.HOSTILE in browser.value("document.querySelector('#settings ~ details code').textContent")


@pytest.mark.parametrize(("key", "which", "words"), [
    ("energy-train", "train", ("structure", "group", "reference", "meV/atom")),
    ("force-test", "test", ("element", "Cu", "grade", "σ", "meV/Å")),
])  # fmt: skip
def test_a_hover_names_the_structure(page, browser, key, which, words):
    browser.open(page)
    browser.wait_for(READY)
    browser.value(f"document.getElementById('chart-{key}').scrollIntoView({{behavior: 'instant'}})")
    for _ in range(200):  # the page may move until all is drawn
        points = browser.value(POINTS.replace("KEY", key).replace("SET", which))
        point = max(points, key=lambda p: p["x"])  # at the end of the diagonal it stands alone
        assert which == "test" or fits.HOSTILE in point["text"]
        browser.move_mouse(point["x"] - 30, point["y"] + 30)
        browser.move_mouse(point["x"], point["y"])
        if text := browser.value(TOOLTIP):
            break
        time.sleep(0.1)
    assert point["text"] in text and all(word in text for word in words), text
    assert browser.value("window.hacked === undefined") and browser.complaints == []


@pytest.mark.parametrize("width", [800, 1280])
def test_the_page_fits_into_the_window(page, browser, width):
    browser.open(page, width)
    browser.wait_for(READY)
    assert browser.value("document.documentElement.scrollWidth") <= width
    rights = browser.value("[...document.querySelectorAll('.plot')].filter(e => e.offsetWidth).map("
                           "e => e.getBoundingClientRect().right)")  # fmt: skip
    assert max(rights) <= width


def test_controls(page, browser):
    browser.open(page)
    browser.wait_for(READY)
    browser.value("document.querySelector('input[data-shows=curve-log]').click()")
    browser.wait_for(READY)
    assert browser.value("document.getElementById('curve-linear').hidden && "
                         "document.querySelector('#curve-log .bk-Figure').offsetWidth > 300")  # fmt: skip
    count = "Bokeh.documents.flatMap(d => [...d.all_models]).filter(m => m.name === 'group 0' && m.visible).length"
    browser.wait_for(f"{count} > 4")
    browser.value("document.querySelector('input[data-group=\"0\"]').click()")
    assert browser.value(count) == 0 and browser.complaints == []


def test_one_small_set_without_groups(tmp_path, browser):
    one = fits.compared("train", 1)
    table = {name: values[:1] for name, values in fits.curves()["train"].items()}
    path = write_page(fits.folder_with_potential(tmp_path), fits.summary([one]), [one], {"train": table, "test": {}})
    browser.open(path)
    browser.wait_for(READY)
    assert browser.complaints == [] and browser.value("document.getElementById('groups') === null")


def test_many_points_are_sampled_with_the_worst_among_them(tmp_path):
    errors = np.random.default_rng(0).normal(size=70_000)
    kept = sample(errors)
    assert len(kept) == MOST == len(set(kept.tolist())) and np.array_equal(kept, sample(errors))
    worst = np.argsort(-np.abs(errors))[:WORST]
    assert set(worst.tolist()) <= set(kept.tolist())
    others = np.setdiff1d(kept, worst)  # a fair sample of the rest
    assert abs(errors[others].mean()) < 0.03 and abs((others < 35_000).mean() - 0.5) < 0.02
    assert np.array_equal(sample(errors[:MOST]), np.arange(MOST))
    one = fits.compared("train", 3000)
    path = write_page(fits.folder_with_potential(tmp_path), fits.summary([one]), [one], fits.curves())
    text = path.read_text()
    assert "20,000 of 36,000 force components of the training set are drawn: the 2,000 with the largest" in text
    assert path.stat().st_size < 4e6


def test_nothing_is_loaded_from_elsewhere(page):
    text = page.read_text()
    assert not re.search(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=.(?!data:)", text)
