"""Everything that this machine can measure, one script after the other, and the pages of docs/ written from it.

    python benchmarks [--quick] [--million]

Every script compares numbers before it times them, and leaves JSON in benchmarks/results. Scripts whose needs are not
met (comparators that cannot be installed) say so and the others go on; the exit code is then 1. --quick: moments for
each measurement, to try the scripts, on a copy of benchmarks/ and docs/ that is thrown away. --million: also a fit to a
million atoms and the preparation of a million structures. Fits that run for hours are left to validation.py alone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
LARGE = str(SHARED / "bench" / "ethanol_4836.yaml")
SCRIPTS = [
    ["evaluation.py", "--json", "results/evaluation.json"],
    ["ceilings.py", "--page"],
    ["accounting.py", "--page"],
    ["updates.py", "--json", "results/updates.json", "--input", LARGE, "--page"],
    ["journal.py"],
    ["startup.py", "--page"],
    ["scaling.py", "--page"],
    ["runs.py", "--page"],
    ["gpu_estimate.py", "--page"],
    ["calculator.py", "--page"],
    ["lammps.py", "--ranks", "--page"],
    ["compare.py", "--large", "--rounds", "1", "--iterations", "10"],
]
MILLION = [["million.py"], ["prepare_data.py", "--size", "1000000", "--output", "results/prepare_data_1e6.json"]]
QUICK = {
    "evaluation.py": ["--seconds", "0.3"],
    "accounting.py": ["--seconds", "0.3"],
    "updates.py": ["--sizes", "500", "--threads", "1"],
    "startup.py": ["--runs", "1"],
    "scaling.py": ["--seconds", "0.3", "--rounds", "1", "--atoms", "1000"],
    "runs.py": ["--inputs", "ethanol_4836"],
    "calculator.py": ["--seconds", "0.3"],
    "lammps.py": ["cu_82", "--steps", "4", "--rounds", "1"],
    "compare.py": [str(SHARED / "bench" / "cu_82.yaml"), "--seconds", "0.3", "--rounds", "1", "--iterations", "1"],
    "million.py": ["--atoms", "10000"],
    "prepare_data.py": ["--size", "1000"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--million", action="store_true")
    arguments = parser.parse_args()
    scripts = SCRIPTS + (MILLION if arguments.million else [])
    if not arguments.quick:
        return run(scripts, ROOT)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(ROOT / "benchmarks", copy / "benchmarks")
        shutil.copytree(ROOT / "docs", copy / "docs")
        (Path(scratch) / "shared").symlink_to(SHARED)
        return run([[*script, *QUICK.get(script[0], [])] for script in scripts], copy)


def run(scripts: list[list[str]], root: Path) -> int:
    """1 if a script failed, after all have run in root/benchmarks."""
    folder, failed = root / "benchmarks", []
    (folder / "results").mkdir(exist_ok=True)
    begin = time.perf_counter()
    for script, *options in scripts:
        start = time.perf_counter()
        print(f"\n==== {script} {' '.join(options)}", flush=True)
        if subprocess.run([sys.executable, script, *options], cwd=folder, check=False).returncode:
            failed.append(script)
        print(f"==== {script}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\n{(time.perf_counter() - begin) / 60:.0f} minutes" + f"; failed: {', '.join(failed)}" * bool(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
