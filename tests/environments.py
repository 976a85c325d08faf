"""Environments with other programs, made once for a machine and kept."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NoReturn

import pytest


def cannot_run(why: str) -> NoReturn:
    """Skip a test; fail it on machines that have to run every test (CI=true)."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def environment(*requirements: str) -> Path:
    """Folder `bin` of an environment with these packages, named after the first.

    Where it cannot be installed the test cannot run.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pacehpc-test-comparators"
    folder = cache / f"{requirements[0]}-python{sys.version_info.major}.{sys.version_info.minor}"
    cache.mkdir(parents=True, exist_ok=True)
    python, complete = folder / "bin" / "python", folder / "complete"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            venv.create(folder, clear=True, with_pip=True)
            variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
            options = ["--quiet", "--retries=10", "--pre", "--no-compile"]
            command = [python, "-m", "pip", "install", *options, *requirements]
            done = subprocess.run(command, env=variables, text=True, capture_output=True)
            if done.returncode:
                cannot_run(f"{requirements[0]} cannot be installed: {done.stderr[-500:]}")
            complete.touch()
    return folder / "bin"
