"""Which parameters a fit may change: `fit.trainable_parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pacehpc.basis import KEYWORDS, resolve
from pacehpc.errors import PacehpcError
from pacehpc.potential.model import Potential

PARTS = {"radial": {"radial"}, "func": {"func"}, "all": {"radial", "func"}}
WHERE = "fit.trainable_parameters"


def trainable_mask(potential: Potential, spec: Any = "ALL") -> np.ndarray:
    """True for each parameter that is fitted, (n_parameters,) bool, in the order of potential.parameters.

    spec: None or "ALL"; "UNARY", "BINARY", ... or the elements of one block, such as "AlNi" (both its radial and its
    function coefficients); "radial" or "func" (of all blocks); a mapping of these to "func", "radial", "all" or a list
    of them, where the more specific key wins; or a list of all these, meaning their union.
    Radial coefficients belong to one- and two-element blocks, and are shared by both orders of a bond.
    """
    mask = np.zeros(potential.n_parameters, dtype=bool)
    for item in spec if isinstance(spec, (list, tuple)) else [spec]:
        mask |= _mask(potential, item)
    return mask


def _mask(potential: Potential, spec: Any) -> np.ndarray:
    if spec is None:
        spec = "ALL"
    if isinstance(spec, str):
        spec = {"ALL": spec} if spec in PARTS else {spec: "all"}
    if not isinstance(spec, Mapping):
        raise PacehpcError(f"{WHERE}: expected ALL, UNARY, ..., radial, func or a mapping of these, got {spec!r}")
    keys = {key.upper() if isinstance(key, str) and key.upper() in KEYWORDS else key: v for key, v in spec.items()}
    parts = {key: {"parts": _parts(value, key)} for key, value in keys.items()}
    blocks = {block.elements for block in potential.blocks}
    pairs = {pair if pair[0] != pair[1] else pair[:1] for pair in potential.bonds}
    targets = sorted(blocks | pairs)
    chosen = resolve(parts, targets, potential.elements, "blocks", WHERE)
    for key in parts:
        single = resolve({key: {"hit": True}}, targets, potential.elements, "blocks", WHERE)
        if key not in KEYWORDS and not any(single.values()):
            raise PacehpcError(f"{WHERE}: the potential has no block '{key}'")
    mask = np.zeros(potential.n_parameters, dtype=bool)
    for pair, where in potential.radial_slices.items():
        names = [pair[:1]] if pair[0] == pair[1] else [pair, pair[::-1]]
        mask[where] = any("radial" in chosen[name].get("parts", ()) for name in names)
    for block, where in zip(potential.blocks, potential.block_slices, strict=True):
        mask[where] = "func" in chosen[block.elements].get("parts", ())
    return mask


def _parts(value: Any, key: Any) -> set[str]:
    values = value if isinstance(value, (list, tuple)) else [value]
    for part in values:
        if not isinstance(part, str) or part.lower() not in PARTS:
            raise PacehpcError(f"{WHERE}: {key}: expected radial, func or all, got {part!r}")
    return set().union(*(PARTS[part.lower()] for part in values))
