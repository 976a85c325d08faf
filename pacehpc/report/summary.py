"""fit_summary.json: what a finished fit was, for programs that look at it afterwards."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pacehpc.errors import PacehpcError
from pacehpc.replacing import replace_file

NAME = "fit_summary.json"


@dataclass
class FitSummary:
    """A finished fit in numbers and names."""

    version: str
    """Of pacehpc."""
    potential: str
    """File of the fitted potential, as the command line names it."""
    log: str
    """File of the log."""
    settings: str
    """All settings with their defaults, YAML."""
    files: dict[str, list[str]]
    """Data files by set: train, test."""
    started: str
    """ISO date and time of the first start."""
    backend: str
    processor: str
    hosts: dict[str, int]
    """Ranks on each host."""
    threads: int
    """Threads of each rank's kernels."""
    functions: int
    parameters: int
    trainable: int
    kappa: float
    rcut: float
    """Largest cutoff, Å."""
    structures: int
    atoms: int
    bonds: int
    iterations: int
    """Of the last minimisation."""
    evaluations: int
    """Of all minimisations, also those of earlier starts."""
    evaluation_seconds: float
    """Mean wall time of one evaluation in this start, or of the final errors where it made no other."""
    resumed: bool
    """The fit was interrupted; `seconds` are those of its last start."""
    imbalance: float | None
    """Largest over mean time of the ranks; None on one rank."""
    seconds: dict[str, float]
    """Wall time by what it was spent on."""
    errors: dict[str, dict[str, float]]
    """Final errors by set, by names of the columns of metrics.txt; eV, eV/Å, GPa."""

    @property
    def ranks(self) -> int:
        return sum(self.hosts.values())

    @property
    def wall_seconds(self) -> float:
        """All of `seconds`."""
        return sum(self.seconds.values())

    def write(self, folder: str | os.PathLike[str] = ".") -> None:
        """Write the file into `folder`."""
        replace_file(Path(folder) / NAME, json.dumps(asdict(self), indent=1, ensure_ascii=False).encode())


def read_summary(folder: str | os.PathLike[str]) -> FitSummary:
    """The summary of the finished fit in `folder`.

    Raises:
        PacehpcError: no folder, no finished fit, or a damaged file.
    """
    folder = Path(folder)
    path = folder / NAME
    if not folder.is_dir():
        raise PacehpcError(f"{folder}: there is no such folder; name the folder of a fit.")
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _no_fit(folder) from None
    except (OSError, ValueError) as problem:
        raise PacehpcError(f"{path}: cannot be read ({problem}).") from None
    known = {one.name for one in fields(FitSummary)}
    try:
        return FitSummary(**{key: value for key, value in held.items() if key in known})
    except (TypeError, AttributeError):
        raise PacehpcError(f"{path}: damaged, or of another version of pacehpc: fit again.") from None


def _no_fit(folder: Path) -> PacehpcError:
    """Why there is no summary."""
    if (folder / "checkpoint").is_dir():
        return PacehpcError(f"{folder}: the fit is unfinished: run the same command in it again, which resumes it.")
    if (folder / "output_potential.yaml").exists():
        return PacehpcError(
            f"{folder}: {NAME} is missing: the fit was made by an earlier version of pacehpc; fit again."
        )
    return PacehpcError(f"{folder}: holds no finished fit ({NAME} is missing).")
