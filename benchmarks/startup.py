"""What a short fit takes from the command to its report: python benchmarks/startup.py [--runs 5] [--page]

`examples/al_ni`, as `make demo` fits it, with an empty cache of kernels (cold) and with the cache that this has filled
(warm): wall time on two ranks, which means something where two cores are idle, and processor time of all processes on
one rank, where no rank waits for another. All are the least of the runs; the loss must be the same each time. Leaves
benchmarks/results/startup.json. --page: put the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evaluation import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "startup.json", ROOT / "docs" / "performance.md"
QUIET = 0.3  # load of a machine that does nothing else


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    found = {"cold": [], "warm": []}
    for _ in range(arguments.runs):
        for ranks in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                for state in found:  # the cold fit fills the cache of the warm one
                    found[state].append(fit(Path(folder), state, ranks))
    losses = {one["loss"] for runs in found.values() for one in runs}
    if len(losses) != 1:
        raise SystemExit(f"parity check failed, losses {losses}")
    least = {
        state: {
            "wall_s": min(one["wall_s"] for one in runs if one["ranks"] == 2),
            "processor_s": min(one["processor_s"] for one in runs if one["ranks"] == 1),
        }
        for state, runs in found.items()
    }
    print(json.dumps(least, indent=1))
    result = {"machine": machine() | {"load": load}, "runs": arguments.runs, "least": least, "all": found}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.page:
        begin, end = "<!-- start-up -->", "<!-- end of start-up -->"
        before, rest = PAGE.read_text().split(begin)
        PAGE.write_text(f"{before}{begin}\n{table(result)}\n{end}{rest.split(end)[1]}")


def fit(folder: Path, state: str, ranks: int) -> dict:
    """One fit of the example, from the command to its end."""
    work = folder / state
    shutil.copytree(ROOT / "examples" / "al_ni", work)
    command = [sys.executable, "-m", "pacehpc", "input.yaml"]
    if ranks > 1:
        command = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks), *command]
    environment = os.environ | {"PACEHPC_CACHE": str(folder / "kernels"), "OMP_NUM_THREADS": "1"}
    used, start = processor_seconds(), time.perf_counter()
    ended = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    wall, used = time.perf_counter() - start, processor_seconds() - used
    if ended.returncode or not (work / "report" / "index.html").exists():
        raise SystemExit(ended.stdout[-3000:] + ended.stderr[-3000:])
    loss = re.findall(r"Final loss (\S+)\. ", ended.stdout)[-1]
    return {"ranks": ranks, "wall_s": wall, "processor_s": used, "loss": loss}


def processor_seconds() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(result: dict) -> str:
    """Wall times only where the machine had nothing else to do."""
    busy, runs, least = result["machine"]["load"] > QUIET, result["runs"], result["least"]
    lines = [
        f"Least of {runs} runs" + (", while other programs kept the machine busy:" if busy else ":"),
        "",
        "| kernels | processor time on one rank (s) |" + ("" if busy else " wall time on two ranks (s) |"),
        "| --- | --- |" + ("" if busy else " --- |"),
    ]
    for state, text in (("cold", "compiled in the fit"), ("warm", "in the cache")):
        row = least[state]
        lines.append(f"| {text} | {row['processor_s']:.1f} |" + ("" if busy else f" {row['wall_s']:.1f} |"))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
