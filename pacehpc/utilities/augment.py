"""`pacehpc augment`, `pace_augment`: structures at short and long distances with labels that cost nothing."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from ase import Atoms

from pacehpc.active.active_set import ActiveSet
from pacehpc.active.augmentation import Label, Ranges, augmented
from pacehpc.active.compression import nearest_distance
from pacehpc.active.grader import Grader
from pacehpc.active.structure_files import read_structures
from pacehpc.dataset.frames import write_frame
from pacehpc.errors import PacehpcError
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential
from pacehpc.utilities.activeset import asi_name
from pacehpc.utilities.command import ready_backend, run_on_ranks

log = logging.getLogger("pacehpc")


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc augment",
        description="Compress and stretch structures of the training data to where the potential is not reliable, and "
        "label them: by ZBL's repulsion at short distances, by an equation of state of the potential's own reliable "
        "energies elsewhere. A fit reads the file as further data; data.aug_factor scales the weights of its rows.",
    )
    add = p.add_argument
    add("potential", help="potential file (.yaml or .yace)")
    add("-d", "--dataset", nargs="+", action="extend", required=True, metavar="FILE", help="training data")
    add("-a", "--active-set", dest="active_set", metavar="ASI", help="default: the potential's name with .asi")
    add("-m", "--max-structures", dest="rows", type=int, metavar="N", help="at most so many augmented structures")
    add("-o", "--output", default="aug_df.pkl.gz", help="frame to write; default: %(default)s")
    add(
        "-mnat",
        "--max-num-atoms",
        dest="atoms",
        type=int,
        default=32,
        help="atoms of a seed at most; default: %(default)s",
    )
    add("-mss", "--max-seed-structures", dest="seeds", type=int, default=100, help="default: %(default)s")
    add("-minepa", "--min-epa", dest="lowest", type=float, default=-np.inf, help="lowest energy, eV/atom")
    add(
        "-maxepa", "--max-epa", dest="highest", type=float, default=150.0, help="highest, eV/atom; default: %(default)s"
    )
    add(
        "-eparmax",
        dest="error",
        type=float,
        default=0.05,
        help="error of the equation of state; default: %(default)s eV/atom",
    )
    add("-nnstep", "--nn-distance-step", dest="step", type=float, default=0.1, help="Å; default: %(default)s")
    add("-nnmin", "--nn-distance-min", dest="shortest", type=float, default=1.0, help="Å; default: %(default)s")
    add(
        "-g",
        "--gamma",
        type=float,
        default=10.0,
        help="grade up to which the potential is reliable; default: %(default)s",
    )
    add("--backend", default="auto", help="auto, cpu, cuda or reference; default: %(default)s")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return run_on_ranks(_augment, parser().parse_args(argv))


def _augment(arguments: argparse.Namespace, ranks: Ranks) -> int:
    if arguments.step <= 0 or arguments.shortest <= 0:
        raise PacehpcError("-nnstep and -nnmin must be above 0.")
    potential = ranks.share(lambda: Potential.load(arguments.potential))
    name = arguments.active_set or asi_name(arguments.potential)
    active_set = ranks.share(lambda: ActiveSet.load(name, potential))
    seeds = ranks.share(
        lambda: choose_seeds(read_structures(arguments.dataset).atoms, arguments.atoms, arguments.seeds)
    )
    grader = Grader(potential, active_set, ready_backend(arguments.backend, potential, ranks, rows=True))
    ranges = Ranges(
        shortest=arguments.shortest, step=arguments.step, lowest=arguments.lowest, highest=arguments.highest,
        grade=arguments.gamma, error=arguments.error,
    )  # fmt: skip
    own = [
        (k, augmented(seeds[k], grader.energies, grader.grades, ranges))
        for k in range(ranks.rank, len(seeds), ranks.size)
    ]
    parts = ranks.gather(own)
    ranks.on_root(lambda: _write(dict(one for part in parts for one in part), arguments))
    return 0


def choose_seeds(structures: Sequence[Atoms], most_atoms: int, most: int) -> list[Atoms]:
    """Choose structures to scale: small, of each composition the most compact and others evenly among its densities.

    Raises:
        PacehpcError: no structure is small enough.
    """
    small = [atoms for atoms in structures if len(atoms) <= most_atoms and np.isfinite(nearest_distance(atoms))]
    if not small:
        raise PacehpcError(f"-mnat {most_atoms}: no structure of the data has at most so many atoms.")
    groups: dict[str, list[Atoms]] = {}
    for atoms in small:
        groups.setdefault(atoms.symbols.get_chemical_formula(empirical=True), []).append(atoms)
    share = max(1, most // len(groups))
    chosen = []
    for group in groups.values():
        group.sort(key=nearest_distance)
        chosen += [group[k] for k in np.unique(np.linspace(0, len(group) - 1, share).round().astype(int)).tolist()]
    return chosen[:most]


def _write(found: dict[int, list[Label]], arguments: argparse.Namespace) -> None:
    labels = [label for k in sorted(found) for label in found[k]][: arguments.rows]
    if not labels:
        raise PacehpcError(
            "nothing to augment: the potential is reliable at all distances, or no energy is in -minepa to -maxepa."
        )
    frame = pd.DataFrame(
        {
            "ase_atoms": [label.atoms for label in labels],
            "energy_corrected": [label.energy for label in labels],
            "forces": [label.forces for label in labels],
            "name": [f"augmented/{label.kind}" for label in labels],
        }
    )
    write_frame(frame, arguments.output)
    kinds = Counter(label.kind for label in labels)
    log.info(
        "%s: %d structures of %d seeds, %d labelled by ZBL, %d by an equation of state",
        arguments.output, len(labels), len(found), kinds["zbl"], kinds["eos"],
    )  # fmt: skip
