"""One environment in which pacehpc answers to the name of pacemaker, and one of its callers."""

from __future__ import annotations

from pathlib import Path

import pytest
from caller_environments import PACKAGES, bare, install, with_package


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> Path:
    """The folder `bin` of an environment with pacehpc and the package."""
    return with_package(tmp_path_factory.mktemp("shim") / "environment")


@pytest.fixture(scope="session")
def callers(tmp_path_factory) -> Path:
    """The Python of an environment with the programs that call pacemaker."""
    python = bare(tmp_path_factory.mktemp("callers") / "environment")
    install(python, *PACKAGES)
    return python
