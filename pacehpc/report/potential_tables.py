"""What a potential holds, as rows of texts."""

from __future__ import annotations

from collections.abc import Iterator

from pacehpc.potential import Block, Potential


def embedding_rows(potential: Potential) -> Iterator[tuple[str, ...]]:
    """Header, and a row for each element."""
    yield "element", "ndensity", "function", "parameters", "rho_core_cut", "drho_core_cut"
    for element, e in potential.embeddings.items():
        parameters = " ".join(f"{value:g}" for value in e.fs_parameters)
        yield element, str(e.ndensity), e.npot, parameters, f"{e.rho_core_cut:g}", f"{e.drho_core_cut:g}"


def bond_rows(potential: Potential) -> Iterator[tuple[str, ...]]:
    """Header, and a row for each pair of elements; lengths in Å."""
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


def block_rows(potential: Potential) -> Iterator[tuple[str, ...]]:
    """Header, a row for each block and rank, and a sum for each block."""
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
