"""A fit that goes on with the kernels of another backend; the GPU's run on the host here (tests/fake_cupy)."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_runs import INPUT, ROOT, environment

from pacehpc import Potential
from pacehpc.report.tables import read_table

# few iterations: the stand-in is slow
TEXT = INPUT.replace("  ladder_step: 6\n", "").replace("maxiter: 5", "maxiter: 6\n  callbacks: stop_once.here")
CALLBACK = """
import os, signal
def here(current_fit_iteration, current_fit_cycle, **keywords):
    if current_fit_cycle == 1 and current_fit_iteration == 3 and not os.path.exists("stopped"):
        open("stopped", "w").close()
        os.kill(os.getpid(), signal.SIGUSR1)
"""


def run(folder: Path, backend: str, ranks: int = 1) -> int:
    (folder / "input.yaml").write_text(TEXT.replace("evaluator: cpu", f"evaluator: {backend}"))
    paths = f"{ROOT}:{ROOT / 'tests' / 'fake_cupy'}"
    launcher = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, sys.executable, "-m", "pacehpc", "--no-predict"]
    variables = environment(PYTHONPATH=paths, FAKE_CUPY_DEVICES=str(ranks))
    with (folder / "terminal.txt").open("a") as out:
        return subprocess.run(command, cwd=folder, env=variables, stdout=out, stderr=out, check=False).returncode


@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu"), ("cpu", "reference")])
def test_it_goes_on_from_the_best_point_and_says_so(tmp_path, first, second):
    (tmp_path / "stop_once.py").write_text(CALLBACK)
    assert run(tmp_path, first) == 75, (tmp_path / "terminal.txt").read_text()
    began = len((tmp_path / "log.txt").read_text())
    before = read_table(tmp_path / "metrics.txt")
    assert run(tmp_path, second) == 0, (tmp_path / "terminal.txt").read_text()
    text = (tmp_path / "log.txt").read_text()[began:]
    assert f"backend: {first} before, {second} now" in text and "the fit resumes from its best point" in " ".join(
        text.split()
    )
    assert "Replayed" not in text and "damaged" not in text
    assert not list(tmp_path.glob("checkpoint/*"))
    table = read_table(tmp_path / "metrics.txt")
    keys = list(zip(table["cycle_step"], table["iter_num"], strict=True))
    assert keys == sorted(set(keys)) and table["cycle_step"][-1] == 1 and table["iter_num"][-1] == 6
    # what was reached is kept: the first loss of the second start is the best of the first
    pattern = r"Iteration   #.* Loss: (\S+) \||Iteration:  .* Total: (\S+)"
    shown = [float("".join(loss)) for loss in re.findall(pattern, text)]
    best = before["loss"][before["cycle_step"] == 1].min()
    assert shown[0] <= best * (1 + 1e-6)


def test_on_another_number_of_gpus_it_goes_on_with_the_same_bits(tmp_path):
    """Begun on one rank, finished on two with a device each: as if one had done it all."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        (folder / "stop_once.py").write_text(CALLBACK)
    (whole / "stopped").touch()
    assert run(whole, "cuda") == 0, (whole / "terminal.txt").read_text()
    assert run(parts, "cuda") == 75, (parts / "terminal.txt").read_text()
    assert run(parts, "cuda", ranks=2) == 0, (parts / "terminal.txt").read_text()
    text = (parts / "log.txt").read_text()
    assert "ranks: 1 before, 2 now" in text and "Replayed" in text
    lines = re.findall(r"Rank (\d): (\S+), GPU (\d) Emulated device \S+ .* GiB free, driver CUDA .*, runtime", text)
    assert lines[-2:] == [(rank, platform.node(), rank) for rank in "01"]
    potentials = [Potential.load(folder / "output_potential.yaml").parameters for folder in (whole, parts)]
    np.testing.assert_array_equal(*potentials)
