"""docs/errors.md names every message that a user may meet, and none that is gone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE, PAGE = ROOT / "pacehpc", ROOT / "docs" / "errors.md"
RAISED = {"PacehpcError", "AgreedError", "KeyedError", "Refused", "fail", "CudaUnavailable"}

# where warnings are about GPUs
WARNINGS = {"backends/__init__.py", "backends/cuda.py", "objective.py"}


def pattern(node: ast.expr) -> str:
    """The text of a message with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(pattern(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return pattern(node.left) + pattern(node.right)
    return "…"


def shown(text: str) -> str:
    """As the page shows it: on one line, without what begins and ends it where that is filled in."""
    text = re.sub(r"…(\W*…)+", "…", " ".join(text.split()))
    return text.replace("`", "'").strip()


def messages() -> dict[str, str]:
    """Every message of the package -> the module that it comes from."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name, module = getattr(node.func, "id", getattr(node.func, "attr", "")), str(path.relative_to(PACKAGE))
            if name == "warning" and module in WARNINGS:
                text = shown(re.sub(r"%[.\d]*[sdfg]", "…", pattern(node.args[0])))
            elif name in RAISED or (name == "ValueError" and path.parent.name in ("config", "schema")):
                text = shown(pattern(node.args[-1 if name in ("KeyedError", "fail") else 0]))
            else:
                continue
            if len(re.sub(r"[\W\d_]", "", text)) >= 8:
                found.setdefault(text, module)
    return found


def test_every_message_has_an_entry_with_cause_and_cure():
    page = PAGE.read_text()
    missing = [f"{module}: {text}" for text, module in messages().items() if f"- `{text}`" not in page.split("\n")]
    assert not missing, f"add these to a section of docs/errors.md: {missing}"
    for section in page.split("\n## ")[1:]:
        for part in section.split("\n### ")[1:]:
            assert "\nCause: " in part and "\nCure: " in part and "\n- `" in part, part.split("\n")[0]


def test_no_entry_is_stale():
    known = set(messages())
    listed = re.findall(r"^- `(.*)`$", PAGE.read_text(), re.MULTILINE)
    assert len(listed) > 200 and [text for text in listed if text not in known] == []
