"""What killed jobs left in shared memory, told from what is in use."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pacehpc.shared_memory import remove_left_segments

ROOT = Path(__file__).parents[1]


def segment(folder: Path, name: str, age: float = 5000.0) -> Path:
    path = folder / name
    path.write_bytes(bytes(4096))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_old_segments_that_nobody_maps_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("pacehpc.shared_memory.YOUNG", 1000.0)
    left, young = segment(tmp_path, "mpich_shm_8f2c_0"), segment(tmp_path, "mpich_shm_8f2d_0", age=0.0)
    other, used = segment(tmp_path, "sm_segment.host.0"), segment(tmp_path, "mpich_shm_8f2e_0")
    with used.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        assert remove_left_segments(tmp_path) == [left.name]
        assert remove_left_segments(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == sorted([young, other, used])
    assert remove_left_segments(tmp_path) == [used.name]


def test_files_whose_names_are_no_text_may_be_mapped(tmp_path):
    left = segment(tmp_path, "mpich_shm_8f2c_0")
    other = tmp_path / os.fsdecode(b"caf\xe9")
    other.write_bytes(bytes(4096))
    with other.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        assert remove_left_segments(tmp_path) == [left.name]


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_segments_of_others_stay(tmp_path):
    os.chown(segment(tmp_path, "mpich_shm_8f2c_0"), 12345, 12345)
    assert remove_left_segments(tmp_path) == []


def test_many_at_once_and_no_such_folder(tmp_path):
    for k in range(20):
        segment(tmp_path, f"mpich_shm_{k}_0")
    code = "import sys; from pathlib import Path; from pacehpc.shared_memory import remove_left_segments as r\n"
    code += f"print(len(r(Path({str(tmp_path)!r}))))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert sum(int(rank.communicate()[0]) for rank in ranks) == 20
    assert remove_left_segments(tmp_path / "missing") == []
