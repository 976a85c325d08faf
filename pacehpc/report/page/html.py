"""Templates, and all that a page needs written into it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bokeh.resources import INLINE
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from pacehpc.replacing import replace_file
from pacehpc.report.page.charts import Chart

HERE = Path(__file__).parent


def write_html(path: Path, template: str, charts: Sequence[Chart], known: Mapping[str, Any], **content: Any) -> None:
    """Write a page.

    Args:
        path: of the file.
        template: its name in this folder.
        charts: all figures that the template shows.
        known: what scripts of the page look up, JSON.
        content: of the template. All texts are escaped there.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    data = {**known, "charts": {chart.key: chart.item for chart in charts}}
    text = environment.get_template(template).render(
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        library=Markup("\n".join(INLINE.js_raw[:1])),
        data=Markup(script_json(data)),
        **content,
    )
    replace_file(path, text.encode())


def script_json(data: Any) -> str:
    """JSON that stands in a script element: no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
