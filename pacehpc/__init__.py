"""Fits atomic cluster expansion (PACE) potentials on many cores and GPUs over MPI."""

from __future__ import annotations

from typing import Any

_HOMES = {
    "Potential": "pacehpc.potential",
    "Dataset": "pacehpc.dataset",
    "load_dataset": "pacehpc.dataset",
    "Objective": "pacehpc.objective",
    "PaceCalculator": "pacehpc.calculator",
    "Ranks": "pacehpc.parallel",
    "build_potential": "pacehpc.potential",
    "export_yace": "pacehpc.potential",
    "projections": "pacehpc.calculator",
}

__all__ = [
    "Dataset",
    "Objective",
    "PaceCalculator",
    "Potential",
    "Ranks",
    "__version__",
    "build_potential",
    "export_yace",
    "load_dataset",
    "projections",
]


def __getattr__(name: str) -> Any:
    # lazy, so that the command's help and login nodes do not wait for, or fail on, what they do not use
    if name == "__version__":
        from importlib.metadata import version

        return version("pacehpc")
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pacehpc' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
