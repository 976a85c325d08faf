"""When a run has to stop: signals on any rank, and on the root the end of its time."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from pacehpc.errors import PacehpcError
from pacehpc.slurm import squeue

log = logging.getLogger("pacehpc")

UNFINISHED = 75
"""Exit code of a run that stopped cleanly before its end: run it again (EX_TEMPFAIL)."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
MARGIN = 10.0  # s, for what takes no learned time: closing files, ending MPI and Python


class Stop:
    """Whether and why to stop. `deadline`: seconds since the epoch, None without."""

    def __init__(self, deadline: float | None = None, clock: Callable[[], float] = time.time) -> None:
        self.deadline = deadline
        self.reason = ""
        self._clock = clock
        self._longest = 0.0

    def install(self) -> None:
        """Let signals ask for a stop; a second SIGINT ends the process at once."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def uninstall(self) -> None:
        """Restore what signals do by default, including those that have come."""
        for number in SIGNALS:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if self.reason:
            signal.raise_signal(signal.Signals[self.reason])

    def end_at_once(self) -> None:
        """From here on a signal, or one that has come, raises SystemExit with 128 + its number, as shells count."""
        for number in SIGNALS:
            signal.signal(number, _leave)
        if self.reason:
            _leave(signal.Signals[self.reason])

    def ignore(self) -> None:
        """Near the end of the program: signals must no longer change its exit code."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.reason = self.reason or signal.Signals(number).name

    def learn(self, seconds: float) -> None:
        """Record the time from one evaluation to the next, s: the margin before the deadline grows with it."""
        self._longest = max(self._longest, seconds)

    @property
    def margin(self) -> float:
        """Seconds before the deadline at which nothing new is begun."""
        return MARGIN + 2.0 * self._longest

    def due(self) -> bool:
        """Whether to stop now."""
        if not self.reason and self.deadline is not None and self._clock() > self.deadline - self.margin:
            self.reason = "the end of the time"
        return bool(self.reason)


def _leave(number: int, frame: object = None) -> None:
    raise SystemExit(128 + number)


def seconds_of(text: str) -> float:
    """Seconds of h:mm:ss or d-h:mm:ss. Raises PacehpcError for anything else."""
    match = re.fullmatch(r"(?:(\d{1,5})-)?(\d{1,6}):([0-5]\d):([0-5]\d)", text.strip())
    if match is None:
        raise PacehpcError(
            f"--max-time: '{text}' is not a time; write hours:minutes:seconds, such as 23:50:00, or 2-12:00:00."
        )
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def find_deadline(
    max_time: str | None = None,
    environ: Mapping[str, str] | None = None,
    started: float | None = None,
    end_of_job: Callable[[str], str] | None = None,
) -> float | None:
    """The earliest end of this run's time: --max-time, or the allocation's end.

    Args:
        max_time: h:mm:ss or d-h:mm:ss.
        environ: with SLURM_JOB_END_TIME, which older Slurm does not set; then squeue is asked.
        started: seconds since the epoch; None: now.
        end_of_job: ISO time of a job's end; None: squeue's.

    Returns:
        Seconds since the epoch; None without a limit.

    Raises:
        PacehpcError: max_time is not a time.
    """
    environ = os.environ if environ is None else environ
    ends = []
    if max_time is not None:
        ends.append((time.time() if started is None else started) + seconds_of(max_time))
    job = environ.get("SLURM_JOB_ID", "")
    given = environ.get("SLURM_JOB_END_TIME", "")
    if given.isdigit() and int(given) > 0:
        ends.append(float(given))
    elif job:
        text = (end_of_job or _squeue_end)(job)
        try:
            ends.append(datetime.fromisoformat(text).timestamp())
        except ValueError:  # N/A, NONE, or no answer
            log.info("Slurm does not say when job %s ends; --max-time h:mm:ss sets a limit", job)
    return min(ends, default=None)


def _squeue_end(job: str) -> str:
    done = squeue(job, "%e")
    lines = done.stdout.split() if done is not None else []
    return lines[0] if lines else ""
