"""What the small programs share."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pacehpc.checkpoint.files import FULL_OR_FORBIDDEN, cannot_write
from pacehpc.errors import PacehpcError, print_anything

if TYPE_CHECKING:
    from pacehpc.parallel import Ranks
    from pacehpc.potential import Potential

_PAIR = re.compile(r"\w+=.")
Main = Callable[[Sequence[str] | None], int]


def spread_options(argv: Sequence[str]) -> list[str]:
    """Arguments with a --keys for each pair after it, also before a FILE; --stress-units may begin with `-`."""
    given, keys = list(argv), False
    spread: list[str] = []
    while given:
        word = given.pop(0)
        if word == "--keys":
            keys = True
            if not given or not _PAIR.match(given[0]):
                spread.append(word)
        elif keys and _PAIR.match(word):
            spread += ["--keys", word]
        elif word == "--stress-units" and given:
            spread.append(f"{word}={given.pop(0)}")
        else:
            keys = False
            spread.append(word)
    return spread


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """--stress-units and --keys, for arguments that `spread_options` has seen."""
    parser.add_argument("--stress-units", default="eV/A3", help="of the data: eV/A3, GPa, kbar, or -kbar (VASP's sign)")
    parser.add_argument(
        "--keys", action="append", default=[], metavar="COLUMN=NAME",
        help="names in the files, such as --keys energy=dft_energy forces=dft_forces",
    )  # fmt: skip


def keys_of(pairs: Sequence[str]) -> dict[str, str]:
    """{column: name} of `--keys`; PacehpcError where a word is no such pair."""
    keys = {}
    for pair in pairs:
        column, equals, name = pair.partition("=")
        if not (column and equals and name):
            raise PacehpcError(f"--keys: {pair!r} is not COLUMN=NAME, such as energy=dft_energy.")
        keys[column] = name
    return keys


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


def ready_backend(name: str, potential: Potential, ranks: Ranks, rows: bool = False) -> str:
    """The backend that `name` stands for on all ranks, with its kernels compiled by one rank of each node.

    Args:
        name: of the command line.
        potential: of structures without references, whose evaluators make virials as well.
        ranks: all of them take part.
        rows: kernels of `Evaluator.rows` and `atom_rows` as well.
    """
    from pacehpc.backends.interface import LossWeights
    from pacehpc.objective import agreed_backend, compile_on_nodes, compile_rows_on_nodes

    backend = agreed_backend(name, ranks)
    compile_on_nodes(backend, potential, ranks, LossWeights(), virials=True)
    if rows:
        compile_rows_on_nodes(backend, potential, ranks, stress=True)
    return backend


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

    def program() -> int:
        try:
            return job(arguments, ranks)
        except OSError as error:
            if error.errno not in FULL_OR_FORBIDDEN:
                raise
            raise cannot_write(Path(error.filename or Path.cwd()), error) from error

    try:
        return parallel.run(program, ranks)
    finally:
        parallel.close_logging()
