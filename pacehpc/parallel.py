"""The ranks of a run, the log that they share, and how a job ends.

Nothing here imports mpi4py.MPI before `Ranks.world` is called: importing pacehpc never initialises MPI, which aborts on
the login nodes of some sites.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import stat
import sys
import termios
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pacehpc.errors import PacehpcError
from pacehpc.shared_memory import remove_left_segments

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")
PATIENCE, LONGEST_SLEEP = 2e-4, 5e-3  # seconds
TURN = 0.5  # seconds after which the next rank that failed shows its message, unless the job has ended
log = logging.getLogger("pacehpc")
HANDLER = "pacehpc"  # name of the handlers that `setup_logging` sets

# Set by launchers for every process that they start; SLURM_NTASKS alone also holds for a serial command inside sbatch.
SIZE_VARIABLES = ("SLURM_STEP_NUM_TASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")


class AgreedError(PacehpcError):
    """A user's error that every rank knows of: all leave cleanly, the root alone shows it."""


class Ranks:
    """The processes that run together; without a communicator, this one alone.

    All methods, and making one, are collective: every rank calls them, in the same order.

    Attributes:
        rank, size: this rank's number, and how many there are.
        root: whether this is rank 0, which decides, writes and logs.
        node_rank, node_size: this rank's number on its node, and how many there are.
    """

    def __init__(self, comm: MPI.Comm | None = None) -> None:
        self.rank, self.size = (0, 1) if comm is None else (comm.rank, comm.size)
        self.root = self.rank == 0
        self._comm = comm if self.size > 1 else None
        self.node_rank, self.node_size = 0, 1
        if self._comm is not None:
            from mpi4py import MPI

            node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
            self.node_rank, self.node_size = node.rank, node.size
            node.Free()

    @classmethod
    def world(cls, environ: Mapping[str, str] | None = None) -> Ranks:
        """Initialise MPI; all ranks of this job.

        Raises:
            PacehpcError: a launcher started several processes that do not see each other (see `check_launcher`).
        """
        remove_left_segments()
        from mpi4py import MPI

        check_launcher(MPI.COMM_WORLD.size, os.environ if environ is None else environ)
        return cls(MPI.COMM_WORLD)

    def on_root(self, function: Callable[[], T]) -> T | None:
        """Run `function` on the root; its value there, None elsewhere.

        Raises:
            AgreedError: on all ranks, where `function` raised a PacehpcError. Other exceptions are left to `run`.
        """
        value, message = self._tried_on_root(function)
        self._agree(self.broadcast(message))
        return value

    def share(self, function: Callable[[], T]) -> T:
        """Run `function` on the root; its value on every rank. Raises as `on_root` does."""
        value, message = self.broadcast(self._tried_on_root(function))
        self._agree(message)
        return value

    def on_each(self, function: Callable[[], T]) -> T:
        """Run `function` on every rank; its value there.

        Raises:
            AgreedError: on all ranks, where it raised a PacehpcError on one or more of them: the first one's.
        """
        value, message = _tried(function)
        self._agree(next((found for found in self.gather_everywhere(message) if found is not None), None))
        return value

    def _tried_on_root(self, function: Callable[[], T]) -> tuple[T | None, str | None]:
        return _tried(function) if self.root else (None, None)

    @staticmethod
    def _agree(message: str | None) -> None:
        if message is not None:
            raise AgreedError(message)

    def broadcast(self, value: T) -> T:
        """The root's value on every rank (pickled)."""
        if self._comm is None:
            return value
        self.barrier()
        return self._comm.bcast(value, root=0)

    def gather(self, value: T) -> list[T] | None:
        """Every rank's value in a list on the root, None elsewhere (pickled)."""
        if self._comm is None:
            return [value]
        self.barrier()
        return self._comm.gather(value, root=0)

    def gather_everywhere(self, value: T) -> list[T]:
        """Every rank's value in a list on all ranks (pickled)."""
        if self._comm is None:
            return [value]
        self.barrier()
        return self._comm.allgather(value)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of float64 or int64 arrays of equal shape over all ranks, on every rank."""
        values = np.ascontiguousarray(values)
        total = np.empty_like(values)
        self.sum_into(values, total)
        return total

    def sum_into(self, values: np.ndarray, total: np.ndarray) -> None:
        """`sum` into an array of the caller's."""
        if self._comm is None:
            total[...] = values
        else:
            self._comm.Allreduce(values, total)

    def largest(self, values: np.ndarray) -> np.ndarray:
        """Largest of float64 arrays of equal shape over all ranks, entry by entry, on every rank."""
        values = np.ascontiguousarray(values)
        if self._comm is None:
            return values.copy()
        from mpi4py import MPI

        found = np.empty_like(values)
        self._comm.Allreduce(values, found, op=MPI.MAX)
        return found

    def sum_on_root(self, values: np.ndarray) -> np.ndarray | None:
        """Sum of arrays of equal shape over all ranks on the root, None elsewhere."""
        if self._comm is None:
            return values
        total = np.empty_like(values) if self.root else None
        self._comm.Reduce(np.ascontiguousarray(values), total, root=0)
        return total

    def rows_on_root(self, rows: np.ndarray) -> np.ndarray | None:
        """Arrays (n_rows, n) of all ranks, one after the other, on the root; None elsewhere."""
        if self._comm is None:
            return rows
        counts = self._comm.gather(len(rows), root=0)
        if not self.root:
            if len(rows):
                self._comm.Send(np.ascontiguousarray(rows), dest=0)
            return None
        ends = np.cumsum(counts)
        found = np.empty((ends[-1], rows.shape[1]))
        found[: len(rows)] = rows
        for source in range(1, self.size):
            if counts[source]:
                self._comm.Recv(found[ends[source - 1] : ends[source]], source=source)
        return found

    def exchange(self, sent: Mapping[int, np.ndarray], received: Mapping[int, np.ndarray]) -> None:
        """Send arrays to other ranks and fill arrays with what they send, by rank; both sides know the shapes."""
        if self._comm is None:
            return
        requests = [self._comm.Irecv(array, source=rank) for rank, array in received.items()]
        requests += [self._comm.Isend(np.ascontiguousarray(array), dest=rank) for rank, array in sent.items()]
        for request in requests:
            request.Wait()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank, on every rank."""
        return bool(self.sum(np.array([float(flag)]))[0] > 0)

    def barrier(self) -> None:
        """Wait for all ranks; who waits leaves the core to whoever needs it, such as the root's compiler."""
        if self._comm is not None:
            _sleep_until(self._comm.Ibarrier())

    def receive(self, message: np.ndarray, patiently: bool = False) -> None:
        """Overwrite `message` with the root's.

        patiently: the other ranks leave the core to whoever needs it while they wait.
        """
        if self._comm is None:
            return
        if not patiently:
            self._comm.Bcast(message, root=0)
            return
        request = self._comm.Ibcast(message, root=0)
        if self.root:
            request.Wait()
        else:
            _sleep_until(request)

    def hosts(self) -> list[str] | None:
        """Host name of every rank on the root, None elsewhere."""
        return self.gather(socket.gethostname())

    def part(self) -> None:
        """End MPI: from here on a rank may end without the others, and no other method may be called."""
        if self._comm is not None:
            from mpi4py import MPI

            self.barrier()
            MPI.Finalize()
            self._comm = None

    def abort(self, code: int) -> None:
        """End all ranks that run; this rank alone calls it. Alone it returns."""
        if self._comm is not None:
            _wait_for_reader()
            time.sleep(0.3)  # and for what the reader has to hand on
            self._comm.Abort(code)


