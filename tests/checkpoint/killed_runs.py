"""A small fit with ladder steps, cycles and a test set, and a way to start it that makes kills cheap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from small_fit import SMALL_FIT

from pacehpc.backends.compile import compiler

ROOT = Path(__file__).parents[2]
INPUT = f"""{SMALL_FIT}\
  maxiter: 5
  ladder_step: 6
  fit_cycles: 2
  noise_relative_sigma: 1e-2
backend: {{evaluator: cpu, display_step: 2}}
"""
TABLES = ("metrics", "cycle_metrics", "ladder_metrics", "test_metrics", "test_cycle_metrics", "test_ladder_metrics")


def environment(**changes: str) -> dict[str, str]:
    """Of a run that belongs to no job."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PMI", "OMPI"))}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}


class Zygote:
    """Starts the command; see zygote.py."""

    def __init__(self, **changes: str) -> None:
        """changes: of the environment."""
        here = Path(__file__).parent
        self._build = tempfile.TemporaryDirectory()
        library = f"{self._build.name}/faults.so"
        flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", library]
        subprocess.run([compiler(), *flags, str(here / "faults.cpp"), "-ldl"], check=True)
        self._process = subprocess.Popen(
            [sys.executable, str(here / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(LD_PRELOAD=library, **changes),
        )

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, folder: Path, *arguments: str, stderr: Path | None = None, **options) -> int:
        """Process id of the run; `wait` gives its exit code. fault, trace, silent: see zygote.py."""
        job = {"folder": str(folder), "arguments": ["--no-predict", *arguments], "stderr": str(stderr or "stderr.txt")}
        self._process.stdin.write(json.dumps({**job, **options}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        """Exit code of the run that was started; -9 where it was killed."""
        return int(self._process.stdout.readline())

    def __call__(self, folder: Path, *arguments: str, **options) -> int:
        self.start(folder, *arguments, **options)
        return self.wait()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._build.cleanup()


def results(folder: Path) -> dict[str, str]:
    """What two equal fits have in common: the tables, and the potential without the time of its start."""
    found = {f"{name}.txt": (folder / f"{name}.txt").read_text() for name in TABLES}
    lines = (folder / "output_potential.yaml").read_text().splitlines()
    own = ("starttime", "input_sha256")
    found["potential"] = "\n".join(line for line in lines if not any(name in line for name in own))
    return found


def assert_same_fit(folder: Path, other: Path) -> None:
    """Both ended with the same bits, and left nothing of the way there."""
    assert results(folder) == results(other)
    assert not (folder / "checkpoint").exists() and not (folder / "pacehpc.lock").exists()
