"""`pace_info`: what a potential file holds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence

from pacehpc.potential import Block, Potential
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
        ("Embeddings", _embeddings(potential)),
        ("Bonds (Å)", _bonds(potential)),
        ("Blocks", _blocks(potential)),
    ):
        lines += [title, *(f"  {line}" for line in _table(list(rows))), ""]
    lines += _reference_energies(potential)
    if potential.metadata:
        lines += ["Metadata", *(f"  {key}: {value}" for key, value in sorted(potential.metadata.items())), ""]
    return "\n".join(lines)


def _embeddings(potential: Potential) -> Iterator[tuple[str, ...]]:
    yield "element", "ndensity", "function", "parameters", "rho_core_cut", "drho_core_cut"
    for element, e in potential.embeddings.items():
        parameters = " ".join(f"{value:g}" for value in e.fs_parameters)
        yield element, str(e.ndensity), e.npot, parameters, f"{e.rho_core_cut:g}", f"{e.drho_core_cut:g}"


def _bonds(potential: Potential) -> Iterator[tuple[str, ...]]:
    yield (
        "bond", "radbase", "radparameters", "rcut", "dcut", "r_in", "delta_in", "inner cutoff", "core repulsion",
        "nradbase", "nradmax", "lmax",
    )  # fmt: skip
    for pair in potential.pairs:
        b = potential.bonds[pair]
        numbers = [f"{value:g}" for value in (b.rcut, b.dcut, b.r_in, b.delta_in)]
        parameters, core = (
            " ".join(f"{value:g}" for value in values) for values in (b.radparameters, b.core_repulsion)
        )
        sizes = [str(value) for value in (b.nradbase, b.nradmax, b.lmax)]
        yield "-".join(pair), b.radbase, parameters, *numbers, b.inner_cutoff_type, core, *sizes


def _blocks(potential: Potential) -> Iterator[tuple[str, ...]]:
    """A row for each block and rank, and a sum for each block."""
    yield "block", "rank", "nradmax", "lmax", "functions", "parameters"
    for block in potential.blocks:
        name = block.name
        for rank in sorted({function.rank for function in block.functions}):
            functions = [function for function in block.functions if function.rank == rank]
            n, l = (max(max(getattr(f, key)) for f in functions) for key in ("ns", "ls"))
            parameters = len(functions) * _ndensity(block)
            yield name, str(rank), str(n), str(l), str(len(functions)), str(parameters)
            name = ""
        yield "", "sum", "", "", str(len(block.functions)), str(block.coefficients.size)


def _ndensity(block: Block) -> int:
    return block.coefficients.shape[1]


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
