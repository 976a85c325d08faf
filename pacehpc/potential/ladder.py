"""Ladder fitting: the potential grows towards its target by a few functions per block and step.

Bochkarev et al., Phys. Rev. Materials 6, 013804 (2022), hierarchical basis extension.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pacehpc.basis import body_order, power_order
from pacehpc.errors import PacehpcError
from pacehpc.potential.assemble import assemble, coefficients_by_function
from pacehpc.potential.model import Potential

ORDERS = {"body_order": body_order, "power_order": power_order}
LadderStep = int | float | Sequence[int | float]


def ladder_step_size(ladder_step: LadderStep, n_current: int, n_missing: int) -> int:
    """Functions that each block may gain: max(integer part, round(fraction * n_current), 1), at most n_missing.

    ladder_step: an integer (>= 1), a fraction below 1 of the current number of functions, or a list of both.
    """
    values = ladder_step if isinstance(ladder_step, (list, tuple)) else [ladder_step]
    sizes = [1]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
            raise PacehpcError(f"fit.ladder_step: expected a positive integer or a fraction below 1, got {value!r}")
        if value >= 1 and value != int(value):
            raise PacehpcError(f"fit.ladder_step: {value} is neither an integer nor a fraction below 1")
        sizes.append(int(value) if value >= 1 else round(value * n_current))
    return min(max(sizes), n_missing)


def next_ladder_potential(
    current: Potential | None, target: Potential, ladder_step: LadderStep, ladder_type: str = "body_order"
) -> Potential | None:
    """The potential of the next step, None when nothing of the target is missing.

    Each block gains its first missing functions in `body_order` (ν, ns, ls, LS, elements) or `power_order`
    (ν + Σ ns + Σ ls, ties in the target's order). Existing coefficients are kept; new functions start from the target's
    coefficients, new radial coefficients from c_nlk = δ_nk. Functions that the target lacks stay; those of a block
    stand in body order. Bonds, embeddings and metadata are the target's. current None means an empty potential.
    """
    if ladder_type not in ORDERS:
        raise PacehpcError(f"fit.ladder_type: expected {' or '.join(ORDERS)}, got {ladder_type!r}")
    present = {block.elements: coefficients_by_function(block) for block in (current.blocks if current else [])}
    wanted = {block.elements: coefficients_by_function(block) for block in target.blocks}
    missing = {key: [f for f in rows if f not in present.get(key, {})] for key, rows in wanted.items()}
    n_missing = sum(map(len, missing.values()))
    if n_missing == 0:
        return None
    size = ladder_step_size(ladder_step, sum(map(len, present.values())), n_missing)
    grown = {}
    for key in present.keys() | wanted.keys():
        old, new = present.get(key, {}), wanted.get(key, {})
        chosen = set(sorted(missing.get(key, []), key=ORDERS[ladder_type])[:size])
        rows = {**old, **{f: new[f] for f in chosen}}
        grown[key] = {f: rows[f] for f in sorted(rows, key=body_order)}
    known: dict[tuple[str, str], np.ndarray] = current.radcoefficients if current else {}
    bonds = {pair: target.bonds[pair] for pair in target.pairs}
    potential = assemble(target.embeddings, bonds, known, grown, target.metadata, target.delta_spline_bins)
    potential.check("ladder")
    return potential
