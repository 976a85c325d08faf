"""Launches of the kernels: how many, in which blocks, as one graph, with times."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from cuda_cases import LOSS, same

from pacehpc.backends.cuda import CudaEvaluator
from pacehpc.backends.interface import EvaluatorOptions

pytestmark = pytest.mark.usefixtures("fake_cupy")


def test_no_synchronisation_between_batches(case):
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1))
    assert len(evaluator.batches) > 2
    before = evaluator._stream.synchronizations
    evaluator.evaluate(potential.parameters)
    assert evaluator._stream.synchronizations == before + 1


def test_small_data_in_small_blocks(case):
    """Where there are fewer warps than multiprocessors, a block is a warp; the sums have the same bits."""
    potential, s = case("alni_mixed")
    x = potential.parameters
    usual, spread = (CudaEvaluator(potential, s, LOSS) for _ in range(2))
    spread._launch.multiprocessors = 10**6
    assert [e._launch._block_for(32 * len(s.species)) for e in (usual, spread)] == [128, 32]
    same(spread.evaluate(x), usual.evaluate(x))


def test_ranges_for_the_profiler_and_times_of_kernels(case, fake_cupy):
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(profile=True))
    seconds = evaluator.stage_seconds(potential.parameters)
    assert set(seconds) >= {"make_bond_forces", "make_moment_tangents", "add_rows"}
    assert min(seconds.values()) >= 0
    assert "make_bond_forces" in fake_cupy.cuda.nvtx.ranges


def test_launches_of_one_evaluation(case, fake_cupy):
    """What a small data set costs is launches: those of one batch, and sums of rows."""
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(store_moments=True))
    assert evaluator._n_batches == 1
    for gradient, most in ((False, 10), (True, 20)):
        before = len(fake_cupy.launches)
        evaluator.evaluate(potential.parameters, gradient)
        assert 0 < len(fake_cupy.launches) - before <= most


def test_from_the_second_evaluation_on_all_kernels_are_one_graph(case, fake_cupy, monkeypatch, caplog):
    """One launch, with the bits of single launches; where nothing can be recorded, single launches as before."""
    potential, s = case("al_cheblinear")
    x, graphs = potential.parameters, fake_cupy.cuda.Graph
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1))
    first, launched = None, []
    for parameters, gradient in ((x, True), (x + 0.01, True), (x, True), (x, False), (x, False), (x, False)):
        before = graphs.launches
        sums = evaluator.evaluate(parameters, gradient)
        launched.append(graphs.launches - before)
        if parameters is x and gradient:
            first = first or sums
            same(sums, first)
    assert launched == [0, 1, 1, 0, 1, 1]
    np.testing.assert_array_equal(sums.encoded_terms, first.encoded_terms)
    evaluator.stage_seconds(x)

    monkeypatch.setenv("FAKE_CUPY_NO_CAPTURE", "1")
    single, before = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1)), graphs.launches
    with caplog.at_level(logging.INFO, "pacehpc"):
        for _ in range(3):
            same(single.evaluate(x), first)
    assert graphs.launches == before and caplog.text.count("cannot be recorded") == 1
