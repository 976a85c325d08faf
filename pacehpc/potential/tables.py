"""Tables of parameters and functions for people and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from pacehpc.potential.blocks import Block, Pair

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("kind", "bond", "n", "l", "k", "block", "type", "nr", "nl", "lint", "density")


def parameter_table(radcoefficients: Mapping[Pair, np.ndarray], blocks: Iterable[Block]) -> pd.DataFrame:
    """A row for each entry of a potential's parameters, in their order; see `Potential.parameter_table`."""
    import pandas as pd  # half a second that an evaluation does not need

    columns: dict[str, list] = {name: [] for name in COLUMNS}

    def extend(size: int, **values: list) -> None:
        for name, column in columns.items():
            column.extend(values.get(name, [None] * size))

    for pair, c in sorted(radcoefficients.items()):
        n, l, k = (index.ravel() for index in np.indices(c.shape))
        extend(
            c.size,
            kind=["radial"] * c.size,
            bond=[" ".join(pair)] * c.size,
            n=(n + 1).tolist(),
            l=l.tolist(),
            k=(k + 1).tolist(),
        )
    for block in blocks:
        size, ndensity = block.coefficients.size, block.coefficients.shape[1]
        functions = [function for function in block.functions for _ in range(ndensity)]
        extend(
            size,
            kind=["func"] * size,
            block=[block.name] * size,
            type=[" ".join(function.elements) for function in functions],
            nr=[function.ns for function in functions],
            nl=[function.ls for function in functions],
            lint=[function.LS for function in functions],
            density=list(range(ndensity)) * len(block.functions),
        )
    table = pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})
    return table.astype(dict.fromkeys(("n", "l", "k", "density"), "Int64"))


def functions_table(blocks: Iterable[Block]) -> pd.DataFrame:
    """A row for each function, in the order of the blocks; see `Potential.functions_table`."""
    import pandas as pd

    rows = [
        (block.name, " ".join(function.elements), function.rank, function.ns, function.ls, function.LS, tuple(c))
        for block in blocks
        for function, c in zip(block.functions, block.coefficients.tolist(), strict=True)
    ]
    return pd.DataFrame(rows, columns=["block", "type", "rank", "nr", "nl", "lint", "c"])
