from __future__ import annotations

import pytest

from pacehpc import parallel
from pacehpc.processors import kernel_threads, threads_given

VALUES = {"4": 4, " 3 ": 3, "2,1": 2, "07": 7, "": None, "0": None, "-2": None, "all": None, "1.5": None, "²": None}


@pytest.mark.parametrize("text", VALUES)
def test_threads_of_the_environment(monkeypatch, text):
    """Whoever asks gets the same number."""
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads_given() == VALUES[text]
    assert kernel_threads() == (VALUES[text] or 1)
    assert parallel.share_kernel_threads(None) == (VALUES[text] or parallel.share_of_cores(None))


def test_unset(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_given() is None
    assert kernel_threads() == 1


def test_blas_threads_of_the_environment(monkeypatch):
    """OpenBLAS' own variable before OpenMP's; a list counts by its first number."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits():  # which puts back what share_cores changes
        monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
        monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
        assert parallel.share_cores(None) == 3
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
        assert parallel.share_cores(None) == 2
