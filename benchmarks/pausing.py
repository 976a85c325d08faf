"""The command pacehpc, which waits before a chosen call until its caller lets it go on.

    python pausing.py MODULE:FUNCTION COUNT FOLDER [arguments of pacehpc]

Every rank writes its process id to FOLDER/rank_N. Before the COUNT-th call of the function the first rank makes
FOLDER/waiting and goes on when somebody has removed it; when it has caught a signal meanwhile, it makes FOLDER/heard.
resume.py starts it, so that a fit can be killed exactly there: the program itself has nothing for tests.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import time
from pathlib import Path

from pacehpc.walltime import Stop

# as pacehpc/__main__.py: before the imports
stop = Stop()
stop.install()


def main() -> int:
    from pacehpc.cli import main as command
    from pacehpc.parallel import launcher_rank

    where, count, folder, *arguments = sys.argv[1:]
    (Path(folder) / f"rank_{launcher_rank()}").write_text(str(os.getpid()), encoding="utf-8")
    if launcher_rank() == 0:
        pause_before(where, int(count), Path(folder))
    return command(arguments, stop=stop)


def pause_before(where: str, count: int, folder: Path) -> None:
    """Put a function that waits in front of the one that is named."""
    module, _, name = where.partition(":")
    *path, last = name.split(".")
    owner = functools.reduce(getattr, path, importlib.import_module(module))
    original, calls = getattr(owner, last), 0

    @functools.wraps(original)
    def waiting(*arguments: object, **keywords: object) -> object:
        nonlocal calls
        calls += 1
        if calls == count:
            wait(folder)
        return original(*arguments, **keywords)

    setattr(owner, last, waiting)


def wait(folder: Path) -> None:
    (folder / "waiting").touch()
    while (folder / "waiting").exists():
        if stop.reason:
            (folder / "heard").touch()
        time.sleep(0.005)


if __name__ == "__main__":
    sys.exit(main())
