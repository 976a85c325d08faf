"""The same number of densities for every element, which LAMMPS needs.

LAMMPS' pair_style pace gives wrong energies, in both of its evaluators, where elements differ in ndensity. A density
of weight 0 adds nothing to the energy, whatever its coefficients are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pacehpc.potential.blocks import Block
from pacehpc.potential.model import Potential

PADDING = (0.0, 1.0)
"""Weight and exponent of an added density."""


def differs_in_densities(potential: Potential) -> bool:
    """Whether elements differ in ndensity."""
    return len({embedding.ndensity for embedding in potential.embeddings.values()}) > 1


def padded(potential: Potential) -> Potential:
    """A copy in which every element has the largest ndensity: added densities have weight 0 and coefficients 0."""
    largest = max(embedding.ndensity for embedding in potential.embeddings.values())
    return _with_densities(potential, dict.fromkeys(potential.elements, largest))


def unpadded(potential: Potential) -> Potential:
    """A copy without the densities that `padded` adds.

    An element's last densities are left out where their weight is 0, their exponent 1 and their coefficients 0, unless
    the last density is so for all elements, which `padded` would not have added.
    """
    wanted = {}
    for element, embedding in potential.embeddings.items():
        blocks = [block.coefficients for block in potential.blocks if block.elements[0] == element]
        n = embedding.ndensity
        while (
            n > 1 and embedding.fs_parameters[2 * n - 2 :][:2] == PADDING and not any(c[:, n - 1].any() for c in blocks)
        ):
            n -= 1
        wanted[element] = n
    if max(wanted.values()) < max(embedding.ndensity for embedding in potential.embeddings.values()):
        return potential.copy()
    return _with_densities(potential, wanted)


def _with_densities(potential: Potential, numbers: dict[str, int]) -> Potential:
    """A copy with these numbers of densities, the last ones left out or added."""
    changed = potential.copy()
    for element, number in numbers.items():
        embedding = changed.embeddings[element]
        more = max(number - embedding.ndensity, 0)
        parameters = (embedding.fs_parameters + more * PADDING)[: 2 * number]
        changed.embeddings[element] = replace(embedding, fs_parameters=parameters, ndensity=number)
    for k, block in enumerate(changed.blocks):
        number = numbers[block.elements[0]]
        coefficients = np.zeros((len(block.functions), number))
        kept = min(number, block.coefficients.shape[1])
        coefficients[:, :kept] = block.coefficients[:, :kept]
        changed.blocks[k] = Block(block.elements, block.functions, coefficients)
    return changed