def _tried(function: Callable[[], T]) -> tuple[T | None, str | None]:
    """The value of `function`, or the message of the PacehpcError that it raised."""
    try:
        return function(), None
    except PacehpcError as error:
        return None, str(error)


def _wait_for_reader(longest: float = 10.0) -> None:
    """Until mpirun has read what this rank wrote, or `longest` seconds have passed: at an abort it drops the rest."""
    end = time.monotonic() + longest
    while any(_unread(stream) for stream in (1, 2)) and time.monotonic() < end:
        time.sleep(0.01)


def _unread(descriptor: int) -> int:
    """Bytes waiting in a pipe; 0 for anything else."""
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
    return 0


def _sleep_until(request: MPI.Request) -> None:
    """Ask without pause for PATIENCE, then sleep a twentieth of the time waited: the answer is at most 5 % late."""
    start = time.perf_counter()
    while not request.Test():
        waited = time.perf_counter() - start
        time.sleep(0.0 if waited < PATIENCE else min(waited / 20, LONGEST_SLEEP))


def check_launcher(n_ranks: int, environ: Mapping[str, str]) -> None:
    """Raises PacehpcError if a launcher started several processes that became worlds of their own."""
    if n_ranks > 1:
        return
    for name in SIZE_VARIABLES:
        value = environ.get(name, "")
        if value.isdigit() and int(value) > 1:
            raise PacehpcError(
                f"{name}={value}, but MPI sees one rank: the launcher started {value} separate programs instead of one "
                f"of {value} ranks. Launcher and MPI library do not match: try `srun --mpi=pmi2` (or `--mpi=pmix`), "
                "or the mpirun of the MPI that mpi4py loads (`python -m mpi4py --mpi-library`)."
            )


