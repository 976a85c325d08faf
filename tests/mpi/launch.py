"""Run a piece of Python on several ranks, as users do: with the environment's own mpirun."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from held_fits import WAIT

MPIRUN = Path(sys.executable).parent / "mpirun"
ROOT = Path(__file__).resolve().parents[2]


def mpirun(
    n_ranks: int, *command: str, cwd=None, timeout: float = WAIT, **environment: str
) -> subprocess.CompletedProcess:
    """`mpirun -n N command`; text output is captured."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [str(MPIRUN), "-n", str(n_ranks), *command],
        cwd=cwd,
        env=env,
        timeout=timeout,
        text=True,
        capture_output=True,
        check=False,
    )


def python(n_ranks: int, code: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run `code` (dedented) on N ranks with `arguments` as sys.argv[1:]."""
    return mpirun(n_ranks, sys.executable, "-c", textwrap.dedent(code), *arguments, **options)


def pacehpc(n_ranks: int, *arguments: str, **options) -> subprocess.CompletedProcess:
    """`mpirun -n N pacehpc ...`."""
    return mpirun(n_ranks, sys.executable, "-m", "pacehpc", *arguments, **options)
