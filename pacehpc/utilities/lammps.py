"""`pacehpc lammps`: the plugin of a potential."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pacehpc.active.active_set import ActiveSet
from pacehpc.backends.program import Grades
from pacehpc.errors import PacehpcError
from pacehpc.lammps.build import build_plugin
from pacehpc.lammps.target import find_target
from pacehpc.potential import Potential
from pacehpc.utilities.command import command

SUFFIX = "plugin.so"
"""End of the names that LAMMPS loads by itself from $LAMMPS_PLUGIN_PATH."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Build the plugin of a potential and say how to use it."""
    parser = argparse.ArgumentParser(
        prog="pacehpc lammps",
        description="Build a LAMMPS plugin that holds a potential: its kernels, its tables and a pair style.",
    )
    add = parser.add_argument
    add("potential", help="potential file (.yaml, .yace)")
    add("-o", "--output", metavar="FILE", help=f"plugin to write; default: the potential's name with {SUFFIX}")
    add("-a", "--asi", metavar="FILE", help="active set (.asi), for extrapolation grades through `fix pair`")
    add("--lmp", metavar="PROGRAM", help="LAMMPS program that will load it; default: lmp on PATH")
    add("--headers", metavar="FOLDER", help="folder of LAMMPS's headers (pair.h); default: found beside the program")
    add("--mpi-headers", metavar="FOLDER", help="folder of mpi.h; default: found beside the program or by mpicxx")
    arguments = parser.parse_args(argv)
    name = Path(arguments.potential)
    output = Path(arguments.output) if arguments.output else name.with_name(name.stem + SUFFIX)
    if output.is_dir() or not output.parent.is_dir():
        raise PacehpcError(f"-o {output}: is not a file in an existing folder; name one.")
    start = time.perf_counter()
    potential = Potential.load(name)
    grades = None
    if arguments.asi:
        active_set = ActiveSet.load(arguments.asi, potential)
        found, empty = active_set.inverses, np.zeros((0, 0))
        grades = {element: Grades(found.get(element, empty), active_set.full) for element in potential.elements}
    target = find_target(arguments.lmp, arguments.headers, arguments.mpi_headers)
    build_plugin(potential, name.name, output, target, grades)
    seconds = time.perf_counter() - start
    print(f"{output}: {', '.join(potential.elements)}, for LAMMPS {target.version_name} ({seconds:.1f} s)")
    place = output if output.parent != Path() else f"./{output}"  # a bare name would be sought among libraries
    print(f"    plugin load {place}\n    pair_style pacehpc\n    pair_coeff * * {' '.join(potential.elements)}")
    return 0
