"""metrics.txt and its relatives: blank-separated tables, a header once, a row per step, flushed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pacehpc.replacing import replace_file

COLUMNS = (
    "ladder_step",
    "cycle_step",
    "iter_num",
    "loss",
    "e_loss_contrib",
    "f_loss_contrib",
    "reg_loss",
    "rmse_epa",
    "rmse_f_comp",
    "low_rmse_epa",
    "low_rmse_f_comp",
    "mae_f_comp",
    "low_mae_f_comp",
    "nfuncs",
    "ncoefs",
    "l1_reg_contrib",
    "l2_reg_contrib",
    "smooth_orth",
    "smooth_w1",
    "smooth_w2",
    "smooth_w3",
    # after pacemaker's own
    "mae_epa",
    "low_mae_epa",
    "max_ae_epa",
    "low_max_ae_epa",
    "max_ae_f",
    "low_max_ae_f",
    "s_loss_contrib",
    "rmse_stress",
)
"""eV, eV/Å, and GPa for the stress; the contributions to the loss contain their factors."""

KEY = ("ladder_step", "cycle_step", "iter_num")
WHOLE = frozenset(("ladder_step", "cycle_step", "iter_num", "nfuncs", "ncoefs"))


class MetricsTable:
    """Appends rows to one table.

    A table that exists is continued with the columns of its own header; a last line that was cut by a kill is removed.
    Rows are in ascending order of (ladder_step, cycle_step, iter_num): one that is not above the last is there already
    and left out, so that a resumed fit leaves no gaps and no duplicates.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str] = COLUMNS) -> None:
        self.path = Path(path)
        self.columns = tuple(columns)
        old = self.path.read_bytes() if self.path.exists() else b""
        if _numbers(old.partition(b"\n")[0], len(self.columns)) is not None:  # the user has cut the header off
            old = (" ".join(self.columns) + "\n").encode() + old
            replace_file(self.path, old)
        whole = old[: old.rfind(b"\n") + 1]
        self._last: tuple[float, ...] | None = None
        if whole:
            rows = whole.split(b"\n")[:-1]
            self.columns = tuple(rows[0].decode("utf-8", "replace").split())
            while len(rows) > 1 and (cells := _numbers(rows[-1], len(self.columns))) is None:
                rows.pop()  # damaged; made again
            whole = b"".join(row + b"\n" for row in rows)
            if len(rows) > 1 and set(KEY) <= set(self.columns):
                self._last = tuple(cells[self.columns.index(name)] for name in KEY)
        self._file = self.path.open("r+b" if old else "wb", buffering=0)  # a failed row must not be written again later
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        if not whole:
            self._write(self.columns)

    def append(self, metrics: Mapping[str, float]) -> None:
        """One row; a column that `metrics` lacks is nan, further entries of `metrics` are left out."""
        if all(name in metrics for name in KEY):
            key = tuple(float(metrics[name]) for name in KEY)
            if self._last is not None and key <= self._last:
                return
            self._last = key
        self._write([_cell(name, metrics.get(name, float("nan"))) for name in self.columns])

    def sync(self) -> None:
        """Bring all rows to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MetricsTable:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, cells: Sequence[str]) -> None:
        row = memoryview((" ".join(cells) + "\n").encode())
        while row:
            row = row[self._file.write(row) :]


def read_table(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The columns of a table, each (n_rows,) float64; {} where there is none. Lines that are no rows are left out."""
    path = Path(path)
    lines = (
        path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    )  # what follows the last newline was cut
    if not lines:
        return {}
    names = lines[0].split()
    rows = [row for row in (_numbers(line, len(names)) for line in lines[1:]) if row is not None]
    return dict(zip(names, np.array(rows, dtype=np.float64).reshape(-1, len(names)).T, strict=True))


def _numbers(line: bytes | str, n: int) -> list[float] | None:
    """The n numbers of a row, None if it is no such row."""
    try:
        cells = [float(cell) for cell in line.split()]
    except ValueError:
        return None
    return cells if len(cells) == n else None


def _cell(name: str, value: float) -> str:
    return str(int(value)) if name in WHOLE and value == value else f"{value:.12g}"
