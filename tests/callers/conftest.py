"""One environment in which pacehpc answers to the name of pacemaker."""

from __future__ import annotations

from pathlib import Path

import pytest
from caller_environments import with_package


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> Path:
    """The folder `bin` of an environment with pacehpc and the package."""
    return with_package(tmp_path_factory.mktemp("shim") / "environment")
