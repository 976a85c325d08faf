"""Small input sections that the tests of potentials vary."""

import copy
import fcntl
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

EMBEDDING = {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}
BOND = {"radbase": "ChebExpCos", "radparameters": [5.25], "rcut": 5.0, "dcut": 0.01, "NameOfCutoffFunction": "cos"}


@pytest.fixture
def section():
    """A fresh input section: make(["Al", "Ni"]) or with other functions."""

    def make(elements, functions=None):
        functions = functions or {"ALL": {"nradmax_by_orders": [3, 2, 1], "lmax_by_orders": [0, 1, 1]}}
        return copy.deepcopy(
            {
                "elements": list(elements),
                "embeddings": {"ALL": EMBEDDING},
                "bonds": {"ALL": BOND},
                "functions": functions,
            }
        )

    return make


PYTHON_ACE = ("python-ace==0.4.0rc1", "numpy<2.4", "pandas<3")


@pytest.fixture(scope="session")
def python_ace():
    """Interpreter of an environment with python-ace, which holds the library that LAMMPS runs; made once and kept.

    Where it cannot be installed the tests are skipped, on machines that have to run every test (CI=true) they fail.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pacehpc-test-comparators"
    folder = cache / f"{PYTHON_ACE[0]}-python{sys.version_info.major}.{sys.version_info.minor}"
    cache.mkdir(parents=True, exist_ok=True)
    python, complete = folder / "bin" / "python", folder / "complete"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            venv.create(folder, clear=True, with_pip=True)
            environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
            command = [python, "-m", "pip", "install", "--quiet", "--pre", *PYTHON_ACE]
            done = subprocess.run(command, env=environment, text=True, capture_output=True)
            if done.returncode:
                message = f"python-ace cannot be installed: {done.stderr[-500:]}"
                pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
            complete.touch()
    return python
