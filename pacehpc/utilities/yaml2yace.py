"""`pace_yaml2yace`: potential files for LAMMPS."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential, export_yace
from pacehpc.utilities.command import command


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write NAME.yace for every NAME.yaml, or the file that -o names."""
    parser = argparse.ArgumentParser(
        prog="pace_yaml2yace", description="Write potentials (.yaml) as LAMMPS reads them (.yace)."
    )
    parser.add_argument("input", nargs="+", help="potential file (.yaml)")
    parser.add_argument("-o", "--output", help="file to write; default: the input's name with .yace")
    arguments = parser.parse_args(argv)
    if arguments.output and len(arguments.input) > 1:
        raise PacehpcError(f"-o {arguments.output} names one file for {len(arguments.input)} potentials; leave it out.")
    for name in arguments.input:
        output = Path(arguments.output or Path(name).with_suffix(".yace"))
        if output.resolve() == Path(name).resolve():
            raise PacehpcError(f"{name}: is a .yace file already; give a B-basis file (.yaml).")
        if output.suffix in (".yaml", ".yml"):  # LAMMPS and pacehpc tell the two kinds of file by the name
            raise PacehpcError(f"-o {output}: a name with {output.suffix} means a B-basis file; end it with .yace.")
        potential = Potential.load(name)
        export_yace(potential, output)
        print(f"{name} -> {output}")
        if len({embedding.ndensity for embedding in potential.embeddings.values()}) > 1:
            print(
                "  Elements differ in ndensity: use `pair_style pace product`; the recursive evaluator needs them equal"
            )
    return 0
