"""Who may work in a folder: locks of processes that live, have died, or run elsewhere."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pacehpc.checkpoint import lock as module
from pacehpc.checkpoint.lock import NAME, Lock, dead, identity
from pacehpc.errors import PacehpcError
from pacehpc.utilities.clean import remove_leftovers

HOLD = "import sys; from pathlib import Path; from pacehpc.checkpoint.lock import Lock; Lock(Path.cwd()).acquire()"


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def never(job: str) -> bool:
    raise AssertionError(f"asked for {job}")


def leave(folder: Path, **changes) -> None:
    """The lock of an owner that is like this process but for some of its fields."""
    (folder / NAME).write_text(json.dumps({**identity(), **changes}))


def test_a_living_process_keeps_others_out(tmp_path):
    """Its message names the process; the lock stays as it is."""
    code = HOLD + "; print(flush=True); sys.stdin.read()"
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        owner.stdout.readline()
        before = (tmp_path / NAME).read_bytes()
        with pytest.raises(PacehpcError, match=f"process {owner.pid} on .* works in this folder"):
            Lock(tmp_path, never).acquire()
        assert (tmp_path / NAME).read_bytes() == before
    finally:
        owner.kill()
        owner.wait()
    lock = Lock(tmp_path, never)
    lock.acquire()  # the same process, dead now
    assert f"process {owner.pid} on" in lock.taken_over and "no longer runs on this machine" in lock.taken_over
    assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_later_process_of_the_same_number_is_not_the_owner(tmp_path):
    leave(tmp_path, started="1")
    lock = Lock(tmp_path, never)
    lock.acquire()
    assert lock.taken_over
    lock.release()


def test_a_machine_that_was_started_again(tmp_path):
    assert "started again" in dead({**identity(), "boot": "another"}, never)


def killed_at(call: int, folder: Path) -> bool:
    """Whether a process that takes the lock, and is killed at its n-th call that changes files, comes so far."""
    process = os.fork()
    if not process:
        calls = iter(range(1, 1000))

        def counted(function):
            def wrapped(*arguments, **named):
                if next(calls) == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **named)

            return wrapped

        for name in ("open", "write", "fsync", "link", "replace", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            Lock(folder, never).acquire()
        finally:
            os._exit(0)
    return os.waitpid(process, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("dead_owners", [0, 1, 3])
def test_a_kill_at_any_moment_leaves_nothing_that_a_user_must_remove(tmp_path, dead_owners):
    """Before each call that changes files, hence after each as well; then the next process takes the lock."""
    call = 0
    while True:
        call += 1
        folder = tmp_path / str(call)
        folder.mkdir()
        if dead_owners:
            leave(folder, started="1")
        for _ in range(dead_owners - 1):  # killed between two names
            assert killed_at(6, folder)
        ended = not killed_at(call, folder)
        lock = Lock(folder, never)
        lock.acquire()
        assert json.loads((folder / NAME).read_text())["pid"] == os.getpid()
        lock.release()
        remove_leftovers(folder, [])
        assert list(folder.iterdir()) == []
        if ended:
            break
    assert call > 5


def test_a_file_system_without_links(tmp_path, monkeypatch):
    """The lock is written in place; half a lock is waited for, and then it is nobody's."""

    def refuse(*arguments, **named):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    leave(tmp_path, started="1")
    lock = Lock(tmp_path, never)
    lock.acquire()
    assert lock.taken_over and [path.name for path in tmp_path.iterdir()] == [NAME]
    with pytest.raises(PacehpcError, match="works in this folder"):
        Lock(tmp_path, never).acquire()
    lock.release()
    (tmp_path / NAME).touch()
    waited = iter([0.0, 9.0, 9.5, 11.0, 12.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(waited))
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with pytest.raises(PacehpcError, match="unknown process"):
        Lock(tmp_path, never).acquire()


def test_an_answer_that_nfs_has_lost(tmp_path, monkeypatch):
    """The link was made, and its second request finds it there."""
    link = os.link

    def twice(*arguments, **named):
        link(*arguments, **named)
        link(*arguments, **named)

    monkeypatch.setattr(os, "link", twice)
    lock = Lock(tmp_path, never)
    lock.acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_another_host_without_a_job_may_live(tmp_path):
    leave(tmp_path, host="elsewhere")
    with pytest.raises(PacehpcError, match=f"delete {NAME}"):
        Lock(tmp_path, never).acquire()
    (tmp_path / NAME).unlink()  # the user's word
    lock = Lock(tmp_path, never)
    lock.acquire()
    lock.release()


def test_the_same_host_name_in_another_container_may_live():
    assert dead({**identity(), "namespace": "pid:[1]", "started": "1"}, never) == ""


@pytest.mark.parametrize("ended", [True, False])
def test_another_host_with_a_job_is_as_dead_as_slurm_says(tmp_path, ended):
    asked = []
    leave(tmp_path, host="elsewhere", job="41")
    lock = Lock(tmp_path, lambda job: asked.append(job) or ended)
    if ended:
        lock.acquire()
        assert "job 41 has ended" in lock.taken_over
        lock.release()
    else:
        with pytest.raises(PacehpcError, match="job 41"):
            lock.acquire()
    assert asked == ["41"]


@pytest.mark.parametrize(("restart", "taken"), [("1", True), ("2", False)])
def test_a_requeued_job_takes_its_own_earlier_lock(monkeypatch, restart, taken):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert bool(dead({**identity(), "host": "elsewhere", "restart": restart}, never)) is taken


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        ("echo RUNNING", False),
        ("echo PENDING", False),
        ("echo COMPLETING", False),
        ("echo COMPLETED", True),
        ("echo CANCELLED", True),
        ("echo TIMEOUT", True),
        ("echo OUT_OF_MEMORY", True),
        ("echo PREEMPTED", False),
        ("true", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_what_squeue_says(tmp_path, monkeypatch, answer, ended):
    program = tmp_path / "squeue"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-h -j 41 -o %T" ] || exit 3\n{answer}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert module.slurm_job_ended("41") is ended


def test_what_users_set_for_squeue_hides_no_job(tmp_path, monkeypatch):
    """With these variables squeue says nothing of a running job, and its lock would be taken."""
    program = tmp_path / "squeue"
    program.write_text('#!/bin/sh\n[ -z "$SQUEUE_STATES$SQUEUE_USERS" ] && echo RUNNING\nexit 0\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    monkeypatch.setenv("SQUEUE_USERS", "somebody")
    assert module.slurm_job_ended("41") is False


def test_no_squeue_is_no_word(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module.slurm_job_ended("41") is False


@pytest.mark.parametrize("content", [b"\x00\x01 not json", b"[]", b'{"host": "here"}', b'{"pid": "x", "host": "here"}'])
def test_a_damaged_lock_is_not_taken_over(content, tmp_path):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(PacehpcError, match="unknown process"):
        Lock(tmp_path, never).acquire()


def test_a_lock_that_is_another_ones_now_is_not_released(tmp_path):
    lock = Lock(tmp_path, never)
    lock.acquire()
    leave(tmp_path, host="elsewhere")
    lock.release()
    assert (tmp_path / NAME).exists()


def test_of_many_that_start_at_once_one_gets_it(tmp_path):
    """A dead owner's lock lies there, which all of them may take."""
    leave(tmp_path, started="1")
    code = f"""
import time
time.sleep(max(0.0, {time.time() + 2.0} - time.time()))
{HOLD}
print("mine", flush=True)
sys.stdin.read()
"""
    everyone = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    said = [process.stdout.readline() for process in everyone]  # an empty line where it ended without
    for process in everyone:
        process.communicate()
    assert said.count("mine\n") == 1
