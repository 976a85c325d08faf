"""Kills and failing disks at named points: every run ends in an exact continuation or a clear refusal."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from killed_runs import INPUT, assert_same_fit

from pacehpc.potential import Potential

SEED = 20261121


def points(folder: Path) -> list[dict]:
    """Kinds of calls by which a run changed its folder, at a seeded choice of the calls: all of the checkpoint and the
    lock, some of the others.

    The names are those of a traced run, so that no write is forgotten; numbers in them count as one name.
    """
    text = re.sub(r"lock-[0-9a-f]+\.", "lock-N.", (folder / "trace.txt").read_text())
    calls = Counter(line for line in text.splitlines() if "stdout" not in line)
    rng, kinds = random.Random(SEED), {}
    for key in sorted(calls):
        kinds.setdefault(re.sub(r"\d", "", key), []).append(key)
    first = [kind for kind in kinds if "checkpoint" in kind or "lock" in kind]
    others = rng.sample([kind for kind in kinds if kind not in first], 20)
    found = []
    for kind in [*first, *others]:
        key = rng.choice(kinds[kind])
        op, name = key.split()
        name = max(name.replace("_(deleted)", "").split("N"), key=len)  # N: the number of a process
        # how often a growing file is brought to the disk depends on the disk
        count = 1 if op == "fdatasync" else rng.randint(1, calls[key])
        moments = ("before", "mid", "after") if op in ("write", "pwrite") else ("before", "after")
        found.append({"op": op, "name": name, "count": count, "when": rng.choice(moments)})
    return found


def test_every_durable_write_is_traced(uninterrupted):
    """All names that a fit leaves, or replaces on its way, with the calls that make them last."""
    calls = (uninterrupted / "trace.txt").read_text()
    for name in ("metrics.txt", "test_metrics.txt", "cycle_metrics.txt", "ladder_metrics.txt"):
        assert all(f"{op} {name}\n" in calls for op in ("open", "write", "fsync")), name
    for name in (
        "prepared_data.h5",
        "output_potential.yaml",
        "interim_potential_0.yaml",
        "fitting_data_info.pckl.gzip",
    ):
        assert f"replace {name}\n" in calls and f"fsync .{name}" in calls, name
    for kind in ("journal_0_0_0.bin", "journal_1_1_0.bin"):
        assert all(f"{op} checkpoint/{kind}\n" in calls for op in ("replace", "pwrite", "fdatasync", "fsync", "unlink"))
    assert "pwrite checkpoint/best_0_0_0.bin\n" in calls and "fdatasync checkpoint/best_0_0_0.bin\n" in calls
    assert all(f"{op} checkpoint/.state.json.N.tmp\n" in calls for op in ("open", "write", "fsync"))
    assert all(f"{op} checkpoint/state.json\n" in calls for op in ("replace", "unlink"))
    assert all(f"{op} pacehpc.lock\n" in calls for op in ("link", "unlink"))
    assert all(re.search(rf"{op} \.pacehpc\.lock-\w+\.N\.tmp\n", calls) for op in ("open", "write", "fsync", "unlink"))
    for call in ("mkdir checkpoint", "fsync checkpoint", "fsync .", "write log.txt"):
        assert f"{call}\n" in calls, call
    written = {path.name for path in uninterrupted.iterdir()} - {"input.yaml", "trace.txt", "stderr.txt"}
    assert [name for name in written if f" {name}" not in calls] == []


def go_on(zygote, folder: Path) -> None:
    """The same command again, unless the fit was killed after its last file was written."""
    if (folder / "checkpoint" / "state.json").exists() or not (folder / "output_potential.yaml").exists():
        assert zygote(folder) == 0, (folder / "stderr.txt").read_text()
    elif (folder / "checkpoint").exists():
        assert zygote(folder) == 1 and "holds a finished fit" in (folder / "stderr.txt").read_text()
    (folder / "pacehpc.lock").unlink(missing_ok=True)


def test_a_kill_at_any_file_operation_changes_nothing(zygote, uninterrupted, tmp_path):
    """Preparation, ladder steps, cycle changes, and writing: one kill, then the same command."""
    for k, fault in enumerate(points(uninterrupted)):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / "input.yaml").write_text(INPUT)
        assert zygote(folder, fault=fault, sync_always=True) == -9, fault
        go_on(zygote, folder)
        assert_same_fit(folder, uninterrupted)
        left = [path.name for path in folder.glob(".*")]
        assert left in ([], [".pacehpc_outputs.json"]) or not (folder / "stdout.txt").read_text().count("Found"), left
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
    for folder in (tmp_path, tmp_path / "whole"):
        folder.mkdir(exist_ok=True)
        (folder / "input.yaml").write_text(INPUT)
    start = time.perf_counter()
    assert zygote(tmp_path / "whole") == 0
    whole = time.perf_counter() - start
    rng = random.Random(SEED)
    codes = []
    while len(codes) < 12 and 0 not in codes:
        process = zygote.start(tmp_path)
        time.sleep(rng.uniform(0.02, 0.4) * whole)
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            os.kill(process, signal.SIGKILL)
        codes.append(zygote.wait())
    if 0 not in codes:
        go_on(zygote, tmp_path)
    assert -9 in codes
    assert_same_fit(tmp_path, uninterrupted)


def test_a_storm_of_signals(zygote, tmp_path):
    (tmp_path / "input.yaml").write_text(INPUT.replace("maxiter: 5", "maxiter: 3000\n  options: {gtol: 0}"))
    process = zygote.start(tmp_path, silent=True)
    end = time.time() + 600
    while not (tmp_path / "checkpoint").exists():
        assert time.time() < end
        time.sleep(0.02)
    storm = f"while kill -TERM {process} && kill -USR1 {process}; do sleep 0.002; done 2>/dev/null"
    with subprocess.Popen(["sh", "-c", storm]):
        assert zygote.wait() == 75
    text = (tmp_path / "log.txt").read_text()
    assert "Stopped cleanly (SIG" in text and "ERROR" not in text
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
        ("fdatasync", "journal", 2),
        ("fsync", "journal_0_1_0.bin", 2),
        ("write", "state.json", 2),
        ("replace", "state.json", 3),
        ("mkdir", "checkpoint", 1),
        ("write", "prepared", 3),
        ("ftruncate", "prepared_test", 2),
        ("write", "metrics.txt", 6),
        ("fsync", "cycle_metrics.txt", 2),
        ("write", "fitting_data_info", 2),
        ("write", "pacehpc.lock", 1),
        ("open", "log.txt", 1),
    ],
)
def test_a_failing_disk_is_said_and_the_fit_goes_on_later(zygote, uninterrupted, tmp_path, number, op, name, count):
    (tmp_path / "input.yaml").write_text(INPUT)
    fault = {"op": op, "name": name, "count": count, "when": "mid", "errno": number}
    assert zygote(tmp_path, fault=fault, sync_always=op == "fdatasync") == 1
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


@pytest.mark.parametrize("tail", [b"", bytes(300)])
def test_rows_that_the_loss_of_the_machine_took_are_written_again(zygote, uninterrupted, unfinished, tail):
    """Tables are brought to the disk at the start of each minimisation: of the running one all rows may be missing."""
    for name in ("metrics.txt", "test_metrics.txt"):
        path = unfinished / name
        kept = [line for line in path.read_bytes().splitlines(keepends=True) if not line.startswith(b"0 1 ")]
        assert len(kept) < len(path.read_bytes().splitlines())
        path.write_bytes(b"".join(kept) + tail)
    assert zygote(unfinished) == 0, (unfinished / "stderr.txt").read_text()
    assert_same_fit(unfinished, uninterrupted)


def test_a_copy_of_the_folder_goes_on_as_well(zygote, uninterrupted, unfinished, tmp_path_factory):
    """With the lock of the dead process, and one file of its checkpoint missing from the copy."""
    copy = tmp_path_factory.mktemp("copy") / "fit"
    shutil.copytree(unfinished, copy)
    (copy / "checkpoint" / "best_0_1_0.bin").unlink()
    for folder in (copy, unfinished):
        assert zygote(folder) == 0, (folder / "stderr.txt").read_text()
        assert_same_fit(folder, uninterrupted)


def test_a_log_that_cannot_be_written_does_not_end_the_fit(zygote, uninterrupted, tmp_path):
    (tmp_path / "input.yaml").write_text(INPUT)
    assert (
        zygote(tmp_path, fault={"op": "write", "name": "log.txt", "count": 9, "when": "mid", "errno": errno.EIO}) == 0
    )
    said = (tmp_path / "stderr.txt").read_text()
    assert said.count("log.txt: cannot be written") == 1 and "Traceback" not in said
    assert_same_fit(tmp_path, uninterrupted)


def test_what_killed_starts_were_writing_is_removed(zygote, unfinished):
    """Prepared data may be large: a job that is killed again and again must not fill the disk. Others' files stay."""
    dead = 2**22 + 1  # above the largest process number of Linux
    gone = [unfinished / f".{name}.{dead}.tmp" for name in ("prepared_data.h5", "interim_potential_0.yaml", "x.yaml")]
    for path in gone:
        path.write_bytes(b"half")
    assert zygote(unfinished) == 0
    assert [path.exists() for path in gone] == [False, False, True]
