"""What Slurm says of a job, whatever the user has set for its commands."""

from __future__ import annotations

import os
import subprocess


def squeue(job: str, what: str) -> subprocess.CompletedProcess[str] | None:
    """The answer to `squeue -h -j job -o what`; None where there is none. Times are ISO, in local time.

    SQUEUE_STATES, SQUEUE_USERS and the like would hide the job, SLURM_TIME_FORMAT would write times in other ways.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    environment["SLURM_TIME_FORMAT"] = "standard"
    command = ["squeue", "-h", "-j", job, "-o", what]
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
