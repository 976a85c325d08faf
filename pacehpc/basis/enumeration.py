"""The functions of a block: all combinations of neighbours, n, l and independent couplings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain, combinations, combinations_with_replacement, groupby, product
from typing import NamedTuple

from pacehpc.basis.couplings import independent_couplings


class Function(NamedTuple):
    """One B function: elements (centre, then neighbours), n of each neighbour (from 1), l, and all intermediate L."""

    elements: tuple[str, ...]
    ns: tuple[int, ...]
    ls: tuple[int, ...]
    LS: tuple[int, ...]

    @property
    def rank(self) -> int:
        """ν, the number of neighbours."""
        return len(self.ns)


def possible_blocks(elements: Sequence[str], largest: int) -> list[tuple[str, ...]]:
    """Every (centre, *others) of up to `largest` elements, others a sorted set, in alphabetical order."""
    blocks = []
    for centre in elements:
        others = sorted(set(elements) - {centre})
        blocks += [
            (centre, *chosen) for size in range(min(largest, len(others) + 1)) for chosen in combinations(others, size)
        ]
    return sorted(blocks)


@cache
def _angular_functions(groups: tuple[int, ...], lmax: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """All (ls, LS) of factors whose equal labels mean equal (element, n), in lexicographic order."""
    runs = [len(list(run)) for _, run in groupby(groups)]
    choices = [list(combinations_with_replacement(range(lmax + 1), size)) for size in runs]
    all_ls = (tuple(chain.from_iterable(parts)) for parts in product(*choices))
    return tuple((ls, LS) for ls in all_ls for LS in independent_couplings(ls, groups))


def block_functions(
    block: Sequence[str], nradmax_by_orders: Sequence[int], lmax_by_orders: Sequence[int]
) -> list[Function]:
    """Functions of a block (centre, *others), ordered by (rank, neighbours, ns, ls, LS).

    nradmax_by_orders, lmax_by_orders: the largest n and l of rank 1, 2, ...; there is no limit on rank or l.
    A block holds the functions in which all its elements appear among centre and neighbours.
    """
    centre, *others = block
    functions = []
    for rank, (nmax, lmax) in enumerate(zip(nradmax_by_orders, lmax_by_orders, strict=True), start=1):
        for neighbours in combinations_with_replacement(sorted(block), rank):
            if not set(others) <= set(neighbours):
                continue
            elements = (centre, *neighbours)
            runs = [len(list(run)) for _, run in groupby(neighbours)]
            choices = [list(combinations_with_replacement(range(1, nmax + 1), size)) for size in runs]
            for parts in product(*choices):
                ns = tuple(chain.from_iterable(parts))
                factors = list(zip(neighbours, ns, strict=True))
                groups = tuple(factors.index(factor) for factor in factors)
                functions += [
                    Function(elements, ns, ls, LS) for ls, LS in _angular_functions(groups, lmax if rank > 1 else 0)
                ]
    return functions


def power_order(function: Function) -> int:
    """Key ν + Σ ns + Σ ls: simple functions first."""
    return function.rank + sum(function.ns) + sum(function.ls)


def body_order(function: Function) -> tuple:
    """Key (ν, ns, ls, LS, elements)."""
    return function.rank, function.ns, function.ls, function.LS, function.elements
