"""How fast a potential is on one core, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms

from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.dataset import checks, structures_of
from pacehpc.dataset.files import read_bytes
from pacehpc.dataset.reading import frame_table
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential

ATOMS = 1000  # of the structures that are timed, about


def seconds(work: Callable[[], object], total: float = 0.2) -> float:
    """Median time of one call, after a first one, over about `total` seconds."""
    work()
    times: list[float] = []
    while not times or (sum(times) < total and len(times) < 50):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def microseconds_per_atom(potential: Potential, structures: list[Atoms]) -> float:
    """Time of energies and forces of these structures on one core, cpu backend, without neighbour lists, µs per atom.

    Bond vectors are new in each call, as in a step of molecular dynamics.
    """
    found = structures_of(structures, potential)
    evaluator = create_evaluator("cpu", potential, found, LossWeights(), EvaluatorOptions(threads=1))
    x = potential.parameters

    def step() -> None:
        evaluator.update(found.bond_vector)
        evaluator.predict(x)

    return 1e6 * seconds(step, 0.5) / found.n_atoms


def training_structures(folder: Path, n_atoms: int = ATOMS) -> list[Atoms]:
    """Structures spread evenly over the training data of a fit, together of about n_atoms atoms.

    Raises:
        PacehpcError: the fit's data are no longer there, or damaged.
    """
    path = folder / "fitting_data_info.pckl.gzip"
    if not path.exists():
        raise PacehpcError(f"{path}: is missing; the speed of the potential is measured on structures of the fit.")
    offsets, numbers, positions, cells, pbc = checks.geometry(frame_table(read_bytes(path), str(path)))
    mean = offsets[-1] / (len(offsets) - 1)
    chosen = np.linspace(0, len(offsets) - 2, max(1, min(len(offsets) - 1, round(n_atoms / mean)))).astype(int)
    return [
        Atoms(
            numbers=numbers[offsets[k] : offsets[k + 1]], positions=positions[offsets[k] : offsets[k + 1]],
            cell=cells[k], pbc=pbc[k],
        )
        for k in np.unique(chosen).tolist()
    ]  # fmt: skip
