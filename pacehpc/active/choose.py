"""Choose the active set of each element among the atoms of all ranks.

The rows are read in blocks that depend on the data alone. Every block keeps its most independent rows; a fixed binary
tree over the blocks merges what they keep (tournament pivoting: Grigori, Demmel, Xiang, SIAM J. Matrix Anal. Appl. 32,
1317 (2011)). MaxVol exchanges rows among those that are left; sweeps over all rows then add those with the largest
grades until none is above the tolerance. No step depends on how the blocks are spread over ranks, and so neither does
the set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pacehpc.active.active_set import TOLERANCE
from pacehpc.active.maxvol import determined_columns, exchange, independent_rows

if TYPE_CHECKING:
    from pacehpc.parallel import Ranks

POOL = 4
"""Rows per function that the root looks at together: what the blocks keep, or the rows with the largest grades."""

Block = tuple[int, Mapping[str, tuple[np.ndarray, np.ndarray]]]
"""Number of the block, and per element the numbers of its atoms (m,) and their rows (m, n)."""


@dataclass(frozen=True)
class Limits:
    """When the search ends.

    Args:
        tolerance: largest grade that is left among the data, above 1.
        max_exchanges: exchanges on the root per sweep.
        max_sweeps: sweeps over all data.
    """

    tolerance: float = TOLERANCE
    max_exchanges: int = 300
    max_sweeps: int = 100


@dataclass
class Chosen:
    """The active set of one element.

    Args:
        atoms: numbers of the chosen atoms, (rank,).
        rows: their rows, (rank, n).
        inverse: A⁻¹, or the pseudo-inverse where the rank is below n, (n, n).
        undetermined: columns that the data do not determine.
    """

    atoms: np.ndarray
    rows: np.ndarray
    inverse: np.ndarray
    undetermined: np.ndarray
    log_determinant: float
    condition: float
    n_atoms: int = 0
    n_exchanges: int = 0
    n_sweeps: int = 0
    largest: float = np.inf
    """The largest grade of the data."""
    converged: bool = False


@dataclass
class _Search:
    """The state of one element's search, on every rank."""

    atoms: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    scale: np.ndarray
    inverse: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def coordinates(self, rows: np.ndarray) -> np.ndarray:
        """Rows in terms of the chosen ones, (m, rank)."""
        return self.scaled(rows) @ self.inverse

    def scaled(self, rows: np.ndarray) -> np.ndarray:
        return rows[:, self.columns] / self.scale[self.columns]


def choose(
    blocks: Callable[[], Iterator[Block]], sizes: Mapping[str, int], ranks: Ranks, limits: Limits
) -> dict[str, Chosen]:
    """Choose the active sets of all elements; called by all ranks together, the same result on each.

    Args:
        blocks: returns an iterator over this rank's blocks in ascending order; called once per sweep. The ranks' blocks
            follow each other.
        sizes: number of columns per element.
        ranks: the ranks that share the blocks.
        limits: when the search ends.

    Returns:
        The choice per element that has atoms.
    """
    pools, counts = _tournament(blocks(), sizes, ranks)
    searches, chosen = ranks.broadcast(_start(pools, counts, limits) if ranks.root else None)
    running = set(searches)
    for sweep in range(1, limits.max_sweeps + 1):
        if not running:
            break
        found = ranks.gather(_sweep(blocks(), {e: searches[e] for e in running}, limits.tolerance))
        searches, chosen, running = ranks.broadcast(
            _improve(searches, chosen, running, found, limits, sweep) if ranks.root else None
        )
    return chosen


def _tournament(blocks: Iterator[Block], sizes: Mapping[str, int], ranks: Ranks) -> tuple[dict, dict[str, int]]:
    """On the root: per element the rows that the tree of blocks has kept, and the number of atoms."""
    pools, counts = {}, {}
    own: dict[str, list[_Node]] = {element: [] for element in sizes}
    n_atoms = dict.fromkeys(sizes, 0)
    for number, block in blocks:
        for element, n in sizes.items():
            atoms, rows = block.get(element, (np.zeros(0, np.int64), np.zeros((0, n))))
            n_atoms[element] += len(atoms)
            _push(own[element], _reduced(_Node(0, number, atoms, rows)))
    gathered = ranks.gather((own, n_atoms))
    if gathered is None:
        return {}, {}
    for element in sizes:
        nodes: list[_Node] = []
        for part, _ in gathered:
            for node in part[element]:
                _push(nodes, node)
        while len(nodes) > 1:  # the tree is complete but for its right edge
            right, left = nodes.pop(), nodes.pop()
            nodes.append(_merged(left, right))
        counts[element] = sum(count[element] for _, count in gathered)
        if counts[element]:
            pools[element] = nodes[0].atoms, nodes[0].rows
    return pools, counts


@dataclass
class _Node:
    """What blocks number * 2^level to (number + 1) * 2^level have kept."""

    level: int
    number: int
    atoms: np.ndarray
    rows: np.ndarray


