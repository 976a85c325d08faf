"""Sphinx configuration: `make docs` builds these pages into site/. Nothing in the site is loaded from the network."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "pacehpc"
author = "pacehpc developers"
copyright = "pacehpc developers"
version = release = _project["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_*"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
highlight_language = "text"

# Docstrings use single backticks for code.
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_display_short_literal_types = True

html_theme = "furo"
html_title = f"pacehpc {version}"
html_static_path = ["_static"]
html_css_files = ["pacehpc.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": False}
pygments_style = "tango"
pygments_dark_style = "monokai"


def _mathml(latex: str, display: str) -> str:
    """Convert a formula to MathML, which browsers render without scripts or fonts from elsewhere."""
    text = convert(latex, display=display)
    if match := re.search(r"<m(?:i|o|text)>\\\w+", text):
        raise ValueError(f"latex2mathml does not know {match[0]} in {latex}")
    return text


def _inline(self, node: nodes.math) -> None:
    self.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(self, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
