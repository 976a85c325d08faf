"""Small input sections that the tests of potentials vary."""

import copy

import pytest
from environments import environment

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
    return environment(*PYTHON_ACE) / "python"
