"""Ranks: helpers over a communicator that may be None (this process alone), MPI-safe logging, and how a job ends.

Nothing here imports mpi4py.MPI before `world` is called: importing pacehpc never initialises MPI, which aborts on the
login nodes of some sites.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pacehpc.errors import PacehpcError
from pacehpc.shared_memory import remove_left_segments

T = TypeVar("T")
PATIENCE, LONGEST_SLEEP = 2e-4, 5e-3  # seconds
log = logging.getLogger("pacehpc")
_handlers: list[logging.Handler] = []  # those of `setup_logging`

# Set by launchers for every process that they start; SLURM_NTASKS alone also holds for a serial command inside sbatch.
SIZE_VARIABLES = ("SLURM_STEP_NUM_TASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")


class AgreedError(PacehpcError):
    """A user's error that every rank knows of: all leave in order, the root alone shows it."""


def world(environ: Mapping[str, str] | None = None) -> Any | None:
    """Initialise MPI; returns COMM_WORLD, or None where this process is alone.

    Raises PacehpcError where a launcher started several processes that do not see each other (see `check_launcher`).
    """
    remove_left_segments()
    from mpi4py import MPI

    check_launcher(MPI.COMM_WORLD.size, os.environ if environ is None else environ)
    return MPI.COMM_WORLD if MPI.COMM_WORLD.size > 1 else None


def check_launcher(n_ranks: int, environ: Mapping[str, str]) -> None:
    """Raises PacehpcError if a launcher started several processes that became worlds of their own."""
    if n_ranks > 1:
        return
    for name in SIZE_VARIABLES:
        value = environ.get(name, "")
        if value.isdigit() and int(value) > 1:
            raise PacehpcError(
                f"{name}={value}, but MPI sees one rank: the launcher started {value} separate programs instead of one "
                f"of {value} ranks. Launcher and MPI library do not fit: try `srun --mpi=pmi2` (or `--mpi=pmix`), "
                "or the mpirun of the MPI that mpi4py loads (`python -m mpi4py --mpi-library`)."
            )


def launcher_rank(environ: Mapping[str, str] | None = None) -> int:
    """Rank as the launcher's environment gives it (0 if it gives none): known before, and without, MPI."""
    environ = os.environ if environ is None else environ
    for name in RANK_VARIABLES:
        if environ.get(name, "").isdigit():
            return int(environ[name])
    return 0


def rank_of(comm: Any | None) -> int:
    """This rank's number."""
    return 0 if comm is None else comm.rank


def size_of(comm: Any | None) -> int:
    """Number of ranks."""
    return 1 if comm is None else comm.size


def is_root(comm: Any | None) -> bool:
    """Whether this is rank 0, which decides, writes and logs."""
    return rank_of(comm) == 0


def broadcast(value: T, comm: Any | None) -> T:
    """The root's value on every rank (pickled)."""
    return value if comm is None else comm.bcast(value, root=0)


def gather(value: T, comm: Any | None) -> list[T] | None:
    """Every rank's value in a list on the root, None elsewhere (pickled)."""
    return [value] if comm is None else comm.gather(value, root=0)


def receive_patiently(comm: Any, message: np.ndarray) -> None:
    """Broadcast `message` from the root; the others leave the core to whoever needs it while they wait.

    They ask without pause for PATIENCE, then sleep a twentieth of what they have waited, so that an answer comes at
    most 5 % late.
    """
    request = comm.Ibcast(message, root=0)
    if comm.rank == 0:
        request.Wait()
        return
    start = time.perf_counter()
    while not request.Test():
        waited = time.perf_counter() - start
        time.sleep(0.0 if waited < PATIENCE else min(waited / 20, LONGEST_SLEEP))


def barrier(comm: Any | None) -> None:
    """Wait for all ranks."""
    if comm is not None:
        comm.Barrier()


def allreduce_sum(values: np.ndarray, comm: Any | None) -> np.ndarray:
    """Sum of float64 or int64 arrays of equal shape over all ranks, on every rank."""
    values = np.ascontiguousarray(values)
    if comm is None:
        return values
    total = np.empty_like(values)
    comm.Allreduce(values, total)
    return total


def node_rank(comm: Any | None) -> tuple[int, int]:
    """(rank within this node, number of ranks on this node)."""
    if comm is None:
        return 0, 1
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
    try:
        return node.rank, node.size
    finally:
        node.Free()


