"""`python -m pacehpc`, and the command `pacehpc`."""

from __future__ import annotations

import os
import sys

from pacehpc.walltime import Stop

# before the imports, which take a second: a signal in that time must stop the run cleanly, not kill it
stop = Stop()
stop.install()
# The OpenBLAS copies of NumPy and SciPy each start a thread per core when imported: the ranks of a node would take the
# cores from each other. machine.set_blas_threads sets the number of threads later.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> int:
    """The exit code of the command."""
    from pacehpc.cli import main as command

    return command(stop=stop)


if __name__ == "__main__":
    sys.exit(main())
