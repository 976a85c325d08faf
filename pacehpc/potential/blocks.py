"""Functions by the elements that they couple, and what these functions need of the bonds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pacehpc.basis import Function

Pair = tuple[str, str]


@dataclass
class Block:
    """Functions of one centre whose elements are exactly these, and their coefficients.

    elements: centre first, the others sorted; coefficients: (n_functions, ndensity of the centre) float64.
    """

    elements: tuple[str, ...]
    functions: list[Function]
    coefficients: np.ndarray

    @property
    def name(self) -> str:
        """As in the files: "Al Ni"."""
        return " ".join(self.elements)


def sorted_pairs(elements: Iterable[str]) -> list[Pair]:
    """All (A, B) with A <= B in alphabetical order."""
    elements = sorted(elements)
    return [(a, b) for i, a in enumerate(elements) for b in elements[i:]]


def required_sizes(blocks: Iterable[Block]) -> dict[Pair, tuple[int, int, int]]:
    """(nradbase, nradmax, lmax) that the functions need of each sorted pair; pairs that none uses are absent."""
    sizes: dict[Pair, list[int]] = {}
    for block in blocks:
        for elements, ns, ls, _ in block.functions:
            centre = elements[0]
            for neighbour, n, l in zip(elements[1:], ns, ls, strict=True):
                pair = (centre, neighbour) if centre <= neighbour else (neighbour, centre)
                size = sizes.get(pair)
                if size is None:
                    size = sizes[pair] = [0, 0, 0]
                if len(ns) == 1:
                    size[0] = max(size[0], n)
                else:
                    size[1] = max(size[1], n)
                    size[2] = max(size[2], l)
    return {pair: (size[0], size[1], size[2]) for pair, size in sizes.items()}