def launcher_rank(environ: Mapping[str, str] | None = None) -> int:
    """Rank as the launcher's environment gives it (0 if it gives none): known before, and without, MPI."""
    environ = os.environ if environ is None else environ
    for name in RANK_VARIABLES:
        if environ.get(name, "").isdigit():
            return int(environ[name])
    return 0


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


def setup_logging(ranks: Ranks, log_file: str | os.PathLike | None = None) -> None:
    """Set the handlers of the logger "pacehpc".

    The root appends everything to `log_file` and writes the same entries to stdout, errors to stderr. The other ranks
    write warnings and errors to stderr, with their rank.
    """
    close_logging()
    log.setLevel(logging.INFO)
    log.propagate = False
    errors = logging.StreamHandler(sys.stderr)
    errors.setLevel(logging.WARNING)
    handlers: list[logging.Handler] = []
    if ranks.root:
        entry = _Entry("%(asctime)s %(letter)s - %(message)s")
        errors.setLevel(logging.ERROR)
        errors.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        console = logging.StreamHandler(sys.stdout)
        console.addFilter(lambda record: record.levelno < logging.ERROR)
        console.setFormatter(entry)
        handlers.append(console)
        if log_file is not None:
            try:
                file = _LogFile(log_file, mode="a", encoding="utf-8")
            except OSError as error:
                raise PacehpcError(f"cannot write the log {Path(log_file)}: {error.strerror}") from error
            file.setFormatter(entry)
            handlers.append(file)
    else:
        errors.setFormatter(logging.Formatter(f"[rank {ranks.rank} of {ranks.size}] %(levelname)s: %(message)s"))
    for handler in (*handlers, errors):
        handler.set_name(HANDLER)
        log.addHandler(handler)


def close_logging() -> None:
    """Flush and remove the handlers of `setup_logging`."""
    for handler in _own_handlers():
        handler.close()
        log.removeHandler(handler)


def _own_handlers() -> list[logging.Handler]:
    return [handler for handler in log.handlers if handler.get_name() == HANDLER]


def run(function: Callable[[], int], ranks: Ranks) -> int:
    """Exit code of the program `function`. An exception on any rank ends the whole job, shown once.

    PacehpcError: its message, no traceback. Others: the traceback. MPI_Abort ends the ranks that cannot know of it;
    an `AgreedError` is a clean end with code 1.
    """
    try:
        return function()
    except AgreedError as error:
        if ranks.root:
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
    time.sleep(TURN * min(ranks.rank, 5))
    if message:
        _show(message)
    sys.stdout.flush()
    sys.stderr.flush()
    ranks.abort(code)
    return code


def _show(message: str) -> None:
    if _own_handlers():
        log.error("%s", message)
    else:
        print(f"ERROR: {message}", file=sys.stderr, flush=True)
