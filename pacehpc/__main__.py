"""`python -m pacehpc`, and the command `pacehpc`."""

from __future__ import annotations

import sys

from pacehpc.walltime import Stop

# before the imports that take a second, in which a signal would else kill the run instead of stopping it in order
stop = Stop()
stop.install()


def main() -> int:
    """The exit code of the command."""
    from pacehpc.cli import main as command

    return command(stop=stop)


if __name__ == "__main__":
    sys.exit(main())
