"""Names in a potential, an input or the environment reach no shell, no compiled text and no other folder."""

from __future__ import annotations

import re
import subprocess

import pytest
from test_fuzz import POTENTIAL

from pacehpc.backends import compile as compiling
from pacehpc.backends.shape import make_shape
from pacehpc.config import load_settings
from pacehpc.dataset import database
from pacehpc.errors import PacehpcError
from pacehpc.fit.stopping import load_callbacks
from pacehpc.potential import Potential

CRAFTED = [
    "Al; touch pwned",
    "../../pwned",
    "$(touch pwned)",
    'Al"\n#include "/etc/passwd"',
    "-fplugin=pwned.so",
    "Al\\\n",
]


@pytest.mark.parametrize("name", CRAFTED)
@pytest.mark.parametrize("key", ["element", "npoti", "radbase", "inner_cutoff_type"])
def test_crafted_names_in_a_potential_are_refused(tmp_path, monkeypatch, key, name):
    monkeypatch.chdir(tmp_path)
    POTENTIAL.save("p.yaml")
    text = (tmp_path / "p.yaml").read_text()
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    pattern = r"speciesblock: Al$" if key == "element" else rf"{key}: \S+$"
    damaged, count = re.subn(pattern, lambda m: f"{m.group().split(':')[0]}: {quoted}", text, flags=re.MULTILINE)
    assert count > 0
    (tmp_path / "p.yaml").write_text(damaged)
    with pytest.raises(PacehpcError):
        Potential.load("p.yaml")
    assert [p.name for p in tmp_path.iterdir()] == ["p.yaml"]


def test_the_compiled_text_is_made_of_numbers_and_known_names():
    potential = POTENTIAL.copy()
    potential.metadata = {name: name for name in CRAFTED}
    plain, crafted = (make_shape(p).header(stress=False) for p in (POTENTIAL, potential))
    assert plain == crafted
    assert re.fullmatch(r"[\w\s#{}(),.+\-*/\\=<>;:\[\]&|!?]*", plain) and "include" not in plain


def test_instruction_set_and_compiler_are_single_arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = []
    real = subprocess.run

    def run(command, **options):
        assert isinstance(command, list) and not options.get("shell")
        commands.append(command)
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("PACEHPC_MARCH", "native -fplugin=pwned.so; touch pwned")
    monkeypatch.setenv("PACEHPC_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PacehpcError, match="PACEHPC_MARCH"):
        compiling.compile_library("")
    assert commands and all("-march=native -fplugin=pwned.so; touch pwned" in c or "--version" in c for c in commands)
    monkeypatch.setenv("CXX", "g++ -fplugin=pwned.so")
    with pytest.raises(PacehpcError, match="not a program"):
        compiling.compiler()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "name", ["os.system('touch pwned')", "__import__('os').system", "lambda: 0", "os", "a.b.c;d", 3]
)
def test_callbacks_are_names_of_functions(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PacehpcError, match="importable function"):
        load_settings(None, {"fit.callbacks": [name]})
    assert list(tmp_path.iterdir()) == []


def test_no_other_key_imports_anything(tmp_path, monkeypatch):
    """A module in the working directory runs when fit.callbacks names it, and not otherwise."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("open('ran', 'w')\ndef after(**kw): pass\n")
    for key in ("fit.optimizer", "backend.evaluator", "fit.weighting", "data.reference_energy"):
        with pytest.raises(PacehpcError):
            load_settings(None, {key: "mine.after"})
    load_settings(None, {"fit.callbacks": ["mine.after"]})
    assert not (tmp_path / "ran").exists()
    load_callbacks(["mine.after"])
    assert (tmp_path / "ran").exists()


def test_the_kept_query_stays_in_its_folder():
    name = database.cache_name("../../etc/$(x);a b", ["Ni", "Al"])
    assert re.fullmatch(r"df-[\w.+-]+-AlNi\.pckl\.gzip", name) and "/" not in name
