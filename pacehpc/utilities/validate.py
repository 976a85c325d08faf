"""`pacehpc validate`: physical properties of a potential, beside reference values."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pacehpc.calculator import PaceCalculator
from pacehpc.errors import PacehpcError
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential
from pacehpc.utilities.command import ready_backend, run_on_ranks
from pacehpc.validate.crystals import crystals
from pacehpc.validate.summary import save, table
from pacehpc.validate.tasks import PROPERTIES, validate
from pacehpc.yamlio import load_yaml

log = logging.getLogger("pacehpc")


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc validate",
        description="Compute lattice constants, elastic constants, energy-volume and dimer curves, phonons, vacancy "
        "and surface energies, and the energy drift of a short run. With mpirun the ranks share the properties.",
    )
    add = p.add_argument
    add("potential", help="potential file (.yaml or .yace)")
    add(
        "--structures", nargs="+", default=[], metavar="FILE", help="crystals beside the elements' own (CIF, POSCAR, …)"
    )
    add("--reference", metavar="FILE", help="YAML of values by crystal, such as `Al fcc: {a: 4.05, C11: 114}`")
    add("--properties", nargs="+", choices=PROPERTIES, default=PROPERTIES, metavar="NAME", help=", ".join(PROPERTIES))
    add("-o", "--output", default="validation", metavar="FOLDER", help="of JSON and figures; default: %(default)s")
    add("--backend", default="auto", help="auto, cpu, cuda or reference; default: %(default)s")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return run_on_ranks(_validate, parser().parse_args(argv))


def _validate(arguments: argparse.Namespace, ranks: Ranks) -> int:
    potential = ranks.share(lambda: Potential.load(arguments.potential))
    reference = ranks.share(lambda: read_reference(arguments.reference))
    structures = ranks.share(lambda: crystals(potential.elements, arguments.structures))
    backend = ready_backend(arguments.backend, potential, ranks)

    def share(tasks: list[Callable[[], Any]]) -> list[Any]:
        """Every rank does each size-th task."""
        own = [task() for task in tasks[ranks.rank :: ranks.size]]
        parts = ranks.gather_everywhere(own)
        return [parts[k % ranks.size][k // ranks.size] for k in range(len(tasks))]

    found = validate(
        structures,
        potential.elements,
        lambda: PaceCalculator(potential, backend=backend),
        potential.cutoff,
        arguments.properties,
        share,
    )

    def write() -> None:
        save(found, reference, Path(arguments.output), Path(arguments.potential).name)
        print(table(found, reference))
        print(f"{arguments.output}/validation.json and figures written")

    ranks.on_root(write)
    return 0


def read_reference(name: str | None) -> Mapping[str, Mapping[str, float]]:
    """Read reference values.

    Raises:
        PacehpcError: the file is missing or is not a mapping of crystals to numbers.
    """
    if name is None:
        return {}
    try:
        found = load_yaml(name)
    except OSError as error:
        raise PacehpcError(f"--reference {name}: {error.strerror}.") from error
    form = "`Al fcc: {a: 4.05, C11: 114}`"
    if not isinstance(found, dict):
        raise PacehpcError(f"--reference {name}: values by crystal are needed, such as {form}.")
    for label, values in found.items():
        if not isinstance(values, dict) or not all(isinstance(v, int | float) for v in values.values()):
            raise PacehpcError(f"--reference {name}: {label}: numbers by property are needed, such as {form}.")
    return {str(label): values for label, values in found.items()}
