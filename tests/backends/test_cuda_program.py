"""The whole program with the cuda backend, under mpirun, on devices that the stand-in for CuPy emulates."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_fit import SMALL_FIT

from pacehpc import Potential
from pacehpc.report.tables import read_table

ROOT = Path(__file__).parents[2]
INPUT = f"""{SMALL_FIT}\
  maxiter: 2
backend: {{evaluator: cuda, display_step: 1}}
"""
pytestmark = pytest.mark.slow
MPIRUN = str(Path(sys.executable).parent / "mpirun")


def environment(**changes: str) -> dict[str, str]:
    """Of a run that belongs to no job."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "PMI", "OMPI", "CUDA_", "FAKE_"))}
    return {**kept, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/fake_cupy", "OMP_NUM_THREADS": "1", **changes}


def run(folder: Path, *arguments: str, ranks: int = 1, text: str = INPUT, **changes: str) -> tuple[int, str]:
    """Exit code of the program and what the terminal showed."""
    folder.mkdir(exist_ok=True)
    (folder / "input.yaml").write_text(text)
    command = [MPIRUN, "-n", str(ranks), sys.executable, "-m", "pacehpc", *arguments]
    return finish(command, folder, **changes)


def finish(command: list[str], folder: Path, **changes: str) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=folder, env=environment(**changes), capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


def uuid(machine_index: int) -> str:
    return f"GPU-01020304-0506-0708-090a-0b0c0d0e0f{machine_index:02x}"


@pytest.fixture(scope="module")
def of_the_cpu(tmp_path_factory) -> Path:
    """Folder of the same fit by the cpu backend."""
    folder = tmp_path_factory.mktemp("program") / "cpu"
    code, said = run(folder, text=INPUT.replace("evaluator: cuda", "evaluator: cpu"))
    assert code == 0, said
    return folder


def same_results(folder: Path, expected: Path) -> None:
    """Losses and potential, to what other kernels leave of the bits."""
    tables = [read_table(f / "metrics.txt") for f in (folder, expected)]
    np.testing.assert_allclose(tables[0]["loss"], tables[1]["loss"], rtol=1e-7)
    potentials = [Potential.load(f / "output_potential.yaml").parameters for f in (folder, expected)]
    np.testing.assert_allclose(*potentials, rtol=0, atol=1e-6 * np.abs(potentials[1]).max())


def test_ranks_take_the_devices_that_are_visible(tmp_path, of_the_cpu):
    """Two of the machine's four, by number and by UUID; a fit, its predictions and the times of kernels."""
    visible = f"3,{uuid(1)},7,0"  # there is no 7, which ends the list
    code, said = run(tmp_path, "--profile", ranks=3, FAKE_CUPY_DEVICES="4", CUDA_VISIBLE_DEVICES=visible)
    assert code == 0, said
    log = (tmp_path / "log.txt").read_text()
    lines = re.findall(r"Rank (\d): (\S+), GPU (\d) Emulated device (\S+), (.*)", log)
    node = platform.node()
    assert [line[:4] for line in lines] == [
        ("0", node, "0", uuid(3)), ("1", node, "1", uuid(1)), ("2", node, "0", uuid(3)),
    ]  # fmt: skip
    for rank, *_, rest in lines:
        ending = ", shared by 2 ranks" if rank != "1" else ""
        assert re.fullmatch(rf"2\.0 of 2\.0 GiB free, driver CUDA 12\.9, runtime 12\.9{ending}", rest), rest
    for part in ("train", "test"):
        assert re.search(rf"GPU of the first rank \({part}\): peak memory \d+\.\d MiB of .* allowed, 1 batch, mom", log)
    assert re.search(r"make_bond_forces +[\d.]+ +[\d.]+ +[\d.]+ %", log)
    same_results(tmp_path, of_the_cpu)
    for name in ("train_pred.pckl.gzip", "test_pred.pckl.gzip"):
        found, wanted = (pd.read_pickle(folder / name, compression="gzip") for folder in (tmp_path, of_the_cpu))
        assert list(found.columns) == list(wanted.columns) and len(found) == len(wanted) > 0
        for column in ("energy_pred", "forces_pred"):
            for a, b in zip(found[column], wanted[column], strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_little_memory_is_shared_out_in_batches(tmp_path, of_the_cpu):
    """gpu_config.mem_limit: work arrays of a few structures at a time, and the same fit."""
    text = INPUT.replace("backend: {", "backend: {gpu_config: {mem_limit: 10}, ")
    code, said = run(tmp_path, "--no-predict", text=text)
    assert code == 0, said
    found = re.search(r"GPU of the first rank \(train\): peak memory [\d.]+ MiB of 9\.5 MiB allowed, (\d+) batch", said)
    assert (
        int(found[1]) > 1
        and " W - GPU 0 Emulated device: out of memory with 1 batch; retrying with more, smaller batches" in said
    ), said
    same_results(tmp_path, of_the_cpu)


def test_a_ladder_step_has_the_whole_device(tmp_path):
    """What the step before took is free again."""
    text = INPUT.replace("maxiter: 2", "maxiter: 1\n  ladder_step: 3")
    code, said = run(tmp_path, "--no-predict", text=text, FAKE_CUPY_MEMORY=str(64 << 20))
    assert code == 0, said
    found = re.findall(r"\(train\): peak memory ([\d.]+) MiB of ([\d.]+) MiB allowed", said)
    assert len(found) == 3 and min(float(peak) for peak, _ in found) > 5, said
    assert {allowed for _, allowed in found} == {"57.6"}, said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"FAKE_CUPY_DEVICES": "0"}, "no CUDA device can be used here (cudaErrorNoDevice"),
        ({"FAKE_CUPY_DEVICES": "2", "CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is ''"),
        ({"FAKE_CUPY_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "5"}, "CUDA_VISIBLE_DEVICES is '5'"),
        ({"FAKE_CUPY_NO_NVRTC": "1"}, "with NVRTC, which cannot be loaded"),
        ({"FAKE_CUPY_CAPABILITY": "61"}, "compute capability 6.1"),
    ],
)
def test_cuda_that_is_not_there_is_refused_once(tmp_path, changes, message):
    code, said = run(tmp_path, ranks=2, **changes)
    assert code == 1 and said.count("ERROR: backend 'cuda'") == 1 and message in said, said
    assert "Traceback" not in said and not (tmp_path / "output_potential.yaml").exists()


def test_one_rank_without_a_gpu_makes_all_use_the_cpu(tmp_path, of_the_cpu):
    """With auto the ranks agree: sums of different kernels cannot be added."""
    (tmp_path / "input.yaml").write_text(INPUT.replace("evaluator: cuda", "evaluator: auto"))
    program = [sys.executable, "-m", "pacehpc", "--no-predict"]
    seeing = ["-n", "1", "-env", "CUDA_VISIBLE_DEVICES", "0", *program]
    blind = ["-n", "1", "-env", "CUDA_VISIBLE_DEVICES", "-1", *program]
    code, said = finish([MPIRUN, *seeing, ":", *blind], tmp_path)
    assert code == 0, said
    log = (tmp_path / "log.txt").read_text()
    assert log.count("1 of 2 ranks cannot use a GPU; using the cpu backend on all. Rank 1: backend 'cuda'") == 1
    assert "Backend cpu ready" in log
    same_results(tmp_path, of_the_cpu)


def test_auto_takes_the_gpu_where_every_rank_has_one(tmp_path):
    text = INPUT.replace("evaluator: cuda", "evaluator: auto").replace("maxiter: 2", "maxiter: 1")
    code, said = run(tmp_path, "--no-predict", ranks=2, text=text)
    warned = said.replace("atoms without neighbours", "").count(" W - ") - said.count("atoms without neighbours")
    assert code == 0 and "Backend cuda ready" in said and warned == 0, said
