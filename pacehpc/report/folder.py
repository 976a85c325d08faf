"""The folder of a finished fit, read again: for figures, the page, and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pacehpc.dataset import checks
from pacehpc.dataset.files import read_bytes
from pacehpc.dataset.groups import common_labels
from pacehpc.dataset.neighbours import volumes
from pacehpc.dataset.reading import frame_table
from pacehpc.dataset.unpickle import unpickle_frame
from pacehpc.errors import PacehpcError
from pacehpc.metrics import GPA
from pacehpc.report.predictions import Compared
from pacehpc.report.summary import FitSummary
from pacehpc.report.tables import read_table

SETS = ("train", "test")
GRADES = "{}_grades.npz"
"""In report/: the grades of a set's atoms, in the order of its predictions."""


def read_curves(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The columns of metrics.txt ("train") and test_metrics.txt ("test"), {} where there are none."""
    return {"train": read_table(folder / "metrics.txt"), "test": read_table(folder / "test_metrics.txt")}


def read_predictions(folder: Path, summary: FitSummary) -> list[Compared]:
    """The data sets of a fit with their predictions.

    Args:
        folder: of the fit.
        summary: of the fit.

    Raises:
        PacehpcError: no predictions, or a damaged file.
    """
    paths = {which: folder / f"{which}_pred.pckl.gzip" for which in SETS}
    found = [(which, *_read_set(path, which, summary)) for which, path in paths.items() if path.exists()]
    if not found:
        raise PacehpcError(
            f"{folder}: no predictions (train_pred.pckl.gzip): the fit ran with --no-predict. "
            f"Make them with `pacehpc -p {summary.potential} --no-fit`."
        )
    labels = common_labels([(columns["names"], info) for _, columns, info in found])
    return [
        Compared(which=which, groups=groups, **columns)
        for (which, columns, _), groups in zip(found, labels, strict=True)
    ]


def _read_set(path: Path, which: str, summary: FitSummary) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The fields of `Compared` but for the groups, and what the data note of each structure."""
    data = read_bytes(path)
    columns = unpickle_frame(data, str(path)).columns
    table = frame_table(data, str(path))
    missing = [name for name in ("energy_corrected", "energy_pred", "forces_pred", "nn_min") if name not in columns]
    if missing:
        raise PacehpcError(f"{path}: no column {', '.join(missing)}: not the predictions of a fit.")
    offsets, numbers, _, cells, pbc = checks.geometry(table)
    counts = np.diff(offsets)
    n, sources = len(counts), summary.files.get(which, [])
    names = [name if isinstance(name, str) else "" for name in columns.get("name", [""] * n)]
    weights, w_forces = np.asarray(columns["w_energy"], float), _stacked(columns["w_forces"], counts, ())
    forces = _stacked(columns["forces"], counts, (3,))
    volume = volumes(cells, pbc)
    stress = [None if name not in columns else _rows(columns[name], n) for name in ("stress", "stress_pred")]
    if stress[1] is None:
        stress[0] = None
    std = columns.get("energy_std")
    fields = dict(
        labels=table.labels,
        names=names,
        files=[sources[0] if len(sources) == 1 else ""] * n,
        atom_offsets=offsets,
        numbers=numbers,
        volumes=volume,
        nn_min=np.asarray(columns["nn_min"], float),
        energy=np.where(weights != 0, np.asarray(columns["energy_corrected"], float), np.nan) / counts,
        energy_pred=np.asarray(columns["energy_pred"], float) / counts,
        forces=np.where((w_forces != 0)[:, None], forces, np.nan),
        forces_pred=_stacked(columns["forces_pred"], counts, (3,)),
        stress=None if stress[0] is None else GPA * stress[0],
        stress_pred=None if stress[0] is None else GPA * stress[1],
        grades=_grades(columns, path, which, counts),
        energy_std=None if std is None else np.asarray(std, float) / counts,
        forces_std=_forces_std(columns.get("forces_std"), counts),
    )
    return fields, table.info


def _grades(columns: dict[str, Any], path: Path, which: str, counts: np.ndarray) -> np.ndarray | None:
    """The column `gamma`, else what `pacehpc activeset` left beside the figures."""
    if "gamma" in columns:
        return _stacked(columns["gamma"], counts, ())
    beside = path.parent / "report" / GRADES.format(which)
    if not beside.exists() or beside.stat().st_mtime < path.stat().st_mtime:
        return None
    with np.load(beside) as held:
        grades = held["gamma"]
    return grades if grades.shape == (counts.sum(),) else None


def _forces_std(values: Any, counts: np.ndarray) -> np.ndarray | None:
    """Of components, (n_atoms, 3)."""
    return None if values is None else _stacked(values, counts, (3,))


def _rows(values: Any, n: int) -> np.ndarray:
    """(n, 6), NaN where a structure has none."""
    found = np.full((n, 6), np.nan)
    for k, value in enumerate(values):
        if value is not None and np.size(value) == 6:
            found[k] = np.ravel(np.asarray(value, float))
    return found


def _stacked(values: Any, counts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values of all atoms, (n_atoms, *shape), NaN where a structure has none."""
    parts = []
    for value, count in zip(values, counts.tolist(), strict=True):
        part = np.full((count, *shape), np.nan)
        if value is not None:
            part[:] = np.asarray(value, float)
        parts.append(part)
    return np.concatenate(parts)
