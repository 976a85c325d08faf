"""Kills and failing disks at named points: every run ends in an exact continuation or a clear refusal."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import INPUT, assert_same_fit

from pacehpc.potential import Potential

SEED = 20261121


def points(folder: Path, number: int) -> list[dict]:
    """Seeded choice among the file operations of a whole run, those of the checkpoint first."""
    calls = Counter((folder / "trace.txt").read_text().splitlines())
    rng = random.Random(SEED)
    chosen = [(key, rng.randint(1, n)) for key, n in sorted(calls.items()) if "state.json" in key or ".bin" in key]
    every = [(key, count) for key, n in sorted(calls.items()) for count in range(1, n + 1)]
    chosen += [point for point in rng.sample(every, len(every)) if point not in chosen]
    return [
        {"op": key.split()[0], "name": key.split()[1], "count": count, "when": rng.choice(("before", "mid", "after"))}
        for key, count in chosen[:number]
    ]


def go_on(zygote, folder: Path) -> None:
    """The same command again, unless the fit was killed after its last file was written."""
    if (folder / "checkpoint").exists() or not (folder / "output_potential.yaml").exists():
        assert zygote(folder) == 0, (folder / "stderr.txt").read_text()
    (folder / "pacehpc.lock").unlink(missing_ok=True)


def test_a_kill_at_any_file_operation_changes_nothing(zygote, uninterrupted, tmp_path):
    """Preparation, ladder steps, cycle changes, and writing: one kill, then the same command."""
    for k, fault in enumerate(points(uninterrupted, 32)):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / "input.yaml").write_text(INPUT)
        assert zygote(folder, fault=fault) == -9, fault
        go_on(zygote, folder)
        assert_same_fit(folder, uninterrupted)
        shutil.rmtree(folder)


def test_a_life_full_of_kills(zygote, uninterrupted, tmp_path):
    """Every start is killed after two more evaluations, in the middle of a record, until one gets through."""
    (tmp_path / "input.yaml").write_text(INPUT)
    fault = {"op": "pwrite", "name": "journal", "count": 3, "when": "mid"}
    codes = []
    while not codes or codes[-1] == -9:
        codes.append(zygote(tmp_path, fault=fault))
        assert len(codes) < 40
    assert codes[-1] == 0 and len(codes) > 8
    assert_same_fit(tmp_path, uninterrupted)


def test_kills_at_random_moments(zygote, uninterrupted, tmp_path):
    (tmp_path / "input.yaml").write_text(INPUT)
    rng = random.Random(SEED)
    codes = []
    while len(codes) < 12 and 0 not in codes:
        process = zygote.start(tmp_path)
        time.sleep(rng.uniform(0.02, 0.5))
        os.kill(process, signal.SIGKILL)
        codes.append(zygote.wait())
    if 0 not in codes:
        go_on(zygote, tmp_path)
    assert -9 in codes
    assert_same_fit(tmp_path, uninterrupted)


def test_a_storm_of_signals(zygote, tmp_path):
    (tmp_path / "input.yaml").write_text(INPUT.replace("maxiter: 5", "maxiter: 3000\n  options: {gtol: 0}"))
    process = zygote.start(tmp_path, silent=True)
    end = time.time() + 60
    while not (tmp_path / "checkpoint").exists():
        assert time.time() < end
        time.sleep(0.02)
    storm = f"while kill -TERM {process} && kill -USR1 {process}; do sleep 0.002; done 2>/dev/null"
    with subprocess.Popen(["sh", "-c", storm]):
        assert zygote.wait() == 75
    text = (tmp_path / "log.txt").read_text()
    assert "Stopped in order (SIG" in text and "ERROR" not in text
    assert (tmp_path / "checkpoint" / "state.json").exists() and not (tmp_path / "pacehpc.lock").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize(
    ("op", "name", "count"),
    [
        ("pwrite", "journal", 4),
        ("pwrite", "best", 2),
        ("fsync", "state.json", 2),
        ("replace", "interim", 2),
        ("write", "journal", 2),
        ("fsync", "prepared", 1),
        ("fsync", "output_potential", 1),
    ],
)
def test_a_failing_disk_is_said_and_the_fit_goes_on_later(zygote, uninterrupted, tmp_path, number, op, name, count):
    (tmp_path / "input.yaml").write_text(INPUT)
    fault = {"op": op, "name": name, "count": count, "when": "mid", "errno": number}
    assert zygote(tmp_path, fault=fault) == 1
    said = (tmp_path / "stderr.txt").read_text()
    assert os.strerror(number) in said and "Traceback" not in said
    assert zygote(tmp_path) == 0
    assert_same_fit(tmp_path, uninterrupted)


@pytest.fixture
def disk(tmp_path):
    """disk(options) mounts a file system that belongs to the test, or changes it."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no right to mount a file system here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@pytest.mark.parametrize("kib", [8, 48, 200, 330, 420, 520, 700])
