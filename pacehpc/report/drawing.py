"""Figures and the page made by processes of their own, so that ranks need not wait for them, nor load matplotlib."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from pacehpc.errors import PacehpcError
from pacehpc.machine import UNSTOPPED

log = logging.getLogger("pacehpc")

FIGURES, PAGE = "pacehpc.report.figures", "pacehpc.report.page.fit_page"
Job = tuple[str, tuple[Any, ...]]
"""A function of `report.figures` and its arguments."""


class Drawing:
    """Processes that draw: two for the figures, one for the page. They load what they need at once.

    Each file is written beside and renamed: where a process is killed, no file is left incomplete. Where this process
    ends before it says what to draw, they end, too.
    """

    def __init__(self, page: bool = False) -> None:
        """page: whether there is one."""
        self._processes, self._senders = [], []
        for module in (FIGURES, PAGE) if page else (FIGURES,):
            process = subprocess.Popen(
                [*UNSTOPPED, sys.executable, "-m", "pacehpc.report.drawing", module],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
            )  # fmt: skip
            self._processes.append((process, module))

    def draw(self, jobs: Sequence[Job], page: tuple[Any, ...] = ()) -> None:
        """Say once what to draw, without waiting until the processes have read it.

        Args:
            jobs: the figures.
            page: arguments of `report.page.fit_page.write_page`, where there is a page.
        """
        for (process, _), part in zip(self._processes, (jobs, [("write_page", page)]), strict=False):
            self._senders.append(threading.Thread(target=_send, args=(part, process)))
            self._senders[-1].start()

    def wait(self) -> None:
        """Wait until all is there; a page that could not be written is a warning.

        Raises:
            PacehpcError: a figure could not be drawn; the last line of what its process said is in the message.
        """
        failed = []
        for sender in self._senders:
            sender.join()
        for process, module in self._processes:
            said = process.stderr.read().decode(errors="replace").strip()
            if process.wait() == 0:
                if module == PAGE:
                    log.info("Report: %s", os.path.abspath("report/index.html"))
                continue
            why = said.splitlines()[-1] if said else f"exit code {process.returncode}"
            if module == PAGE:
                log.warning("report/index.html could not be written: %s", why)
            else:
                failed.append(why)
        if failed:
            raise PacehpcError(
                f"report: figures could not be drawn: {'; '.join(failed)}. All other files are complete: run the same "
                "command again when the cause is removed, or leave the figures out with `--no-predict`."
            )


def _send(jobs: Sequence[Job], process: subprocess.Popen[bytes]) -> None:
    try:
        pickle.dump(jobs, process.stdin)
        process.stdin.close()
    except OSError:  # it has ended: `wait` says why
        process.stdin = None


def main() -> None:
    """Do the jobs that stdin holds with the functions of the module that the command line names."""
    module = import_module(sys.argv[1])
    jobs = pickle.load(sys.stdin.buffer)
    # numbers of jobs, which this process and, where there are several jobs, its copy take out one by one
    numbers, filled = os.pipe()
    os.write(filled, bytes(range(len(jobs))))
    os.close(filled)
    copy = os.fork() if len(jobs) > 1 else None
    while taken := os.read(numbers, 1):
        name, arguments = jobs[taken[0]]
        getattr(module, name)(*arguments)
    if copy and os.waitpid(copy, 0)[1]:
        sys.exit(1)


if __name__ == "__main__":
    main()
