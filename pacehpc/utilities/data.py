"""`pacehpc data info | convert | split | ingest`: data files between formats, and into a database."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from pacehpc.dataset.dataset import Dataset
from pacehpc.dataset.loading import read_raw
from pacehpc.errors import PacehpcError, without_password
from pacehpc.utilities.command import add_reading_options, command, keys_of, spread_options


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(prog="pacehpc data", description="Look at, convert, split and store reference data.")
    sub = p.add_subparsers(dest="task", required=True)
    inputs = argparse.ArgumentParser(add_help=False)
    add_reading_options(inputs)
    info = sub.add_parser("info", parents=[inputs], help="what the files hold")
    info.add_argument("files", nargs="+")
    info.add_argument("--potential", help="whose extrapolation grades of the atoms are shown, by group")
    info.add_argument("--active-set", metavar="ASI", help="of the potential; default: its name with .asi")
    convert = sub.add_parser("convert", parents=[inputs], help="write all files into one of another format")
    convert.add_argument("files", nargs="+")
    convert.add_argument("output", help=".pckl.gzip, .extxyz, .xyz.gz, .db or .h5")
    convert.add_argument("--cutoff", type=float, default=0.0, help="neighbour lists in .h5 within it, Å; 0: none")
    convert.add_argument("--calculator", default="unknown", help="name in .db")
    split = sub.add_parser("split", parents=[inputs], help="choose a test set at random")
    split.add_argument("files", nargs="+")
    split.add_argument("--test-size", type=float, required=True, help="a fraction below 1, or a number of structures")
    split.add_argument("--seed", type=int, default=42)
    split.add_argument(
        "-o", "--output", nargs=2, metavar=("TRAIN", "TEST"), default=["train.pckl.gzip", "test.pckl.gzip"]
    )
    ingest = sub.add_parser("ingest", parents=[inputs], help="put structures into a database")
    ingest.add_argument("database", help="SQLite file or postgresql:// URL")
    ingest.add_argument("files", nargs="+")
    ingest.add_argument("--calculator", required=True, help="name that data.config.calculator asks for")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    arguments = parser().parse_args(spread_options(sys.argv[1:] if argv is None else argv))
    logging.getLogger("pacehpc").setLevel(logging.WARNING)
    data = read_raw(arguments.files, stress_units=arguments.stress_units, keys=keys_of(arguments.keys))
    if arguments.task == "info":
        print(describe(data))
        if arguments.potential:
            print("\n".join(grades_by_group(data, arguments.potential, arguments.active_set)))
    elif arguments.task == "convert":
        _write(data, arguments.output, arguments.files, arguments.cutoff, arguments.calculator)
    elif arguments.task == "split":
        for part, name in zip(split(data, arguments.test_size, arguments.seed), arguments.output, strict=True):
            _write(part, name, arguments.files)
    else:
        from pacehpc.dataset.database import ingest

        count = ingest(arguments.database, data, arguments.calculator)
        print(f"{count} structures written to {without_password(arguments.database)}")
    return 0


def _write(data: Dataset, name: str, inputs: Sequence[str], cutoff: float = 0.0, calculator: str = "unknown") -> None:
    from pacehpc.dataset.writing import write_data

    if Path(name).exists() and any(Path(name).samefile(i) for i in inputs if Path(i).exists()):
        raise PacehpcError(f"{name}: is one of the inputs; name another file.")
    if not 0 <= cutoff < 100:
        raise PacehpcError(f"--cutoff: {cutoff} Å is not from 0 to 100.")
    write_data(data, name, cutoff, calculator)
    print(f"{name}: {len(data)} structures, {data.n_atoms} atoms")


def split(data: Dataset, test_size: float, seed: int) -> tuple[Dataset, Dataset]:
    """(train, test): a test set chosen at random, as data.test_size and data.seed choose it in a fit.

    Raises:
        PacehpcError: nothing would be left on one side.
    """
    n_test = round(test_size * len(data)) if test_size < 1 else test_size
    if not 0 < n_test < len(data) or n_test != int(n_test):
        raise PacehpcError(f"--test-size: {test_size} of {len(data)} structures leaves no train or test set.")
    is_test = np.zeros(len(data), bool)
    is_test[np.random.default_rng(seed).permutation(len(data))[: int(n_test)]] = True
    return data.subset(~is_test), data.subset(is_test)


def grades_by_group(data: Dataset, potential_file: str, active_set_file: str | None) -> list[str]:
    """Lines of a table: extrapolation grades of the atoms by group of structures."""
    from pacehpc.active.active_set import ActiveSet
    from pacehpc.active.grader import Grader
    from pacehpc.backends import resolve
    from pacehpc.dataset.groups import group_labels
    from pacehpc.potential import Potential
    from pacehpc.report.grades import grade_table
    from pacehpc.utilities.activeset import asi_name

    potential = Potential.load(potential_file)
    active_set = ActiveSet.load(active_set_file or asi_name(potential_file), potential)
    grades = np.concatenate(Grader(potential, active_set, resolve("auto")).grades(data.atoms))
    return grade_table(grades, np.repeat(group_labels(data.names, data.info), data.atoms_per_structure))


def describe(data: Dataset) -> str:
    """Numbers, elements, ranges and columns of the data, as text."""
    n_atoms = data.atoms_per_structure
    kinds = Counter(data.pbc.sum(axis=1).tolist())
    numbers, counts = np.unique(data.numbers, return_counts=True)
    periodic = {0: "clusters", 1: "wires", 2: "slabs", 3: "periodic in three directions"}
    lines = [f"files        {', '.join(data.sources)}", f"structures   {len(data)}"]
    lines.append("             " + ", ".join(f"{kinds[k]} {periodic[k]}" for k in sorted(kinds, reverse=True)))
    lines.append(f"atoms        {data.n_atoms} ({n_atoms.min()} to {n_atoms.max()} a structure)")
    shown = sorted((chemical_symbols[z], int(n)) for z, n in zip(numbers, counts, strict=True))
    lines.append("elements     " + ", ".join(f"{e} {n}" for e, n in shown))
    for name, energies in (("energy", data.energy), ("corrected", data.energy_corrected)):
        if energies is not None and (known := np.isfinite(energies)).any():
            per_atom = (energies / n_atoms)[known]
            some = "" if known.all() else f", of {known.sum()} structures"
            lines.append(f"{name:12s} {per_atom.min():.4f} to {per_atom.max():.4f} eV/atom{some}")
    known = np.isfinite(data.flat_forces).all(axis=1)
    if known.any():
        largest = np.sqrt((data.flat_forces[known] ** 2).sum(axis=1)).max()
        some = "" if known.all() else f", of {known.sum()} atoms"
        lines.append(f"forces       up to {largest:.4f} eV/Å{some}")
    if data.stress is not None:
        known = np.isfinite(data.stress).all(axis=1)
        lines.append(f"stress       {known.sum()} structures, up to {np.nanmax(np.abs(data.stress)):.4g} eV/Å³")
    shortest = shortest_distances(data)
    lines.append("nearest      " + ", ".join(f"{a}-{b} {d:.3f} Å" for (a, b), d in sorted(shortest.items())))
    if data.extra:
        lines.append(f"weights      {', '.join(sorted(data.extra))}")
    labels = Counter(data.names)
    if set(labels) != {""}:
        common = ", ".join(f"{name or '(none)'} {n}" for name, n in labels.most_common(8))
        lines.append(f"names        {common}" + (", ..." if len(labels) > 8 else ""))
    return "\n".join(lines)


def shortest_distances(data: Dataset, reach: float = 4.0) -> dict[tuple[str, str], float]:
    """Smallest distance of each pair of elements that come closer than `reach`, Å."""
    from pacehpc.dataset import neighbours

    elements = data.elements
    species = data.species(elements)
    cutoffs = np.full((len(elements), len(elements)), reach)
    smallest = np.full((len(elements), len(elements)), np.inf)
    for first in range(0, len(data), 1000):
        part = data.subset(slice(first, first + 1000))
        kinds = species[data.atom_offsets[first] :][: part.n_atoms]
        found, vectors = neighbours.find_neighbours(
            part.atom_offsets, part.positions, part.cells, part.pbc, kinds, cutoffs
        )
        centre = np.repeat(kinds, np.diff(found.offsets))
        np.minimum.at(smallest, (centre, kinds[found.atom]), np.linalg.norm(vectors, axis=1))
    return {
        (a, b): float(smallest[i, j])
        for i, a in enumerate(elements)
        for j, b in enumerate(elements)
        if i <= j and np.isfinite(smallest[i, j])
    }
