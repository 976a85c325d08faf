"""Select the structures whose atoms an active set needs: those that tell most about what is not yet known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pacehpc.active.choose import Block, Chosen, Limits, choose

if TYPE_CHECKING:
    from pacehpc.active.active_set import ActiveSet
    from pacehpc.active.data_rows import DataRows
    from pacehpc.parallel import Ranks


def rows_of(inverse: np.ndarray) -> np.ndarray:
    """Rows of the active set that an .asi file holds inverted, (rank, n).

    Args:
        inverse: A⁻¹ or the pseudo-inverse, (n, n).
    """
    columns = np.flatnonzero(np.abs(inverse).max(axis=0, initial=0.0))
    scale = np.abs(inverse).max(axis=1, initial=0.0)  # rows of A⁻¹ span many orders, like the functions
    scale[scale == 0.0] = 1.0
    rows = np.zeros((len(columns), len(inverse)))
    rows[:] = np.linalg.pinv(inverse[:, columns] / scale[:, None]) / scale
    return rows


def select_structures(
    candidates: DataRows,
    known: ActiveSet | None,
    ranks: Ranks,
    limits: Limits,
    most: int | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Chosen]]:
    """Choose an active set of the candidates' atoms and the known rows, and order the structures by it.

    Args:
        candidates: the structures to choose from, shared over the ranks.
        known: an existing active set. Its rows compete with the candidates', and atoms that it covers are left out.
        ranks: all take part and get the same result.
        limits: of the search for the active set.
        most: at most so many structures.

    Returns:
        Numbers of the selected structures, those with the most chosen atoms first; the numbers of chosen atoms; and
        the choice per element.
    """

    def blocks() -> Iterator[Block]:
        if ranks.root:
            yield 0, {e: (np.arange(-len(rows), 0), rows) for e, rows in old.items()}
        for number, block in candidates.blocks():
            yield number + 1, block

    sizes = candidates.sizes()
    old = {} if known is None else {e: rows_of(known.inverses[e]) for e in sizes}
    if known is not None:
        for _, block in candidates.blocks():
            for element, (atoms, rows) in block.items():
                candidates.left_out[atoms] = known.grades(element, rows) <= limits.tolerance
    found = choose(blocks, sizes, ranks, limits)
    atoms = np.concatenate([choice.atoms[choice.atoms >= 0] for choice in found.values()] or [np.zeros(0, int)])
    structures = np.searchsorted(candidates.offsets, atoms.astype(np.int64), side="right") - 1
    counts = np.bincount(structures, minlength=len(candidates.structures))
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())][:most]
    return order, counts[order], found
