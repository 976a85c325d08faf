"""Everything that this machine can measure, one script after the other, and the pages of docs/ written from it.

    python benchmarks [--quick] [--million]

Scripts whose needs are not met (comparators that cannot be installed) say so and the others go on; the exit code is
then 1. --quick: a second for each measurement, to try the scripts. --million: also a fit to a million atoms.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--million", action="store_true")
    arguments = parser.parse_args()
    seconds = ["--seconds", "0.5"] if arguments.quick else []
    scripts = [
        ["evaluation.py", "--json", str(RESULTS / "evaluation.json"), *seconds],
        ["ceilings.py", "--page"],
        ["accounting.py", "--page", *seconds],
        ["optimizer.py", "--json", str(RESULTS / "optimizer.json"), "--page"],
        ["scaling.py", "--page", *seconds, *(["--rounds", "1", "--atoms", "10000"] if arguments.quick else [])],
        ["compare.py", *seconds],
    ]
    if arguments.million:
        scripts.append(["million.py"])
    RESULTS.mkdir(exist_ok=True)
    failed = []
    for script, *options in scripts:
        start = time.perf_counter()
        print(f"\n==== {script} {' '.join(options)}", flush=True)
        if subprocess.run([sys.executable, str(HERE / script), *options], cwd=HERE, check=False).returncode:
            failed.append(script)
        print(f"==== {script}: {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
