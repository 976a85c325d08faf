"""What the small programs share."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence

from pacehpc.errors import PacehpcError

Main = Callable[[Sequence[str] | None], int]


def command(main: Main) -> Main:
    """A program whose PacehpcErrors end in one message and exit code 1, and that may be piped into `head`."""

    @functools.wraps(main)
    def program(argv: Sequence[str] | None = None) -> int:
        logging.basicConfig(format="%(levelname)s: %(message)s")  # of warnings, where nobody else writes them
        try:
            code = main(argv)
            sys.stdout.flush()
            return code
        except PacehpcError as error:
            print(f"ERROR: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return program
