"""`python -m pacehpc`, and the command `pacehpc`."""

from __future__ import annotations

import os
import sys

from pacehpc.walltime import Stop

# before the imports, which take a second: a signal in that time must stop the run cleanly, not kill it
stop = Stop()
stop.install()
# OpenBLAS starts a thread for each core when NumPy is imported, and again for SciPy's copy: on nodes full of ranks they
# would take the cores from each other. How many calculate is set later (machine.set_blas_threads).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> int:
    """The exit code of the command."""
    from pacehpc.cli import main as command

    return command(stop=stop)


if __name__ == "__main__":
    sys.exit(main())