def test_a_full_disk(zygote, uninterrupted, disk, tmp_path, kib):
    """It stops with a message wherever the space ends; with more space it goes on."""
    folder, said = disk(f"size={kib}k"), tmp_path / "said.txt"
    (folder / "input.yaml").write_text(INPUT)
    code = zygote(folder, stderr=said, silent=True)
    assert code in (0, 1) and "Traceback" not in said.read_text()
    assert code or kib > 300
    disk("remount,size=50m")
    if code:
        assert zygote(folder, stderr=said, silent=True) == 0, said.read_text()
    assert_same_fit(folder, uninterrupted)


def test_a_read_only_folder(zygote, disk, tmp_path):
    folder, said = disk("size=10m"), tmp_path / "said.txt"
    (folder / "input.yaml").write_text(INPUT)
    disk("remount,ro")
    assert zygote(folder, stderr=said, silent=True) == 1
    assert "Read-only file system" in said.read_text() and "Traceback" not in said.read_text()


def flip(path: Path, position: float) -> None:
    """Change a bit at this fraction of the file."""
    data = bytearray(path.read_bytes())
    data[min(int(position * len(data)), len(data) - 1)] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("position", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_damaged_journal_is_made_again(zygote, uninterrupted, unfinished, position):
    flip(next(unfinished.glob("checkpoint/journal_*.bin")), position)
    assert zygote(unfinished) == 0
    assert_same_fit(unfinished, uninterrupted)


@pytest.mark.parametrize("length", [0, 7, 300, 2000])
def test_a_cut_journal_is_made_again(zygote, uninterrupted, unfinished, length):
    os.truncate(next(unfinished.glob("checkpoint/journal_*.bin")), length)
    assert zygote(unfinished) == 0
    assert_same_fit(unfinished, uninterrupted)


def test_lost_journal_and_best_point_are_made_again(zygote, uninterrupted, unfinished):
    for path in unfinished.glob("checkpoint/*.bin"):
        path.unlink()
    assert zygote(unfinished) == 0
    assert_same_fit(unfinished, uninterrupted)


@pytest.mark.parametrize("position", [0.0, 0.2, 0.5, 0.9])
def test_a_damaged_checkpoint_is_refused(zygote, unfinished, position):
    state = unfinished / "checkpoint" / "state.json"
    flip(state, position)
    before = {path: path.read_bytes() for path in unfinished.glob("checkpoint/*")}
    assert zygote(unfinished) == 1
    assert "state.json: damaged" in (unfinished / "stderr.txt").read_text()
    assert {path: path.read_bytes() for path in unfinished.glob("checkpoint/*")} == before


@pytest.mark.parametrize("position", [0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_damaged_store_is_made_again_or_refused(zygote, uninterrupted, unfinished, position):
    flip(unfinished / "prepared_data.h5", position)
    if zygote(unfinished):
        assert "damaged" in (unfinished / "stderr.txt").read_text()
    else:
        assert_same_fit(unfinished, uninterrupted)


def test_a_damaged_interim_potential_matters_to_nobody(zygote, uninterrupted, unfinished):
    for path in unfinished.glob("interim_potential_*.yaml"):
        path.write_text(path.read_text()[:100])
    assert zygote(unfinished) == 0
    assert_same_fit(unfinished, uninterrupted)
    assert Potential.load(unfinished / "interim_potential_0.yaml").n_functions > 0
