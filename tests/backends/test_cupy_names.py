"""The stand-in for CuPy offers nothing that the real one lacks; looked up where CuPy is installed, GPU or not."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
USERS = (
    *(f"pacehpc/backends/{name}.py" for name in ("cuda", "device", "device_batches", "device_launch", "device_memory")),
    "pacehpc/backends/device_rows.py",
    "benchmarks/gpu_check.py",
)
# what the tests alone use of the stand-in
CONTROLS = {
    "order", "launches", "cuda.submit", "cuda.refuse_while_recording", "cuda.MemoryPointer.block", "cuda.nvtx.ranges",
    "cuda.Stream.device", "cuda.Stream.synchronizations", "cuda.Stream.recorded", "cuda.Graph.calls",
    "cuda.Graph.launches", "cuda.Event.time",
}  # fmt: skip
# run without the stand-in: does every name exist, and can these parameters be named? Compiled functions give their
# signature in the first line of their description.
LOOK_UP = """
import inspect, json, re, sys
import cupy
faults, seen = [], 0
for name, parameters in json.loads(sys.argv[1]).items():
    found = cupy
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        faults.append(f"cupy.{name} does not exist")
        continue
    if parameters:
        try:
            signature = str(inspect.signature(found))
        except (TypeError, ValueError):
            signature = found.__doc__.strip().splitlines()[0]
        named = re.findall(r"(\\w+)\\s*(?:=|,|\\)|:)", signature)
        faults += [f"cupy.{name} has no parameter {key}: {signature}" for key in parameters if key not in named]
        seen += len(parameters)
print(json.dumps({"version": cupy.__version__, "faults": faults, "parameters": seen}))
"""


def names_of(module: ModuleType) -> dict[str, list[str]]:
    """Public names of the stand-in, each with the parameters that a call can name."""
    found: dict[str, list[str]] = {}

    def parameters(function: object) -> list[str]:
        kinds = inspect.signature(function).parameters.values()
        return [p.name for p in kinds if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]

    def add(holder: object, prefix: str) -> None:
        for key, value in vars(holder).items():
            value, name = getattr(value, "__func__", value), prefix + key
            space = name in ("cuda", "cuda.memory")
            ours = space or isinstance(value, property) or getattr(value, "__module__", "").startswith("cupy")
            if key.startswith("_") or name in CONTROLS or not ours:
                continue
            callable_ = inspect.isfunction(value) or inspect.isclass(value)
            found[name] = parameters(value) if callable_ and not issubclass_of_error(value) else []
            if space or inspect.isclass(value):
                add(value, name + ".")

    add(module, "")
    return found


def issubclass_of_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def look_up(names: dict[str, list[str]]) -> dict[str, object]:
    """Faults of the names in the CuPy that is installed; skips the test where there is none."""
    command = [sys.executable, "-P", "-c", LOOK_UP, json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "No module named 'cupy'" in done.stderr:
        pytest.skip("CuPy is not installed: pip install cupy-cuda12x (it needs no GPU for this)")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_stand_in_has_nothing_that_cupy_lacks(fake_cupy):
    names = names_of(fake_cupy)
    assert names["cuda.MemoryPool.set_limit"] == ["size"] and names["RawModule"] == ["code", "options", "backend"]
    assert len(names) > 40
    found = look_up(names)
    assert not found["faults"] and found["parameters"] > 5, found


def test_cupy_has_every_name_that_is_used():
    names = {name for path in USERS for name in re.findall(r"cupy\.([A-Za-z][\w.]*)", (ROOT / path).read_text())}
    names = {name.removeprefix("cupy.") for name in names}
    assert {"RawModule", "cuda.runtime.getDeviceProperties", "cuda.nvtx.RangePush", "matmul"} <= names
    names.add("_core.core.assemble_cupy_compiler_options")  # where headers are looked for
    found = look_up({name: [] for name in names})
    assert not found["faults"], found
