"""What tests of uncertainties share: a small potential near its data, and its uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from on_ranks import run_python

from pacehpc import Objective, Potential, load_dataset
from pacehpc.fit.optimizers import minimize
from pacehpc.potential import build_potential

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "al_ni" / "al_ni.pckl.gzip"
SECTION = {
    "elements": ["Al", "Ni"],
    "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}},
    "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 4.0, "dcut": 0.01}},
    "functions": {"ALL": {"nradmax_by_orders": [3, 1], "lmax_by_orders": [0, 1]}},
}


@pytest.fixture(scope="session")
def data():
    """Structures of 10 to 16 atoms."""
    found = load_dataset(EXAMPLE, elements=["Al", "Ni"], reference_energy={"Al": 3.28, "Ni": 4.44})
    return found.subset(np.flatnonzero(found.atoms_per_structure > 8)[::4])


@pytest.fixture(scope="session")
def potential(data) -> Potential:
    """Fitted to the data by a few iterations."""
    found = build_potential(SECTION, rng=np.random.default_rng(2))
    objective = Objective(found, data, {"kappa": 0.3}, backend="cpu")
    return objective.potential_at(minimize(objective.evaluate, objective.x, "BFGS", 80).x)


@pytest.fixture(scope="session")
def python() -> Callable[..., str]:
    """Run Python with some arguments on some ranks in a folder; gives its whole output."""
    return run_python


@pytest.fixture(scope="session")
def command() -> Callable[..., str]:
    """The same of `pacehpc`."""
    return lambda folder, *arguments, **options: run_python(folder, "-m", "pacehpc", *arguments, **options)
