"""`pace_yaml2yace`: potential files for LAMMPS."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential, export_bbasis, export_yace
from pacehpc.utilities.command import command
from pacehpc.utilities.splines import warn_of_coarse_bins


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write NAME.yace (or NAME_lammps.yaml) for every NAME.yaml, or the file that -o names."""
    parser = argparse.ArgumentParser(
        prog="pace_yaml2yace",
        description="Write potentials (.yaml) as LAMMPS reads them (.yace).",
    )
    parser.add_argument("input", nargs="+", help="potential file (.yaml)")
    parser.add_argument("-o", "--output", help="file to write; default: the input's name with .yace")
    parser.add_argument("--spline-bin", type=float, help="Å, bins of LAMMPS' radial splines; default: the potential's")
    parser.add_argument(
        "--yaml", action="store_true", help="write a B-basis file that LAMMPS can read; default: NAME_lammps.yaml"
    )
    arguments = parser.parse_args(argv)
    if arguments.output and len(arguments.input) > 1:
        raise PacehpcError(f"-o {arguments.output} names one file for {len(arguments.input)} potentials; leave it out.")
    for name in arguments.input:
        output = _output(Path(name), arguments)
        potential = Potential.load(name)
        if arguments.spline_bin is not None:
            potential.delta_spline_bins = arguments.spline_bin
            potential.check("--spline-bin")
        (export_bbasis if arguments.yaml else export_yace)(potential, output)
        print(f"{name} -> {output}")
        warn_of_coarse_bins(potential)
    return 0


def _output(name: Path, arguments: argparse.Namespace) -> Path:
    """The file to write. LAMMPS and pacehpc tell the two kinds of file by the name."""
    default = name.with_name(f"{name.stem}_lammps.yaml") if arguments.yaml else name.with_suffix(".yace")
    output = Path(arguments.output or default)
    is_yaml = output.suffix in (".yaml", ".yml")
    if arguments.yaml and not is_yaml:
        raise PacehpcError(f"-o {output}: --yaml writes a B-basis file; end its name with .yaml.")
    if is_yaml and not arguments.yaml:
        raise PacehpcError(
            f"-o {output}: a name with {output.suffix} means a B-basis file; end it with .yace, or add --yaml."
        )
    if output.resolve() == name.resolve():
        if is_yaml:
            raise PacehpcError(f"{name}: is the input itself; give another name after -o.")
        raise PacehpcError(f"{name}: is a .yace file already; give a B-basis file (.yaml).")
    return output
