"""Fits that nothing disturbed, and fits that were killed."""

from __future__ import annotations

import pytest
from killed_runs import INPUT, Zygote


@pytest.fixture(scope="session")
def zygote():
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="session")
def uninterrupted(zygote, tmp_path_factory):
    """The folder of the fit that nothing disturbed, its file operations in trace.txt."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "input.yaml").write_text(INPUT)
    assert zygote(folder, trace=str(folder / "trace.txt"), sync_always=True) == 0
    return folder


@pytest.fixture
def unfinished(zygote, tmp_path):
    """A folder whose fit was killed in the second cycle of the first ladder step, in the middle of a record."""
    (tmp_path / "input.yaml").write_text(INPUT)
    fault = {"op": "pwrite", "name": "journal_0_1", "count": 5, "when": "mid"}
    assert zygote(tmp_path, fault=fault) == -9
    return tmp_path
