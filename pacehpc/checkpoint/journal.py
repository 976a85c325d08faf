"""The journal of one minimisation: every evaluation in an append-only file of fixed-size records.

    file    magic (8) | length of the header (uint32) | header (JSON) | its digest (8) | records
    record  number, command, iteration, with gradient (int64) | hash of x (16) | loss, metrics, gradient | digest (8)

Digests are keyed with the run and the minimisation, so that records of another file are never taken for this one's.
Those of records are made of their first fields and the CRC-32 of the long rest, which takes a fifth of the time of a
digest. A record is one write; a tail that was cut by a kill does not pass its digest and is removed. A deterministic
optimizer that is run again and answered from here rebuilds its own state without any evaluation.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from pacehpc.checkpoint.files import BackgroundSync, write_all
from pacehpc.replacing import replace_file

MAGIC = b"PACEJRNL"
FORMAT = 2
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


def _sealed(head: bytes, rest: bytes | memoryview, key: bytes) -> bytes:
    """Digest of a record: its first fields, and the values behind them."""
    return blake2b(head + zlib.crc32(rest).to_bytes(4, "little"), digest_size=_DIGEST, key=key).digest()


def record_bytes(n_metrics: int, n_gradient: int) -> int:
    """Bytes of a record with so many metrics and entries of a gradient."""
    return _HEAD.size + 8 * (n_metrics + n_gradient) + _DIGEST


class Journal:
    """Evaluations of one minimisation, in a file that is made with the first of them.

    A file that is not this journal, or whose header is damaged, is renamed to *.damaged: its evaluations are then
    computed again, with the same results.

    Attributes:
        count: records.
        index: command and hash of x of each record.
        damage: what was wrong with the file, for the log; "" if nothing.
    """

    def __init__(
        self, path: Path, run: str, name: str, n_gradient: int, versions: Mapping[str, str] | None = None
    ) -> None:
        """Open the file, if it is there.

        Args:
            path: the file.
            run: identity of the fit; a journal of another is not read.
            name: of the minimisation.
            n_gradient: entries of a gradient, 0 for methods without.
            versions: noted in the header, for whoever reads it.

        Raises:
            OSError: the file cannot be read.
        """
        self.path, self.n_gradient = path, n_gradient
        self._identity = {"format": FORMAT, "run": run, "name": name, "n": n_gradient}
        self._versions = dict(versions or {})
        self._key = blake2b(json.dumps(self._identity).encode(), digest_size=16).digest()
        self._names: list[str] = []
        self._file: int | None = None
        self._start = 0  # of the records
        self.count = 0
        self.index: list[tuple[int, bytes]] = []
        self.damage = ""
        self._record = bytearray()
        self._background = BackgroundSync()
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
            self.damage = f"its header is damaged, or of another version of this program; it is now {aside.name}"
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
                self.damage = f"record {self.count} is damaged; {lost // self.size} records are computed again"
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
        if len(raw) != self.size:
            return None
        whole = memoryview(raw)
        if whole[-_DIGEST:] != _sealed(raw[: _HEAD.size], whole[_HEAD.size : -_DIGEST], self._key):
            return None
        found, command, iteration, with_gradient, key, loss = _HEAD.unpack_from(raw)
        if found != number:
            return None
        values = np.frombuffer(raw[_HEAD.size : -_DIGEST], dtype="<f8").astype(np.float64)
        n = len(self._names)
        metrics = dict(zip(self._names, values[:n].tolist(), strict=True))
        return Evaluation(command, iteration, key, loss, metrics, values[n:].copy() if with_gradient else None)

    def read(self, number: int) -> Evaluation:
        """Record `number`, from 0.

        Raises:
            OSError: it cannot be read as it was.
        """
        found = self._parse(self._raw(number), number)
        if found is None:
            raise OSError(f"{self.path}: record {number} changed while it was in use")
        return found

    def append(self, evaluation: Evaluation) -> None:
        """Add a record and hand it to the operating system.

        Raises:
            OSError: it cannot be written; the file is as before.
        """
        names = list(evaluation.metrics)
        if self._file is None:
            self._create(names)
        gradient = evaluation.gradient
        if len(self._record) != self.size:
            self._record = bytearray(self.size)  # of every append: no copies
        record, numbers = memoryview(self._record), (self.count, evaluation.command, evaluation.iteration)
        _HEAD.pack_into(record, 0, *numbers, gradient is not None, evaluation.key, evaluation.loss)
        values = np.frombuffer(record[_HEAD.size : -_DIGEST], dtype="<f8")
        values[: len(self._names)] = [evaluation.metrics[name] for name in self._names]
        values[len(self._names) :] = 0.0 if gradient is None else gradient
        record[-_DIGEST:] = _sealed(bytes(record[: _HEAD.size]), record[_HEAD.size : -_DIGEST], self._key)
        end = self._start + self.count * self.size
        try:
            self._background.wrote(self._file)
            write_all(self._file, record, end)
        except OSError:
            os.ftruncate(self._file, end)
            raise
        self.index.append((evaluation.command, evaluation.key))
        self.count += 1

    def sync(self) -> None:
        """Bring all records to the disk.

        Raises:
            OSError: the disk refuses them.
        """
        if self._file is None:
            return
        self._background.wait()
        os.fsync(self._file)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # `sync` says what could not be kept
                self._background.wait()
            os.close(self._file)
            self._file = None


@dataclass
class Point:
    """A point of a minimisation."""

    x: np.ndarray
    """(n,): trainable parameters."""
    loss: float
    iteration: int
    evaluations: int


_SLOT = struct.Struct("<qqqd")  # number, iteration, evaluations, loss


class BestPoint:
    """The point of lowest loss, in two slots of a file that are written in turn: one of them is always whole.

    Attributes:
        point: the best so far, None before the first.
    """

    def __init__(self, path: Path, run: str, name: str, n: int) -> None:
        """Read the file, if it is there; run, name: as of the journal; n: parameters.

        Raises:
            OSError: the file cannot be read.
        """
        self.path, self.n = path, n
        self._key = blake2b(json.dumps([FORMAT, run, name, n]).encode(), digest_size=16).digest()
        self._size = _SLOT.size + 8 * n + _DIGEST
        self._number = 0
        self._file: int | None = None
        self._background = BackgroundSync()
        self.point: Point | None = None
        if path.exists():
            data = path.read_bytes()
            found = [self._parse(data[k * self._size : (k + 1) * self._size]) for k in range(2)]
            whole = [slot for slot in found if slot is not None]
            if whole:
                self._number, self.point = max(whole, key=lambda slot: slot[0])

    def _parse(self, raw: bytes) -> tuple[int, Point] | None:
        head, rest, digest = raw[: _SLOT.size], raw[_SLOT.size : -_DIGEST], raw[-_DIGEST:]
        if len(raw) != self._size or digest != _sealed(head, rest, self._key):
            return None
        number, iteration, evaluations, loss = _SLOT.unpack_from(raw)
        x = np.frombuffer(rest, dtype="<f8").astype(np.float64)
        return number, Point(x, loss, iteration, evaluations)

    def update(self, x: np.ndarray, loss: float, iteration: int, evaluations: int) -> None:
        """Keep x (n,) if its loss is the lowest.

        Raises:
            OSError: it cannot be written.
        """
        if not np.isfinite(loss) or (self.point is not None and not loss < self.point.loss):
            return
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        number = self._number + 1
        head, rest = _SLOT.pack(number, iteration, evaluations, loss), np.asarray(x, dtype="<f8").tobytes()
        write_all(self._file, head + rest + _sealed(head, rest, self._key), (number % 2) * self._size)
        self._background.wrote(self._file)
        self._number, self.point = number, Point(np.array(x, dtype=np.float64), loss, iteration, evaluations)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # the journal has the point, too
                self._background.wait()
            os.close(self._file)
            self._file = None
