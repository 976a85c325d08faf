"""What the small programs share."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pacehpc.errors import PacehpcError, print_anything

if TYPE_CHECKING:
    from pacehpc.parallel import Ranks

Main = Callable[[Sequence[str] | None], int]


def command(main: Main) -> Main:
    """A program whose PacehpcErrors end in one message and exit code 1, and that may be piped into `head`."""

    @functools.wraps(main)
    def program(argv: Sequence[str] | None = None) -> int:
        logging.basicConfig(format="%(levelname)s: %(message)s")  # of warnings, where nobody else writes them
        print_anything()
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


def run_on_ranks(job: Callable[[argparse.Namespace, Ranks], int], arguments: argparse.Namespace) -> int:
    """Run a program that may be started by mpirun; returns its exit code.

    Args:
        job: called on every rank.
        arguments: of the command line.
    """
    from pacehpc import parallel
    from pacehpc.machine import set_blas_threads, set_kernel_threads, share_of_cores, threads_given

    ranks = parallel.Ranks.world()
    parallel.setup_logging(ranks)
    set_blas_threads(1)  # sums of BLAS, and so what is chosen by them, depend on its threads
    set_kernel_threads(threads_given() or share_of_cores(ranks.node_size))
    try:
        return parallel.run(lambda: job(arguments, ranks), ranks)
    finally:
        parallel.close_logging()
