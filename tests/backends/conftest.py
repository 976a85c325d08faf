"""Structures with random targets; the stand-in for CuPy, so that the cuda backend runs on machines without a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from ase.io import read
from cuda_cases import with_random_targets

from pacehpc import Potential
from pacehpc.structures import Structures

FAKE_CUPY = Path(__file__).resolve().parents[1] / "fake_cupy"


@pytest.fixture
def case(golden: Path, brute_force: Callable) -> Callable[[str], tuple[Potential, Structures]]:
    """(potential, structures with random targets) of a golden potential by its name."""

    def make(name: str) -> tuple[Potential, Structures]:
        potential = Potential.load(golden / "potentials" / f"{name}.yaml")
        frames = read(golden / "potentials" / f"{name}.extxyz", ":")
        return potential, with_random_targets(brute_force(potential, frames))

    return make


@pytest.fixture
def fake_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`import cupy` finds tests/fake_cupy, with its checks; the real one, if any, is there again afterwards."""
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "cupy"}
    monkeypatch.syspath_prepend(str(FAKE_CUPY))
    monkeypatch.setenv("FAKE_CUPY_CHECKS", "1")
    import cupy

    cupy.order.threads = "ascending"
    cupy.launches.clear()
    yield cupy
    for name in [name for name in sys.modules if name.split(".")[0] == "cupy"]:
        del sys.modules[name]
    sys.modules.update(real)
