"""The table of docs/architecture.md is the list of layers that import-linter checks."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_layers_are_the_rows_of_the_page():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("| --- | --- | --- |\n", 1)[1].split("\n\n", 1)[0]
    rows = [re.findall(r"`(\w+)/?`", line.split("|")[1]) for line in table.splitlines()]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    assert rows == [layer.split(" | ") for layer in reversed(layers)]


def test_modules_are_small():
    sizes = {path: len(path.read_text().splitlines()) for path in (ROOT / "pacehpc").rglob("*.py")}
    assert {str(path): size for path, size in sizes.items() if size > 500} == {}
