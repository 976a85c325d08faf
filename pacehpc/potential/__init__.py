"""The potential: its parts, its files, and how an input describes it."""

from pacehpc.basis import Function
from pacehpc.physics.parameters import Bond, Embedding
from pacehpc.potential.blocks import Block
from pacehpc.potential.build import build_potential, ladder_start
from pacehpc.potential.io import export_bbasis, export_yace, load_potential, save_potential
from pacehpc.potential.ladder import ladder_step_size, next_ladder_potential
from pacehpc.potential.model import Potential
from pacehpc.potential.trainable import trainable_mask

__all__ = [
    "Block",
    "Bond",
    "Embedding",
    "Function",
    "Potential",
    "build_potential",
    "export_bbasis",
    "export_yace",
    "ladder_start",
    "ladder_step_size",
    "load_potential",
    "next_ladder_potential",
    "save_potential",
    "trainable_mask",
]