def hosts(comm: Any | None) -> list[str] | None:
    """Host name of every rank on the root, None elsewhere."""
    return gather(socket.gethostname(), comm)


def on_root(function: Callable[[], T], comm: Any | None, share: bool = True) -> T | None:
    """Run `function` on the root; its value on every rank (share) or on the root alone (None elsewhere).

    A PacehpcError raised by it becomes an `AgreedError` on all ranks. Other exceptions are left to `run`.
    """
    value, message = None, None
    if is_root(comm):
        try:
            value = function()
        except PacehpcError as error:
            message = str(error)
    if comm is not None:
        message, value_shared = comm.bcast((message, value if share else None), root=0)
        if share:
            value = value_shared
    if message is not None:
        raise AgreedError(message)
    return value


class _Entry(logging.Formatter):
    """Entries as pacemaker writes them: `2026-01-31 12:00:00,123 I - message`, level as the letter D, I, W or E."""

    def format(self, record: logging.LogRecord) -> str:
        record.letter = "E" if record.levelno >= logging.ERROR else record.levelname[0]
        return super().format(record)


class _LogFile(logging.FileHandler):
    """Says once that the log cannot be written; a fit does not end for that."""

    said = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            if not self.said:
                self.said = True
                print(f"WARNING: {self.baseFilename}: cannot be written: {error.strerror}", file=sys.stderr, flush=True)
        else:
            super().handleError(record)


def setup_logging(comm: Any | None, log_file: str | os.PathLike | None = None) -> None:
    """Set the handlers of the logger "pacehpc".

    The root appends everything to `log_file` and writes the same entries to stdout, errors to stderr. The other ranks
    write warnings and errors to stderr, with their rank.
    """
    close_logging()
    log.setLevel(logging.INFO)
    log.propagate = False
    errors = logging.StreamHandler(sys.stderr)
    errors.setLevel(logging.WARNING)
    if is_root(comm):
        entry = _Entry("%(asctime)s %(letter)s - %(message)s")
        errors.setLevel(logging.ERROR)
        errors.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        console = logging.StreamHandler(sys.stdout)
        console.addFilter(lambda record: record.levelno < logging.ERROR)
        console.setFormatter(entry)
        _handlers.append(console)
        if log_file is not None:
            try:
                file = _LogFile(log_file, mode="a", encoding="utf-8")
            except OSError as error:
                raise PacehpcError(f"cannot write the log {Path(log_file)}: {error.strerror}") from error
            file.setFormatter(entry)
            _handlers.append(file)
    else:
        errors.setFormatter(logging.Formatter(f"[rank {rank_of(comm)} of {size_of(comm)}] %(levelname)s: %(message)s"))
    _handlers.append(errors)
    for handler in _handlers:
        log.addHandler(handler)


def close_logging() -> None:
    """Flush and remove the handlers of `setup_logging`."""
    for handler in _handlers:
        handler.close()
        log.removeHandler(handler)
    _handlers.clear()


def run(function: Callable[[], int], comm: Any | None) -> int:
    """Exit code of the program `function`. An exception on any rank ends the whole job, shown once.

    PacehpcError: its message, no traceback. Others: the traceback. MPI_Abort ends the ranks that cannot know of it;
    an `AgreedError` is an orderly end with code 1.
    """
    try:
        return function()
    except AgreedError as error:
        if is_root(comm):
            _show(f"{error}")
        return 1
    except PacehpcError as error:
        message, code = f"{error}", 1
    except SystemExit as error:
        message, code = "", error.code if isinstance(error.code, int) and error.code else 1
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except BaseException:
        message, code = traceback.format_exc().rstrip(), 1
    # Ranks often fail together: the lowest shows its message and ends the others before they speak.
    time.sleep(0.5 * min(rank_of(comm), 5))
    if message:
        _show(message)
    sys.stdout.flush()
    sys.stderr.flush()
    if comm is not None:
        time.sleep(0.3)  # mpirun drops what it has not yet read
        comm.Abort(code)
    return code


def _show(message: str) -> None:
    if _handlers:
        log.error("%s", message)
    else:
        print(f"ERROR: {message}", file=sys.stderr, flush=True)
