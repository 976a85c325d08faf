"""Which tiles make radial functions bond by bond instead of moments (kernels/bondwise.h), and what that takes.

The choice rests on the tile alone, so that results do not depend on what else a rank holds.
"""

from __future__ import annotations

import numpy as np

from pacehpc.backends.layout import Layout
from pacehpc.backends.shape import Shape


def prefers_bonds(shape: Shape, elements: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Whether tiles of these elements, (n,), with these numbers of slots, (n, n_elements), cost less bond by bond.

    Counts multiplications of an evaluation with its gradient: moments, if stored, with T_j for a bond and with c_nlj
    for an atom; bond by bond, with T_j, Y_lm and c_nlj for a bond. Bool (n,).
    """
    moments, bonds = np.zeros(len(slots)), np.zeros(len(slots))
    for e in range(len(shape.elements)):
        mine = elements == e
        for mu, kind in enumerate(shape.bond_class[e]):
            if kind >= 0:
                J, lmax, n = shape.classes[kind]
                n_lm, radial = (lmax + 1) ** 2, n * (lmax + 1) + shape.n_densities
                moments[mine] += J * n_lm * (4 * slots[mine, mu] + 5 * n)
                bonds[mine] += (4 * J * radial + 9 * n * n_lm) * slots[mine, mu]
    return bonds < moments


def tile_rows(shape: Shape, layout: Layout, bondwise: bool | None) -> np.ndarray:
    """First bond of each tile among its batch's bonds in tiles that go bond by bond, −1 for those by moments.

    bondwise: all tiles or none; None: those that prefer it. int64 (n_tiles,).
    """
    if bondwise is None:
        chosen = prefers_bonds(shape, layout.tile_element, layout.tile_slots)
    else:
        chosen = np.full(layout.n_tiles, bondwise)
    slots = layout.tile_slots.sum(axis=1, dtype=np.int64) * chosen
    before = np.cumsum(slots) - slots
    batch = np.repeat(np.arange(len(layout.batches)), layout.batches[:, 1] - layout.batches[:, 0])
    return np.where(chosen, before - before[layout.batches[:, 0]][batch], -1)


def row_size(shape: Shape) -> int:
    """Lanes of one bond in the rows: value and slope of its radial functions, the most of any class."""
    return 2 * max((n * (lmax + 1) + shape.n_densities for _, lmax, n in shape.classes), default=0)


def angular_size(shape: Shape) -> int:
    """Lanes kept of one bond of a tile for the gradient: Y_lm, their change, and that along the bond."""
    return max((2 * (lmax + 1) ** 2 + 1 for _, lmax, _ in shape.classes), default=0)
