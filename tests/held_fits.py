"""Fits that a test holds at an iteration, so that it acts on them there however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

WAIT = 600.0  # s: only a hanging program takes longer, even on a busy machine
# A callback, which runs once the iteration is in log.txt. It returns when the file `hold` is gone or the root has
# received a signal; a launcher such as mpirun may take a while to pass one on.
HELD = """
import os, select, signal
from pathlib import Path
came, tell = os.pipe()
os.set_blocking(tell, False)
signal.set_wakeup_fd(tell)
def wait(**keywords):
    while True:
        try:
            upto = int(Path("hold").read_text())
        except (OSError, ValueError):
            return
        text = Path("log.txt").read_text()
        if text.count("Iteration   #") + text.count("-FIT STATS-") < upto or select.select([came], [], [], 0.01)[0]:
            return
"""
AT_ONCE = "def wait(**keywords):\n    pass\n"


def hold(folder: Path, iteration: int) -> None:
    """Make the fit in this folder wait after so many iterations, counted over all its starts."""
    (folder / "hold").write_text(str(iteration))


def let_go(folder: Path) -> None:
    (folder / "hold").unlink()


def iterations(folder: Path) -> int:
    """How many the log has."""
    log = folder / "log.txt"
    text = log.read_text() if log.exists() else ""
    return text.count("Iteration   #") + text.count("-FIT STATS-")


def wait_for(condition: Callable[[], bool], why: Callable[[], object] = str) -> None:
    """Wait until a condition holds; why: what to say if it never does."""
    end = time.time() + WAIT
    while not condition():
        assert time.time() < end, why()
        time.sleep(0.02)


def state_of(pid: int) -> list[str]:
    """/proc/<pid>/stat after the name: state, parent, …; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def ranks_among(processes: Iterable[int]) -> list[int]:
    """Those that run pacehpc. A forked child has its parent's command until it starts its own, and is left out."""
    found = {pid for pid in processes if b"-m\0pacehpc" in command_of(pid) and b"mpirun" not in command_of(pid)}
    parents = {pid: int(state[1]) for pid in found if (state := state_of(pid))}
    return sorted(pid for pid, parent in parents.items() if parent not in found)
