"""Run Python on some ranks in a folder, as users do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_python(folder: Path, *arguments: object, ranks: int = 1, fails: bool = False, **environment: str) -> str:
    """The whole output of Python with these arguments; fails: it must end with an error, else it must not."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    mpirun = Path(sys.executable).parent / "mpirun"
    done = subprocess.run(
        [mpirun, "-n", str(ranks), sys.executable, *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def counting_compiler(folder: Path) -> tuple[dict[str, str], Path]:
    """Environment with an empty kernel cache, and the file that gets a line for each call of the compiler.

    It does not optimise: what it is called for counts, not how fast the kernels are.
    """
    compiler, log = folder / "c++", folder / "compiled"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {shutil.which("g++") or shutil.which("c++")} "$@" -O0\n')
    compiler.chmod(0o755)
    return {"CXX": str(compiler), "PACEHPC_CACHE": str(folder / "cache")}, log
