"""Potentials in files: B-basis YAML, and the .yace files of LAMMPS."""

from __future__ import annotations

import os
from contextlib import suppress

from pacehpc.errors import PacehpcError
from pacehpc.potential.bbasis_yaml import read_bbasis, write_bbasis
from pacehpc.potential.check import warn_of_jumps
from pacehpc.potential.model import Potential
from pacehpc.potential.padding import padded
from pacehpc.potential.yace import write_yace
from pacehpc.potential.yace_reading import read_yace


def load_potential(path: str | os.PathLike[str]) -> Potential:
    """Read a B-basis YAML file or, by its name, a .yace file.

    Raises:
        PacehpcError: whatever is wrong, with file, block and key.
    """
    with suppress(OSError), open(path, "rb") as file:
        if file.read(200).lstrip().startswith(b"nelements="):
            raise PacehpcError(
                f"{path}: a potential in the text format of before October 2021 (.ace), which is not read. Take the "
                "B-basis file (.yaml) that it was exported from: pacehpc and LAMMPS read that, and pace_yaml2yace "
                "makes a .yace of it. Without it, the potential has to be fitted again."
            )
    return read_yace(path) if os.fspath(path).endswith(".yace") else read_bbasis(path)


def save_potential(potential: Potential, path: str | os.PathLike[str]) -> None:
    """Write a B-basis YAML file: 17 significant digits, beside the final name, then renamed."""
    write_bbasis(potential, path)


def export_yace(potential: Potential, path: str | os.PathLike[str]) -> None:
    """Write the C-tilde file that LAMMPS' pair_style pace reads, all elements with the same number of densities."""
    warn_of_jumps(potential.bonds)
    write_yace(potential, path)


def export_bbasis(potential: Potential, path: str | os.PathLike[str]) -> None:
    """Write a B-basis YAML file that LAMMPS can read as well: all elements have the same number of densities."""
    warn_of_jumps(potential.bonds)
    write_bbasis(padded(potential), path)
