"""What a scan has found, as a table and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pacehpc.errors import PacehpcError
from pacehpc.report.page.rows import Table, error, front_of, number
from pacehpc.report.summary import FitSummary, read_summary
from pacehpc.scan.inputs import VARIED, trial_folder
from pacehpc.scan.study import Trial

SHORT = {"number_of_functions_per_element": "functions /element"}
WORDS = {"both": "error", "energy": "E RMSE", "forces": "F RMSE"}


def scan_table(folder: Path, trials: Sequence[Trial], kind: str) -> Table:
    """A row for each trial; those on the front are marked.

    Args:
        folder: of the scan.
        trials: all of them.
        kind: of the error, as `scan.error`.
    """
    costs = np.array([one.results or (np.nan, np.nan) for one in trials]).reshape(-1, 2)
    front = front_of(costs)
    varied = [key for key in VARIED if any(key in one.values for one in trials)]
    rows = []
    for one, best in zip(trials, front, strict=True):
        summary = _summary(trial_folder(folder, one.number)) if one.state == "complete" else None
        found = {} if summary is None else summary.errors["test"]
        rows.append(
            (
                f"trial_{one.number:04d}", one.state, *(_shown(one.values.get(key)) for key in varied),
                "–" if summary is None else number(summary.functions, 9),
                error(1000 * found.get("rmse_epa", np.nan)), error(1000 * found.get("rmse_f_comp", np.nan)),
                "–" if one.results is None else error(one.results[0]),
                "–" if one.results is None else number(one.results[1], 3), "yes" if best else "",
            )
        )  # fmt: skip
    columns = ["trial", "state", *(SHORT.get(key, key) for key in varied), "functions", "energy RMSE", "force RMSE"]
    columns += ["error", "µs/atom", "on front"]
    words = {0, 1, len(columns) - 1} | {2 + k for k, key in enumerate(varied) if key == "radbase"}
    kinds = {"both": "root of the product of both", "energy": "energy", "forces": "forces"}
    caption = f"Energies in meV/atom, forces in meV/Å; error: {kinds[kind]}"
    return Table(caption, columns, rows, frozenset(words))


def _summary(folder: Path) -> FitSummary | None:
    try:
        return read_summary(folder)
    except PacehpcError:  # the user has removed the folder
        return None


def _shown(value: object) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
