"""What a data file holds, not yet checked, and the names under which its columns are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Where each column may stand, first come first served in each structure; names in info, arrays or a calculator's
# results. Forces are derivatives of the free energy, so that it comes before `energy`.
KEYS: dict[str, tuple[str, ...]] = {
    "energy": ("REF_energy", "free_energy", "energy"),
    "forces": ("REF_forces", "forces"),
    "stress": ("REF_stress", "stress"),
    "virial": ("REF_virial", "virial", "virials"),
    "energy_corrected": ("energy_corrected",),
    "w_energy": ("w_energy",),
    "w_forces": ("w_forces",),
    "w_factor": ("w_factor",),
    "name": ("name", "config_type"),
}


@dataclass
class Table:
    """What a file holds, one entry per structure; not yet checked.

    Attributes:
        columns: what is not geometry, by the names of `KEYS`; None where a structure lacks it.
        unread: why a column that the file has is not among `columns`.
        names: what the file calls what it has beside the geometry, for messages.
    """

    source: str
    labels: list[Any]
    numbers: list[Any] = field(default_factory=list)
    positions: list[Any] = field(default_factory=list)
    cells: list[Any] = field(default_factory=list)
    pbc: list[Any] = field(default_factory=list)
    info: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, list[Any] | np.ndarray] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    stress_units: str | None = None  # None: those that the user gives


def row_name(table: Table, row: int) -> str:
    return f"{table.source}, row {table.labels[row]}"
