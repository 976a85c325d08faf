"""`python -m pacehpc`, and the command `pacehpc`."""

from __future__ import annotations

import sys

from pacehpc.walltime import Stop

# before the imports, which take a second: a signal in that time must stop the run cleanly, not kill it
stop = Stop()
stop.install()


def main() -> int:
    """The exit code of the command."""
    from pacehpc.cli import main as command

    return command(stop=stop)


if __name__ == "__main__":
    sys.exit(main())
