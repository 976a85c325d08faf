"""`pacehpc validate`: physical properties of a potential, beside reference values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pacehpc import parallel
from pacehpc.errors import PacehpcError
from pacehpc.yamlio import load_yaml

PROPERTIES = ("eos", "elastic", "phonons", "vacancy", "surfaces", "dynamics", "dimers")


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc validate",
        description="Compute lattice constants, elastic constants, energy-volume and dimer curves, phonons, vacancy and "
        "surface energies and the energy drift of a short run. With mpirun the properties are shared out over the ranks.",
    )
    add = p.add_argument
    add("potential", help="potential file (.yaml or .yace)")
    add(
        "--structures", nargs="+", default=[], metavar="FILE", help="crystals beside the elements' own (CIF, POSCAR, …)"
    )
    add(
        "--reference",
        metavar="FILE",
        help="YAML: values by crystal and property, such as `Al fcc: {a: 4.05, C11: 114}`",
    )
    add("--properties", nargs="+", choices=PROPERTIES, metavar="NAME", help=f"some of: {', '.join(PROPERTIES)}")
    add(
        "-o",
        "--output",
        default="validation",
        metavar="FOLDER",
        help="of the JSON and the figures; default: %(default)s",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command, by all ranks together."""
    arguments = parser().parse_args(argv)
    comm = parallel.world()
    return parallel.run(lambda: _validate(arguments, comm), comm)
