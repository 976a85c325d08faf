"""`pacehpc corerep`: core repulsion and inner cutoffs of a potential that is fitted already."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential, export_yace
from pacehpc.utilities.command import command
from pacehpc.utilities.splines import warn_of_coarse_bins

CHANGES = ("r_in", "delta_in", "core_repulsion", "rho_core_cut", "drho_core_cut", "inner_cutoff_type")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="pacehpc corerep",
        description="Change the core repulsion and the inner cutoff of a fitted potential. What is not given stays.",
    )
    add = p.add_argument
    add("potential", help="potential file (.yaml or .yace)")
    add("-o", "--output", required=True, help="potential file to write (.yaml; .yace: for LAMMPS)")
    add("-b", "--bond", default="ALL", help="ALL, UNARY, BINARY, or elements such as AlNi; default: %(default)s")
    add("--r-in", type=float, help="Å; the radial functions end, and the repulsion begins, below it")
    add("--delta-in", type=float, help="Å, width of the transition")
    add("--core-repulsion", type=float, nargs=2, metavar=("PREFACTOR", "LAMBDA"))
    add("--rho-core-cut", type=float, help="eV")
    add("--drho-core-cut", type=float, help="eV")
    add("--inner-cutoff-type", choices=("distance", "density", "zbl"))
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Change one file into another."""
    arguments = parser().parse_args(argv)
    changes = {name: getattr(arguments, name) for name in CHANGES if getattr(arguments, name) is not None}
    if not changes:
        raise PacehpcError("nothing to change: give for instance --r-in 1.5 --delta-in 0.1 --core-repulsion 100 1")
    potential = Potential.load(arguments.potential)
    potential.set_core_repulsion(arguments.bond, **changes)
    if arguments.output.endswith(".yace"):
        export_yace(potential, arguments.output)
        warn_of_coarse_bins(potential)
    else:
        potential.save(arguments.output)
    print(f"{arguments.potential} -> {arguments.output}: {arguments.bond}: {changes}")
    return 0
