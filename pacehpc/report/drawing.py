"""Figures drawn by processes of their own, so that ranks need not wait for them, nor load matplotlib."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

from pacehpc.errors import PacehpcError
from pacehpc.machine import UNSTOPPED

Job = tuple[str, tuple[Any, ...]]
"""A function of `report.figures` and its arguments."""


class Drawing:
    """Two processes that draw figures, started at once.

    Each figure is written beside and renamed: where a process is killed, no file is left incomplete.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self._processes = []
        for part in (jobs[::2], jobs[1::2]):
            if part:
                process = subprocess.Popen(
                    [*UNSTOPPED, sys.executable, "-m", "pacehpc.report.drawing"],
                    stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                    env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
                )  # fmt: skip
                self._processes.append((process, part))
        for process, part in self._processes:  # all of them have started and load what they need
            try:
                pickle.dump(part, process.stdin)
                process.stdin.close()
            except OSError:  # it has ended: `wait` says why
                process.stdin = None

    def wait(self) -> None:
        """Wait until all figures are there.

        Raises:
            PacehpcError: a process failed; the last line of what it said is in the message.
        """
        failed = []
        for process, _ in self._processes:
            said = process.stderr.read().decode(errors="replace").strip()
            if process.wait() != 0:
                failed.append(said.splitlines()[-1] if said else f"exit code {process.returncode}")
        if failed:
            raise PacehpcError(
                f"report: figures could not be drawn: {'; '.join(failed)}. All other files are complete: run the same "
                "command again when the cause is removed, or leave the figures out with `--no-predict`."
            )


def main() -> None:
    """Draw the jobs that stdin holds."""
    jobs = pickle.load(sys.stdin.buffer)
    from pacehpc.report import figures

    for name, arguments in jobs:
        getattr(figures, name)(*arguments)


if __name__ == "__main__":
    main()
