"""Errors by group of structures, and the worst structures: what a table, the log and the figures show of them."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.replacing import replace_file

SHOWN = 10  # worst structures
GROUP_COLUMNS = (
    "group",
    "structures",
    "atoms",
    "rmse_epa",
    "mae_epa",
    "max_ae_epa",
    "rmse_f_comp",
    "mae_f_comp",
    "max_ae_f",
)
WORST_COLUMNS = ("label", "name", "group", "file", "atoms", "energy_error_per_atom", "rmse_f_comp", "max_ae_f")


@dataclass(frozen=True)
class StructureErrors:
    """Errors of each structure of a data set, NaN where it has no reference value.

    Attributes:
        labels: index in the data, (n_structures,).
        names: `name` in the data, "" where there is none.
        files: the file of each structure.
        groups: of each structure; all the same where the data have no groups.
        atoms: number of atoms.
        energy: predicted minus reference energy per atom, eV.
        force_squares: mean square over force components, (eV/Å)².
        force_absolute: mean absolute error of force components, eV/Å.
        force_largest: largest error of a component, eV/Å.
    """

    labels: Sequence[Any]
    names: Sequence[str]
    files: Sequence[str]
    groups: np.ndarray
    atoms: np.ndarray
    energy: np.ndarray
    force_squares: np.ndarray
    force_absolute: np.ndarray
    force_largest: np.ndarray

    @property
    def group_names(self) -> list[str]:
        """Groups by number of structures, the largest first."""
        return [name for name, _ in Counter(self.groups.tolist()).most_common()]


def structure_errors(
    labels: Sequence[Any],
    names: Sequence[str],
    files: Sequence[str],
    groups: np.ndarray,
    atom_offsets: np.ndarray,
    energy_error: np.ndarray,
    force_error: np.ndarray,
) -> StructureErrors:
    """Errors by structure.

    Args:
        labels, names, files, groups: see `StructureErrors`.
        atom_offsets: first atom of each structure, and the number of all, (n_structures + 1,).
        energy_error: of structures, eV; NaN without reference.
        force_error: of atoms, (n_atoms, 3), eV/Å; NaN without reference.
    """
    starts, atoms = atom_offsets[:-1], np.diff(atom_offsets)
    known = np.isfinite(force_error).all(axis=1)
    error = np.where(known[:, None], force_error, 0.0)
    count = np.add.reduceat(known, starts, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.add.reduceat((error**2).sum(axis=1), starts) / (3 * count)
        absolute = np.add.reduceat(np.abs(error).sum(axis=1), starts) / (3 * count)
    largest = np.where(count > 0, np.maximum.reduceat(np.abs(error).max(axis=1), starts), np.nan)
    return StructureErrors(labels, names, files, groups, atoms, energy_error / atoms, squares, absolute, largest)


def group_rows(errors: StructureErrors) -> list[dict[str, Any]]:
    """Errors of each group, the largest group first; eV and eV/Å, with the columns `GROUP_COLUMNS`."""
    return [_row(errors, name, errors.groups == name) for name in errors.group_names]


def worst_rows(errors: StructureErrors, number: int = SHOWN) -> list[dict[str, Any]]:
    """The worst structures: those whose error in energy or forces is the largest multiple of the RMSE of all.

    Columns `WORST_COLUMNS`, eV per atom and eV/Å.
    """
    force = np.sqrt(errors.force_squares)
    score = np.fmax(_multiple(np.abs(errors.energy)), _multiple(force))
    order = np.argsort(-np.where(np.isfinite(score), score, -1.0), kind="stable")[:number]
    return [
        {
            "label": errors.labels[k],
            "name": errors.names[k],
            "group": errors.groups[k],
            "file": errors.files[k],
            "atoms": int(errors.atoms[k]),
            "energy_error_per_atom": float(errors.energy[k]),
            "rmse_f_comp": float(force[k]),
            "max_ae_f": float(errors.force_largest[k]),
        }
        for k in order.tolist()
    ]


def write_rows(path: str | os.PathLike[str], columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with commas between its columns, and their names in the first line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    replace_file(Path(path), text.getvalue().encode())


def groups_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Errors by group as the log shows them, in meV."""
    lines = ["  structures   E RMSE    E MAE   F RMSE    F MAE  (meV/at, meV/A)  group"]
    for row in rows:
        errors = (f"{1e3 * row[name]:9.2f}" for name in ("rmse_epa", "mae_epa", "rmse_f_comp", "mae_f_comp"))
        lines.append(f"{row['structures']:12d}" + "".join(errors) + f"  {'':16}{row['group']}")
    return "\n".join(lines)


def worst_text(rows: Sequence[Mapping[str, Any]], with_groups: bool) -> str:
    """The worst structures as the log shows them, in meV."""
    lines = ["      dE/at   F RMSE    F max  (meV/at, meV/A)  structure"]
    for row in rows:
        errors = (f"{1e3 * row[name]:9.2f}" for name in ("energy_error_per_atom", "rmse_f_comp", "max_ae_f"))
        named = [f"row {row['label']} of {row['file']}", row["name"]]
        if with_groups and row["group"] != row["name"]:
            named.append(row["group"])
        lines.append("  " + "".join(errors) + f"  {'':16}" + ", ".join(part for part in named if part))
    return "\n".join(lines)


def _row(errors: StructureErrors, name: str, chosen: np.ndarray) -> dict[str, Any]:
    energy, atoms = errors.energy[chosen], errors.atoms[chosen]
    known = np.isfinite(energy)
    forces = np.isfinite(errors.force_squares[chosen])
    weights = atoms[forces] if forces.any() else None
    return {
        "group": name,
        "structures": int(chosen.sum()),
        "atoms": int(atoms.sum()),
        "rmse_epa": _mean(energy[known] ** 2) ** 0.5,
        "mae_epa": _mean(np.abs(energy[known])),
        "max_ae_epa": float(np.abs(energy[known]).max(initial=-np.inf)) if known.any() else np.nan,
        "rmse_f_comp": _mean(errors.force_squares[chosen][forces], weights) ** 0.5,
        "mae_f_comp": _mean(errors.force_absolute[chosen][forces], weights),
        "max_ae_f": float(errors.force_largest[chosen][forces].max()) if forces.any() else np.nan,
    }


def _mean(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    return float(np.average(values, weights=weights)) if len(values) else float("nan")


def _multiple(errors: np.ndarray) -> np.ndarray:
    """Errors divided by their root mean square."""
    known = errors[np.isfinite(errors)]
    scale = _mean(known**2) ** 0.5
    return errors / scale if scale > 0 else errors


def _cell(value: Any) -> Any:
    return f"{value:.9g}" if isinstance(value, float) else value
