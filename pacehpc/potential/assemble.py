"""A potential from its parts, with radial coefficients as large as the functions need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pacehpc.basis import Function
from pacehpc.physics.parameters import Bond, Embedding
from pacehpc.potential.blocks import Block, Pair, required_sizes, sorted_pairs
from pacehpc.potential.model import Potential

BlockFunctions = Mapping[tuple[str, ...], Mapping[Function, np.ndarray]]
"""Block elements -> function -> its coefficients (ndensity,), in the order of the block."""


def identity_coefficients(nradmax: int, lmax: int, nradbase: int) -> np.ndarray:
    """c_nlk = δ_nk, the start of new radial coefficients: (nradmax, lmax + 1, nradbase)."""
    return np.repeat(np.eye(nradmax, nradbase)[:, None, :], lmax + 1, axis=1)


def coefficients_by_function(block: Block) -> dict[Function, np.ndarray]:
    """The coefficients (ndensity,) of each function of a block, in its order."""
    return dict(zip(block.functions, block.coefficients, strict=True))


def assemble(
    embeddings: Mapping[str, Embedding],
    bonds: Mapping[Pair, Bond],
    radcoefficients: Mapping[Pair, np.ndarray],
    functions: BlockFunctions,
    metadata: Mapping[str, str],
    delta_spline_bins: float,
) -> Potential:
    """A potential whose bonds are at least as large as its functions need.

    bonds: by sorted pair, their sizes are not used; radcoefficients: known values, which are kept, of some pairs.
    New radial coefficients are c_nlk = δ_nk. So that these are not zero, nradbase is never below the n of any function.
    """
    elements = tuple(sorted(embeddings))
    blocks = [
        Block(key, list(rows), np.array(list(rows.values()), dtype=np.float64))
        for key, rows in sorted(functions.items())
        if rows
    ]
    needed = required_sizes(blocks)
    sized: dict[Pair, Bond] = {}
    coefficients: dict[Pair, np.ndarray] = {}
    for pair in sorted_pairs(elements):
        nradbase, nradmax, lmax = needed.get(pair, (0, 0, 0))
        known = radcoefficients.get(pair, np.zeros((0, 1, 0)))
        nradmax = max(nradmax, known.shape[0])
        lmax = max(lmax, known.shape[1] - 1)
        nradbase = max(nradbase, known.shape[2], needed.get(pair, (0, 0, 0))[1])
        coefficients[pair] = identity_coefficients(nradmax, lmax, nradbase)
        coefficients[pair][tuple(slice(size) for size in known.shape)] = known
        sized[pair] = replace(bonds[pair], nradbase=nradbase, nradmax=nradmax, lmax=lmax)
        sized[pair[::-1]] = sized[pair]
    return Potential(elements, dict(embeddings), sized, coefficients, blocks, dict(metadata), delta_spline_bins)
