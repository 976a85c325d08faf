"""Memory of the cuda backend: estimates, batches, rows of sums, and what happens where it is too small."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from cuda_cases import LOSS, agree, with_random_targets

from pacehpc import Potential
from pacehpc.backends.cuda import CudaEvaluator
from pacehpc.backends.device_memory import batches, memory_needs, row_items
from pacehpc.backends.interface import EvaluatorOptions
from pacehpc.backends.layout import make_layout
from pacehpc.errors import PacehpcError

pytestmark = pytest.mark.usefixtures("fake_cupy")


def test_rows_of_a_shard_are_shared_out_among_warps(case):
    """Every tile belongs to one row, and a row to one element's tiles of one shard."""
    _, s = case("alni_mixed")
    s = s.select(slice(0, s.n_structures))
    s.shards = np.array([0, 2, s.n_structures])
    layout = make_layout(s, 2, 4, s.n_atoms, np.ones((2, 2), bool))
    for most in (1, 2, 100):
        items, starts = row_items(layout, most)
        tiles = np.concatenate([np.arange(first, end, step) for _, _, first, end, step in items])
        elements = np.concatenate([np.full(len(range(*item[2:])), item[0]) for item in items])
        rows = np.concatenate([np.full(len(range(*item[2:])), item[1]) for item in items])
        assert sorted(tiles) == list(range(layout.n_tiles))
        np.testing.assert_array_equal(elements, layout.tile_element[tiles])
        np.testing.assert_array_equal(np.searchsorted(starts, rows, side="right"), 1 + (tiles >= layout.batches[1, 0]))
        assert np.diff(starts).max() <= most


def test_batches_of_whole_structures(case):
    _, s = case("al_cheblinear")
    for limit in (1, 40_000, 10**9):
        cuts = batches(s, np.array([0]), 100, 8, limit)
        assert [c.start for c in cuts] == [0, *(c.stop for c in cuts[:-1])] and cuts[-1].stop == s.n_structures
        for c in cuts:
            part = s.select(c)
            assert len(range(c.start, c.stop)) == 1 or 100 * part.n_atoms + 8 * part.n_bonds <= limit
    assert len(batches(s, np.array([0]), 100, 8, 10**9)) == 1


def test_out_of_memory_halves_the_batches(case, caplog):
    potential, s = case("al_chebexpcos")
    x = potential.parameters
    whole = CudaEvaluator(potential, s, LOSS)
    with caplog.at_level(logging.INFO, "pacehpc"):
        tight = CudaEvaluator(
            potential, s, LOSS, EvaluatorOptions(memory_limit=int(0.8 * whole.peak_bytes), batch_bytes=2**40)
        )
    assert "out of memory" in caplog.text and f" {len(tight.batches)} batches" in tight.report
    assert len(tight.batches) > 1 and tight.peak_bytes <= 0.8 * whole.peak_bytes
    agree(tight.evaluate(x), whole.evaluate(x))
    with pytest.raises(PacehpcError, match="not even one structure"):
        CudaEvaluator(potential, s, LOSS, EvaluatorOptions(memory_limit=100_000))


def test_out_of_memory_gives_up_the_moments_last(golden, brute_force, caplog):
    """Where the smallest batches do not fit beside stored moments, they are recomputed for each batch."""
    potential = Potential.load(golden / "potentials" / "al_cheblinear.yaml")
    frames = [bulk("Al", a=a, cubic=True).repeat((2, 2, 4)) for a in (3.9, 4.0, 4.1, 4.2)]  # 64 atoms, two tiles
    s, x = with_random_targets(brute_force(potential, frames)), potential.parameters
    least = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1, store_moments=False))
    most = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1, store_moments=True))
    limit = (least.peak_bytes + most.peak_bytes) // 2
    assert least.peak_bytes < limit < most.peak_bytes
    with caplog.at_level(logging.INFO, "pacehpc"):
        tight = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(store_moments=True, memory_limit=limit))
    assert (
        "; retrying with more, smaller batches" in caplog.text
        and "moments are made for each batch from now on" in caplog.text
    )
    assert not tight.moments_stored and tight.peak_bytes <= limit
    agree(tight.evaluate(x), most.evaluate(x))


@pytest.mark.parametrize("stored", [True, False])
def test_memory_is_what_was_estimated(golden, brute_force, stored):
    """The estimate that cuts batches, and that the pages print for a million atoms, is near and not below."""
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    frames = read(golden / "potentials" / "alni_mixed.extxyz", ":")
    many = with_random_targets(brute_force(potential, 12 * frames))
    evaluator = CudaEvaluator(potential, many, LOSS, EvaluatorOptions(store_moments=stored))
    assert len(evaluator.batches) == 1
    shards = np.diff(many.atom_offsets[np.append(evaluator._starts, many.n_structures)])
    needs = sum(memory_needs(evaluator.shape, shards, many.n_bonds, stored))
    assert 0.6 * needs < evaluator.peak_bytes <= needs, evaluator.peak_bytes / needs
