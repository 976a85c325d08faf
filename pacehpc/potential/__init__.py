"""The potential: its parts, its files, and how an input describes it."""

from pacehpc.basis import Function
from pacehpc.potential.build import ladder_start
from pacehpc.potential.ladder import ladder_step_size, next_ladder_potential
from pacehpc.potential.model import Block, Bond, Embedding, Potential
from pacehpc.potential.trainable import trainable_mask

__all__ = [
    "Block",
    "Bond",
    "Embedding",
    "Function",
    "Potential",
    "ladder_start",
    "ladder_step_size",
    "next_ladder_potential",
    "trainable_mask",
]
