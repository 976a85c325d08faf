from __future__ import annotations

import subprocess
import sys

import pytest

import pacehpc


def test_public_names():
    for name in pacehpc.__all__:
        assert getattr(pacehpc, name) is not None
        assert name in dir(pacehpc)
    with pytest.raises(AttributeError, match="Potentials"):
        _ = pacehpc.Potentials


def test_import_is_light():
    """Neither MPI, which aborts on some login nodes, nor the slow libraries."""
    heavy = ("mpi4py", "cupy", "scipy", "pandas", "ase", "matplotlib", "h5py")
    code = f"import pacehpc, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_do_not_start_mpi():
    code = "import pacehpc, sys; [getattr(pacehpc, n) for n in pacehpc.__all__]; print('mpi4py.MPI' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
