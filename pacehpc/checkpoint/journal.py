"""The journal of one minimisation: every evaluation in an append-only file of fixed-size records.

    file    magic (8) | length of the header (uint32) | header (JSON) | its digest (8) | records
    record  number, command, iteration, with gradient (int64) | hash of x (16) | loss, metrics, gradient | digest (8)

Digests are keyed with the run and the minimisation, so that records of another file are never taken for this one's.
A record is one write; a tail that was cut by a kill does not pass its digest and is removed. A deterministic optimizer
that is run again and answered from here rebuilds its own state without any evaluation.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from pacehpc.checkpoint.files import replace_file, write_all

log = logging.getLogger("pacehpc")

MAGIC = b"PACEJRNL"
FORMAT = 1
SYNC_SHARE = 0.005  # of the time that fsync may take
_HEAD = struct.Struct("<qqqq16sd")  # number, command, iteration, with gradient, hash of x, loss
_DIGEST = 8


@dataclass
class Evaluation:
    """One record: what the optimizer asked for and got."""

    command: int
    iteration: int
    key: bytes
    """Hash of x, 16 bytes."""
    loss: float
    metrics: dict[str, float]
    gradient: np.ndarray | None
    """(n_gradient,), or None for commands without."""


def hash_of(x: np.ndarray) -> bytes:
    """128-bit hash of the bits of x."""
    return blake2b(np.ascontiguousarray(x, dtype=np.float64), digest_size=16).digest()


def record_bytes(n_metrics: int, n_gradient: int) -> int:
    """Size of a record."""
    return _HEAD.size + 8 * (n_metrics + n_gradient) + _DIGEST


class Journal:
    """Evaluations of the minimisation `name` of a run, kept in `path`; the file is made with the first of them.

    n_gradient: entries of a gradient, 0 for methods without. A file that is not this journal, or whose header is
    damaged, is renamed to *.damaged: its evaluations are then made again, with the same results.
    """

    def __init__(
        self, path: Path, run: str, name: str, n_gradient: int, versions: Mapping[str, str] | None = None
    ) -> None:
        self.path, self.n_gradient = path, n_gradient
        self._identity = {"format": FORMAT, "run": run, "name": name, "n": n_gradient}
        self._versions = dict(versions or {})
        self._key = blake2b(json.dumps(self._identity).encode(), digest_size=16).digest()
        self._names: list[str] = []
        self._file: int | None = None
        self._start = 0  # of the records
        self.count = 0
        self.index: list[tuple[int, bytes]] = []  # command and hash of each record
        self.damage = ""
        self._sync_cost, self._synced, self._last_sync = 0.0, 0.0, time.perf_counter()
        self._opened = self._last_sync
        if path.exists():
            self._open()

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return record_bytes(len(self._names), self.n_gradient)

    def _open(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR)
        names = self._read_header(descriptor)
        if names is None:
            os.close(descriptor)
            aside = self.path.with_suffix(".damaged")
            os.replace(self.path, aside)
            self.damage = f"its header is damaged; it is now {aside.name}"
            return
        self._file, self._names = descriptor, names
        length = os.fstat(descriptor).st_size
        while self._start + (self.count + 1) * self.size <= length:
            found = self._parse(self._raw(self.count), self.count)
            if found is None:
                break
            self.index.append((found.command, found.key))
            self.count += 1
        end = self._start + self.count * self.size
        lost = length - end
        if lost:
            if lost > self.size:
                self.damage = f"record {self.count} is damaged; {lost // self.size} records are made again"
            os.ftruncate(descriptor, end)
            os.fsync(descriptor)

    def _read_header(self, descriptor: int) -> list[str] | None:
        """Names of the metrics, None if this is not the header of this journal."""
        fixed = os.pread(descriptor, 12, 0)
        if len(fixed) < 12 or fixed[:8] != MAGIC:
            return None
        (length,) = struct.unpack("<I", fixed[8:])
        if length > 1 << 20:
            return None
        text = os.pread(descriptor, length, 12)
        if os.pread(descriptor, _DIGEST, 12 + length) != self._digest(text):
            return None
        header = json.loads(text)
        if {key: header.get(key) for key in self._identity} != self._identity:
            return None
        self._start = 12 + length + _DIGEST
        return list(header["metrics"])

    def _create(self, names: list[str]) -> None:
        text = json.dumps({**self._identity, "metrics": names, "versions": self._versions}).encode()
        header = MAGIC + struct.pack("<I", len(text)) + text + self._digest(text)
        replace_file(self.path, header)
        self._file = os.open(self.path, os.O_RDWR)
        self._names, self._start = names, len(header)

    def _digest(self, data: bytes) -> bytes:
        return blake2b(data, digest_size=_DIGEST, key=self._key).digest()

    def _raw(self, number: int) -> bytes:
        return os.pread(self._file, self.size, self._start + number * self.size)

    def _parse(self, raw: bytes, number: int) -> Evaluation | None:
        if len(raw) != self.size or raw[-_DIGEST:] != self._digest(raw[:-_DIGEST]):
            return None
        found, command, iteration, with_gradient, key, loss = _HEAD.unpack_from(raw)
        if found != number:
            return None
        values = np.frombuffer(raw[_HEAD.size : -_DIGEST], dtype="<f8").astype(np.float64)
        n = len(self._names)
        metrics = dict(zip(self._names, values[:n].tolist(), strict=True))
        return Evaluation(command, iteration, key, loss, metrics, values[n:].copy() if with_gradient else None)

    def read(self, number: int) -> Evaluation:
        """Record `number`, from 0; raises OSError if it cannot be read as it was."""
        found = self._parse(self._raw(number), number)
        if found is None:
            raise OSError(f"{self.path}: record {number} changed while it was in use")
        return found

    def append(self, evaluation: Evaluation) -> None:
        """Add a record and hand it to the operating system; raises OSError, after which the file is as before."""
        names = list(evaluation.metrics)
        if self._file is None:
            self._create(names)
        gradient = evaluation.gradient
        values = np.zeros(len(self._names) + self.n_gradient, dtype="<f8")
        values[: len(self._names)] = [evaluation.metrics[name] for name in self._names]
        if gradient is not None:
            values[len(self._names) :] = gradient
        numbers = (self.count, evaluation.command, evaluation.iteration, gradient is not None)
        body = _HEAD.pack(*numbers, evaluation.key, evaluation.loss) + values.tobytes()
        end = self._start + self.count * self.size
        try:
            write_all(self._file, body + self._digest(body), end)
        except OSError:
            os.ftruncate(self._file, end)
            raise
        self.index.append((evaluation.command, evaluation.key))
        self.count += 1
        self._sync_within_budget()

    def _sync_within_budget(self) -> None:
        """fsync guards against the loss of the machine alone, and only time is lost without it: spend little on it."""
        now = time.perf_counter()
        if self._synced + self._sync_cost > SYNC_SHARE * (now - self._opened) and now - self._last_sync < 60.0:
            return
        self.sync()

    def sync(self) -> None:
        """Bring all records to the disk; raises OSError."""
        if self._file is None:
            return
        start = time.perf_counter()
        os.fsync(self._file)
        self._last_sync = time.perf_counter()
        self._sync_cost = self._last_sync - start
        self._synced += self._sync_cost

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@dataclass
class Point:
    """A point of a minimisation."""

    x: np.ndarray
    loss: float
    iteration: int
    evaluations: int


_SLOT = struct.Struct("<qqqd")  # number, iteration, evaluations, loss


class BestPoint:
    """The point of lowest loss, in two slots of a file that are written in turn: one of them is always whole."""

    def __init__(self, path: Path, run: str, name: str, n: int) -> None:
        self.path, self.n = path, n
        self._key = blake2b(json.dumps([FORMAT, run, name, n]).encode(), digest_size=16).digest()
        self._size = _SLOT.size + 8 * n + _DIGEST
        self._number = 0
        self._file: int | None = None
        self.point: Point | None = None
        if path.exists():
            data = path.read_bytes()
            found = [self._parse(data[k * self._size : (k + 1) * self._size]) for k in range(2)]
            whole = [slot for slot in found if slot is not None]
            if whole:
                self._number, self.point = max(whole, key=lambda slot: slot[0])

    def _parse(self, raw: bytes) -> tuple[int, Point] | None:
        if len(raw) != self._size or raw[-_DIGEST:] != self._digest(raw[:-_DIGEST]):
            return None
        number, iteration, evaluations, loss = _SLOT.unpack_from(raw)
        x = np.frombuffer(raw[_SLOT.size : -_DIGEST], dtype="<f8").astype(np.float64)
        return number, Point(x, loss, iteration, evaluations)

    def _digest(self, data: bytes) -> bytes:
        return blake2b(data, digest_size=_DIGEST, key=self._key).digest()

    def update(self, x: np.ndarray, loss: float, iteration: int, evaluations: int) -> None:
        """Keep x if its loss is the lowest; raises OSError."""
        if not np.isfinite(loss) or (self.point is not None and not loss < self.point.loss):
            return
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        number = self._number + 1
        body = _SLOT.pack(number, iteration, evaluations, loss) + np.asarray(x, dtype="<f8").tobytes()
        write_all(self._file, body + self._digest(body), (number % 2) * self._size)
        self._number, self.point = number, Point(np.array(x, dtype=np.float64), loss, iteration, evaluations)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
