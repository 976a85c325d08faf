"""A small fit with ladder steps, cycles and a test set, and a way to start it that makes kills cheap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pacehpc.backends.compile import compiler

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "al_ni" / "al_ni.pckl.gzip"
INPUT = f"""
cutoff: 4.5
data: {{filename: {EXAMPLE}, reference_energy: {{Al: 3.28, Ni: 4.44}}, test_size: 0.2}}
potential:
  elements: [Al, Ni]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}}}
  bonds: {{ALL: {{radbase: SBessel, radparameters: [5.25], rcut: 4.5, dcut: 0.01}}}}
  functions: {{ALL: {{nradmax_by_orders: [4, 1], lmax_by_orders: [0, 1]}}}}
fit:
  loss: {{kappa: 0.3, L2_coeffs: 1e-8}}
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


@pytest.fixture(scope="session")
def zygote():
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="session")
def uninterrupted(zygote, tmp_path_factory):
    """The folder of the fit that nothing disturbed, its file operations in trace.txt."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "input.yaml").write_text(INPUT)
    assert zygote(folder, trace=str(folder / "trace.txt"), sync_always=True) == 0
    return folder


@pytest.fixture
def unfinished(zygote, tmp_path):
    """A folder whose fit was killed in the second cycle of the first ladder step, in the middle of a record."""
    (tmp_path / "input.yaml").write_text(INPUT)
    fault = {"op": "pwrite", "name": "journal_0_1", "count": 5, "when": "mid"}
    assert zygote(tmp_path, fault=fault) == -9
    return tmp_path


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
