"""The documentation as a site: it builds without warnings, needs no network, and fits into a browser's window."""

from __future__ import annotations

import functools
import html
import http.server
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from environments import cannot_run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if any(importlib.util.find_spec(name) is None for name in ("sphinx", "furo", "myst_parser", "latex2mathml")):
        cannot_run("needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", folder / "doctrees"]
    done = subprocess.run([*command, DOCS, folder / "site"], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder / "site"


def text_of(markdown: str) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```$|`[^`]*`", "", markdown, flags=re.MULTILINE | re.DOTALL)


def test_every_page_is_there_and_in_the_navigation(site):
    landing = (site / "index.html").read_text(encoding="utf-8")
    for name in PAGES:
        assert (site / f"{name}.html").is_file()
        assert name == "index" or f'href="{name}.html"' in landing, name


def test_nothing_is_loaded_from_the_network(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        tags = re.findall(r"<(?:script|img|link|iframe|source)\b[^>]*>", text)
        loaded = [match for tag in tags for match in re.findall(r"\b(?:src|href)=\"((?:https?:)?//[^\"]*)", tag)]
        assert not loaded, f"{path.name}: {loaded}"
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), path


def test_every_formula_is_mathml(site):
    for name in PAGES:
        source = text_of((DOCS / f"{name}.md").read_text(encoding="utf-8"))
        formulas = re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", source, re.DOTALL)
        built = (site / f"{name}.html").read_text(encoding="utf-8")
        assert built.count("<math ") >= len(formulas), name
        shown = html.unescape(re.sub(r"<(script|style|pre|code)\b.*?</\1>|<[^>]*>", "", built, flags=re.DOTALL))
        assert not re.search(r"\$\$|\\\(|\\[a-z]{3,}", shown), name


@pytest.mark.slow
def test_pages_fit_into_the_window_and_the_search_finds(site, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs one of {', '.join(BROWSERS)}")
    script = (Path(__file__).parent / "site_layout.html").read_text(encoding="utf-8")
    (site / "layout.html").write_text(script.replace("PAGES", json.dumps([f"{name}.html" for name in PAGES]), 1))
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", "--dump-dom"]
        options.append(f"--user-data-dir={tmp_path / 'profile'}")
        address = f"http://127.0.0.1:{server.server_port}/layout.html"
        command = [browser, *options, "--virtual-time-budget=200000", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        server.shutdown()
    match = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-500:] + done.stderr[-500:]
    result = json.loads(html.unescape(match[1]))
    assert not result["found"], "\n".join(result["found"])
    assert any(hit.startswith("input.html") for hit in result["hits"]), result["hits"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that prints nothing."""

    def log_message(self, *arguments: object) -> None:
        pass
