"""`pace_info`: what a potential file holds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from pacehpc.potential import Potential
from pacehpc.report.potential_tables import block_rows, bond_rows, embedding_rows
from pacehpc.utilities.command import command


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Describe each file."""
    parser = argparse.ArgumentParser(prog="pace_info", description="Show what a potential holds.")
    parser.add_argument("potential_file", nargs="+", help="potential file (.yaml or .yace)")
    for name in parser.parse_args(argv).potential_file:
        print(f"{name}\n")
        print(describe(Potential.load(name)))
    return 0


def describe(potential: Potential) -> str:
    """The tables that `pace_info` prints."""
    lines = [
        f"Elements:    {' '.join(potential.elements)}",
        f"Functions:   {potential.n_functions}",
        f"Parameters:  {potential.n_parameters} ({sum(c.size for c in potential.radcoefficients.values())} radial, "
        f"{sum(block.coefficients.size for block in potential.blocks)} of functions)",
        f"Cutoff:      {potential.cutoff:g} Å",
        f"Spline bin:  {potential.delta_spline_bins:g} Å (LAMMPS)",
        "",
    ]
    for title, rows in (
        ("Embeddings", embedding_rows(potential)),
        ("Bonds (Å)", bond_rows(potential)),
        ("Blocks", block_rows(potential)),
    ):
        lines += [title, *(f"  {line}" for line in _table(list(rows))), ""]
    lines += _reference_energies(potential)
    if potential.metadata:
        lines += ["Metadata", *(f"  {key}: {value}" for key, value in sorted(potential.metadata.items())), ""]
    return "\n".join(lines)


def _reference_energies(potential: Potential) -> list[str]:
    """What was subtracted from the data, eV; it has to be added for total energies."""
    text = potential.metadata.get("reference_energy")
    if text is None:
        return ["Reference energies: none recorded", ""]
    try:
        values = json.loads(text)
    except ValueError:
        values = text
    if isinstance(values, dict):
        values = "  ".join(
            f"{key} {value:.10g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
        )
    return [f"Reference energies (eV, subtracted from the data): {values}", ""]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
