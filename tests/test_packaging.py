"""Recipes, citation and changelog agree with pyproject.toml."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = dict(requirement.split(">=") for requirement in PROJECT["dependencies"])


def test_conda_recipe():
    recipe = yaml.safe_load((PACKAGING / "conda" / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == PROJECT["version"]
    assert recipe["context"]["python_min"] == PROJECT["requires-python"].removeprefix(">=")
    assert recipe["about"]["summary"] == PROJECT["description"] and recipe["about"]["license"] == PROJECT["license"]
    needed = dict(line.split(" >=") for line in recipe["requirements"]["run"] if " >=" in line)
    needed["matplotlib"] = needed.pop("matplotlib-base")  # without a graphical toolkit
    assert needed.pop("python") == "${{ python_min }}" and needed == DEPENDENCIES
    commands = dict(line.split(" = ") for line in recipe["build"]["python"]["entry_points"])
    assert commands == PROJECT["scripts"]


def test_spack_package():
    text = (PACKAGING / "spack" / "packages" / "py_pacehpc" / "package.py").read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and node.args]
    named = [(call.func.id, call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)]
    assert ("version", PROJECT["version"]) in named and ("license", PROJECT["license"]) in named
    found = dict(re.fullmatch(r"(?:py-)?([\w-]+)@([\d.]+):", spec).groups() for _, spec in named if "@" in spec)
    assert found.pop("python") == PROJECT["requires-python"].removeprefix(">=")
    assert found.pop("hatchling") == "1.24" and found.pop("cupy") == "14" and found == DEPENDENCIES


def test_apptainer_definition():
    text = (PACKAGING / "apptainer" / "pacehpc.def").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", text, re.MULTILINE | re.DOTALL))
    copied = [line.split() for line in sections["files"].splitlines() if line.strip()]
    assert all((ROOT / source).exists() and target == f"/opt/pacehpc/{source}" for source, target in copied)
    assert "pip install --no-cache-dir '/opt/pacehpc[mpich]'" in sections["post"]
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} <= {source for source, _ in copied}


def test_citation_and_changelog_have_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[?([\w.]+)\]?", changes, re.MULTILINE)
    assert PROJECT["version"] == next(name for name in versions if name != "Unreleased")
