"""The journal and the best point as files: what is written comes back, what is not whole does not."""

from __future__ import annotations

import errno
import os
import threading

import numpy as np
import pytest

from pacehpc.checkpoint import files
from pacehpc.checkpoint.journal import BestPoint, Evaluation, Journal, hash_of

N = 7


def evaluation(k: int, gradient: bool = True) -> Evaluation:
    rng = np.random.default_rng(k)
    x = rng.normal(size=N)
    return Evaluation(1, k, hash_of(x), float(k), {"a": 0.1 * k, "b": float("nan")}, x if gradient else None)


def filled(path, count: int = 5) -> Journal:
    journal = Journal(path, "run", "0 0 0", N)
    for k in range(count):
        journal.append(evaluation(k, gradient=k != 2))
    journal.close()
    return Journal(path, "run", "0 0 0", N)


def test_records_come_back_with_every_bit(tmp_path):
    journal = filled(tmp_path / "j.bin")
    assert journal.count == 5 and not journal.damage
    for k in range(5):
        found, known = journal.read(k), evaluation(k, gradient=k != 2)
        assert (found.command, found.iteration, found.key, found.loss) == (1, k, known.key, known.loss)
        assert found.metrics["a"] == known.metrics["a"] and np.isnan(found.metrics["b"])
        if k == 2:
            assert found.gradient is None
        else:
            np.testing.assert_array_equal(found.gradient, known.gradient)


def test_every_single_bit_of_a_record_is_guarded(tmp_path):
    path = tmp_path / "j.bin"
    journal = filled(path, 2)
    whole, size = path.read_bytes(), journal.size
    journal.close()
    for position in range(len(whole) - size, len(whole)):
        for bit in (0, 3, 7):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            path.write_bytes(data)
            damaged = Journal(path, "run", "0 0 0", N)
            assert damaged.count == 1, (position, bit)
            damaged.close()


@pytest.mark.parametrize("lost", [0, 1, 4])
def test_a_hole_that_the_loss_of_the_machine_leaves_is_cut(tmp_path, lost):
    """The disk got later records, but zeros in place of one: nothing from there on is believed."""
    path = tmp_path / "j.bin"
    journal = filled(path)
    data = bytearray(path.read_bytes())
    at = len(data) - (5 - lost) * journal.size
    data[at : at + journal.size] = bytes(journal.size)
    path.write_bytes(data)
    assert Journal(path, "run", "0 0 0", N).count == lost


def test_a_record_of_another_minimisation_is_not_taken(tmp_path):
    ours, other = tmp_path / "ours.bin", tmp_path / "other.bin"
    size = filled(ours).size
    journal = Journal(other, "run", "0 1 0", N)
    for k in range(5):
        journal.append(evaluation(k))
    journal.close()
    data = ours.read_bytes()
    ours.write_bytes(data[:-size] + other.read_bytes()[-size:])
    assert Journal(ours, "run", "0 0 0", N).count == 4


def test_the_best_point_survives_a_torn_slot(tmp_path):
    path, rng = tmp_path / "best.bin", np.random.default_rng(1)
    points = rng.normal(size=(3, N))
    best = BestPoint(path, "run", "0 0 0", N)
    for k, x in enumerate(points):
        best.update(x, -float(k), k, k + 1)
    best.update(rng.normal(size=N), 5.0, 9, 9)
    best.close()
    again = BestPoint(path, "run", "0 0 0", N)
    np.testing.assert_array_equal(again.point.x, points[2])
    assert (again.point.loss, again.point.iteration, again.point.evaluations) == (-2.0, 2, 3)
    data, slot = bytearray(path.read_bytes()), path.stat().st_size // 2
    data[slot + 40] ^= 1  # the third is in the second slot
    path.write_bytes(data)
    np.testing.assert_array_equal(BestPoint(path, "run", "0 0 0", N).point.x, points[1])


def test_syncing_goes_on_beside_and_its_failure_is_raised_later(tmp_path, monkeypatch):
    release, called = threading.Event(), threading.Event()

    def failing(descriptor: int) -> None:
        called.set()
        release.wait(30)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "_sync_data", failing)
    monkeypatch.setattr(files, "SYNC_INTERVAL", 0.0)
    journal = Journal(tmp_path / "j.bin", "run", "0 0 0", N)
    for k in range(3):
        journal.append(evaluation(k))  # none of them waits for the disk
    assert called.wait(30)
    release.set()
    with pytest.raises(OSError, match=r"Input/output"):
        journal.sync()
    assert journal.count == 3
    journal.close()


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "j.bin"
    journal = filled(path)
    before, real = path.read_bytes(), os.pwrite

    def half(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) < journal.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, bytes(data)[: len(data) // 2], offset)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="No space"):
        journal.append(evaluation(5))
    assert path.read_bytes() == before and journal.count == 5
