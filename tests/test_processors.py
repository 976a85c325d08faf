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


def test_blas_threads_are_what_is_asked_for_whatever_the_environment_says(monkeypatch):
    import numpy  # noqa: F401  its BLAS is what is limited
    from threadpoolctl import threadpool_info, threadpool_limits

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with threadpool_limits():  # which puts back what limit_blas changes
        for asked, threads in ((None, 1), (2, 2)):
            assert parallel.limit_blas(None, asked) == threads
            assert {b["num_threads"] for b in threadpool_info() if b["user_api"] == "blas"} == {threads}
