"""`pacehpc corerep`, `pace_corerep`: core repulsion and inner cutoffs of a potential that is fitted already."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pacehpc.active.active_set import ActiveSet
from pacehpc.active.compression import shortest_reliable
from pacehpc.active.grader import Grader
from pacehpc.active.structure_files import read_structures
from pacehpc.basis import element_names
from pacehpc.errors import PacehpcError
from pacehpc.fit.repulsion import check_zbl, with_zbl
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential, export_yace
from pacehpc.utilities.activeset import asi_name
from pacehpc.utilities.command import command, ready_backend, run_on_ranks
from pacehpc.utilities.splines import warn_of_coarse_bins

log = logging.getLogger("pacehpc")
CHANGES = ("r_in", "delta_in", "core_repulsion", "rho_core_cut", "drho_core_cut", "inner_cutoff_type")


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc corerep",
        description="Change the core repulsion and the inner cutoff of a fitted potential. With -d, a ZBL core takes "
        "over below the shortest distance of each bond at which compressed structures of the data have small grades. "
        "Without, what is given changes and the rest stays.",
    )
    add = p.add_argument
    add("potential", help="potential file (.yaml or .yace)")
    add(
        "-o",
        "--output",
        default="auto",
        help="potential file to write (.yaml; .yace: for LAMMPS); auto: NAME_core.yaml",
    )
    by_grade = p.add_argument_group("by extrapolation grade").add_argument
    by_grade("-d", "--dataset", nargs="+", action="extend", metavar="FILE", help="training data")
    by_grade("-a", "--active-set", dest="active_set", metavar="ASI", help="default: the potential's name with .asi")
    by_grade("-nnstep", dest="step", type=float, default=0.05, help="Å, of the compression; default: %(default)s")
    by_grade("-nnmin", dest="shortest", type=float, default=1.0, help="Å, shortest distance; default: %(default)s")
    by_grade("-nnmax", dest="longest", type=float, default=2.5, help="Å, longest distance; default: %(default)s")
    by_grade("-n", dest="structures", type=int, default=50, help="structures to compress; default: %(default)s")
    by_grade("-g", "--gamma", type=float, default=10.0, help="largest reliable grade; default: %(default)s")
    by_grade("--inner-cutoff", nargs="+", default=[], metavar="BOND:R", help="fixed instead, such as Al:1.5 Cu-Cu:1.6")
    by_grade("--backend", default="auto", help="auto, cpu, cuda or reference; default: %(default)s")
    by_hand = p.add_argument_group("by hand").add_argument
    by_hand("-b", "--bond", default="ALL", help="ALL, UNARY, BINARY, or elements such as AlNi; default: %(default)s")
    by_hand("--r-in", type=float, help="Å; the radial functions end, and the repulsion begins, below it")
    by_hand("--delta-in", type=float, help="Å, width of the transition")
    by_hand("--core-repulsion", type=float, nargs=2, metavar=("PREFACTOR", "LAMBDA"))
    by_hand("--rho-core-cut", type=float, help="eV")
    by_hand("--drho-core-cut", type=float, help="eV")
    by_hand("--inner-cutoff-type", choices=("distance", "density", "zbl"))
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    arguments = parser().parse_args(argv)
    return run_on_ranks(_by_grade, arguments) if arguments.dataset else _by_hand(arguments)


@command
def _by_hand(arguments: argparse.Namespace) -> int:
    changes = {name: getattr(arguments, name) for name in CHANGES if getattr(arguments, name) is not None}
    if not changes:
        raise PacehpcError(
            "nothing to change: give -d DATA for a core by grade, or for instance "
            "--r-in 1.5 --delta-in 0.1 --core-repulsion 100 1"
        )
    if arguments.output == "auto":
        raise PacehpcError("-o: name the potential file to write.")
    potential = Potential.load(arguments.potential)
    potential.set_core_repulsion(arguments.bond, **changes)
    _save(potential, arguments.output)
    print(f"{arguments.potential} -> {arguments.output}: {arguments.bond}: {changes}")
    return 0


def _by_grade(arguments: argparse.Namespace, ranks: Ranks) -> int:
    if not 0 < arguments.shortest < arguments.longest or arguments.step <= 0:
        raise PacehpcError("-nnmin, -nnmax, -nnstep: 0 < nnmin < nnmax and a step above 0 are needed.")
    potential = ranks.share(lambda: Potential.load(arguments.potential))
    fixed = ranks.share(lambda: _fixed(arguments.inner_cutoff, potential))
    active_set = ranks.share(lambda: ActiveSet.load(arguments.active_set or asi_name(arguments.potential), potential))
    structures = ranks.share(lambda: read_structures(arguments.dataset).atoms)
    numbers = np.unique(np.linspace(0, len(structures) - 1, arguments.structures).round().astype(int))
    own = [structures[k] for k in numbers[ranks.rank :: ranks.size].tolist()]
    grader = Grader(potential, active_set, ready_backend(arguments.backend, potential, ranks, rows=True))
    found = shortest_reliable(
        own, grader.grades, arguments.gamma, arguments.shortest, arguments.longest, arguments.step
    )
    shortest: dict[tuple[str, str], float] = {}
    for part in ranks.gather_everywhere(found):
        for pair, distance in part.items():
            shortest[pair] = min(shortest.get(pair, np.inf), distance)
    shortest |= fixed
    ranks.on_root(lambda: check_zbl(potential, shortest))

    def write() -> None:
        output = arguments.output
        if output == "auto":
            output = str(Path(arguments.potential).with_suffix("")) + "_core.yaml"
        _save(with_zbl(potential, shortest), output)
        log.info("%s written", output)

    ranks.on_root(write)
    return 0


def _fixed(given: Sequence[str], potential: Potential) -> dict[tuple[str, str], float]:
    """Inner cutoffs of the command line by sorted pair."""
    found = {}
    for text in given:
        bond, _, value = text.partition(":")
        try:
            names, distance = element_names(bond.replace("-", " "), potential.elements, "--inner-cutoff"), float(value)
        except (ValueError, PacehpcError) as error:
            raise PacehpcError(f"--inner-cutoff {text}: give BOND:R, such as Al:1.5 or Cu-Cu:1.6.") from error
        pair = tuple(sorted(names * 2 if len(names) == 1 else names))
        if pair not in potential.bonds:
            raise PacehpcError(f"--inner-cutoff {text}: the potential has no bond {' '.join(pair)}.")
        if not 0 < distance < potential.bonds[pair].rcut:
            raise PacehpcError(f"--inner-cutoff {text}: {distance} Å is not between 0 and rcut.")
        found[pair] = distance
    return found


def _save(potential: Potential, output: str) -> None:
    if output.endswith(".yace"):
        export_yace(potential, output)
        warn_of_coarse_bins(potential)
    else:
        potential.save(output)
