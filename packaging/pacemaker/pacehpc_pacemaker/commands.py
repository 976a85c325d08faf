"""Commands under pacemaker's names. They refuse to stand in for a pacemaker that is installed as well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from pacehpc.__main__ import main

ORIGINALS = ("python-ace", "pyace")
"""Distributions that bring the same commands."""


def pacemaker() -> int:
    """Run `pacehpc` with the arguments of this command."""
    return _unless_installed(main)


def _unless_installed(command: Callable[[], int]) -> int:
    for name in ORIGINALS:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        print(
            f"ERROR: {name} {found} is installed in this environment, and pacehpc-pacemaker has replaced its commands. "
            f"Remove one of them: `pip uninstall {name}`, or `pip uninstall pacehpc-pacemaker` and "
            f"`pip install --force-reinstall --no-deps {name}`.",
            file=sys.stderr,
        )
        return 1
    return command()