def _push(nodes: list[_Node], node: _Node) -> None:
    """Append a node and merge it with its sibling on the left, if that is complete, and so on."""
    nodes.append(node)
    while len(nodes) > 1:
        left, right = nodes[-2:]
        if left.level != right.level or left.number % 2 or left.number + 1 != right.number:
            return
        nodes[-2:] = [_merged(left, right)]


def _merged(left: _Node, right: _Node) -> _Node:
    atoms, rows = np.concatenate([left.atoms, right.atoms]), np.concatenate([left.rows, right.rows])
    return _reduced(_Node(left.level + 1, left.number // 2, atoms, rows))


def _reduced(node: _Node) -> _Node:
    if len(node.rows) > POOL * node.rows.shape[1]:
        kept = independent_rows(node.rows)
        node.atoms, node.rows = node.atoms[kept], node.rows[kept]
    return node


def _start(
    pools: Mapping[str, tuple[np.ndarray, np.ndarray]], counts: Mapping[str, int], limits: Limits
) -> tuple[dict[str, _Search], dict[str, Chosen]]:
    searches, chosen = {}, {}
    for element, (atoms, rows) in pools.items():
        columns, scale = determined_columns(rows)
        search = _Search(atoms, rows, columns, scale)
        start = independent_rows(search.scaled(rows))
        found = _exchanged(search, start, limits)
        searches[element] = search
        chosen[element] = _finished(search, found, counts[element])
    return searches, chosen


def _exchanged(search: _Search, start: np.ndarray, limits: Limits) -> int:
    """Exchange among the rows of the search and keep the chosen ones; returns the number of exchanges."""
    scaled = search.scaled(search.rows)
    found = exchange(scaled, start, limits.tolerance, limits.max_exchanges)
    kept = np.sort(found.rows)
    search.atoms, search.rows = search.atoms[kept], search.rows[kept]
    search.inverse = np.linalg.inv(scaled[kept])
    return found.n_exchanges


def _finished(search: _Search, n_exchanges: int, n_atoms: int) -> Chosen:
    n = search.rows.shape[1]
    rank = len(search.columns)
    scaled = search.rows / search.scale
    inverse = np.zeros((n, n))
    if rank == n:
        inverse = search.inverse / search.scale[:, None]
    else:
        used = np.flatnonzero(np.abs(search.rows).max(axis=0, initial=0.0))
        inverse[used, :rank] = np.linalg.pinv(scaled[:, used]) / search.scale[used, None]
    undetermined = np.setdiff1d(np.arange(n), search.columns)
    square = search.scaled(search.rows)
    log_determinant = float(np.linalg.slogdet(square)[1] + np.log(search.scale[search.columns]).sum())
    condition = float(np.linalg.cond(square)) if rank else 1.0
    return Chosen(search.atoms, search.rows, inverse, undetermined, log_determinant, condition, n_atoms, n_exchanges)


def _sweep(
    blocks: Iterator[Block], searches: Mapping[str, _Search], tolerance: float
) -> dict[str, tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
    """Per element: the largest grade of this rank's rows; grades, atoms and rows of the largest above the tolerance."""
    found = {
        element: (0.0, np.zeros(0), np.zeros(0, np.int64), np.zeros((0, search.rows.shape[1])))
        for element, search in searches.items()
    }
    for _, block in blocks:
        for element, search in searches.items():
            if element not in block or len(block[element][0]) == 0:
                continue
            atoms, rows = block[element]
            grades = np.abs(search.coordinates(rows)).max(axis=1, initial=0.0)
            largest, *kept = found[element]
            above = grades > tolerance
            kept = [np.concatenate(pair) for pair in zip(kept, (grades[above], atoms[above], rows[above]), strict=True)]
            found[element] = (max(largest, float(grades.max())), *_best(*kept))
    return found


def _best(grades: np.ndarray, atoms: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kept = np.lexsort((atoms, -grades))[: POOL * rows.shape[1]]
    return grades[kept], atoms[kept], rows[kept]


def _improve(
    searches: dict[str, _Search],
    chosen: dict[str, Chosen],
    running: set[str],
    found: list[dict],
    limits: Limits,
    sweep: int,
) -> tuple[dict[str, _Search], dict[str, Chosen], set[str]]:
    """On the root: exchange the chosen rows with those that a sweep has found."""
    for element in sorted(running):
        search, choice = searches[element], chosen[element]
        choice.n_sweeps = sweep
        choice.largest = max(part[element][0] for part in found)
        if not choice.largest > limits.tolerance:
            choice.converged = True
            running.remove(element)
            continue
        if sweep == limits.max_sweeps:
            continue
        _, atoms, rows = _best(*(np.concatenate([part[element][k] for part in found]) for k in (1, 2, 3)))
        order = np.argsort(atoms)
        size = len(search.atoms)
        search.atoms, search.rows = np.append(search.atoms, atoms[order]), np.append(search.rows, rows[order], axis=0)
        n_exchanges = choice.n_exchanges + _exchanged(search, np.arange(size), limits)
        chosen[element] = _finished(search, n_exchanges, choice.n_atoms)
        chosen[element].n_sweeps, chosen[element].largest = sweep, choice.largest
    return searches, chosen, running
