"""What a run by the command takes besides evaluations: its start, its memory, and the files of a large potential.

    python benchmarks/runs.py [--inputs ethanol_4836 hea_55360] [--json FILE] [--page]

Each input is fitted for two iterations: once to prepare the data and to compile the kernels, which is timed too, then
on one and two ranks, and on one rank under a limit that leaves little room for bonds, so that many of them have to be
read anew in each evaluation. Losses must be the same each time. Reported are the time from the command to the first
line of an iteration, the largest memory of each rank beside what the log predicted, and seconds to read and write the
potential. --page: put the tables into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from evaluation import SHARED, machine, randomise
from scaling import replace_between_marks

from pacehpc import Potential
from pacehpc.potential import build_potential, export_yace
from pacehpc.yamlio import dumps_yaml, load_yaml

RESULTS = Path(__file__).parent / "results" / "runs.json"
INPUTS = ("ethanol_4836", "hea_55360")
ITERATIONS = 2
# The program itself, which leaves the largest memory that it took.
PROGRAM = """
import re, sys
from pathlib import Path
from pacehpc import cli, parallel
code = cli.main(["input.yaml", "--fresh", "--no-predict"])
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
Path(f"peak_{parallel.launcher_rank()}").write_text(peak)
sys.exit(code)
"""
ROOM = 0.17  # GiB that the limit leaves above what the program takes before it makes tables and reads bonds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", nargs="*", default=INPUTS)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    results = {"machine": machine() | {"load": os.getloadavg()[0]}, "cases": {}}
    for name in arguments.inputs:
        with tempfile.TemporaryDirectory() as folder:
            results["cases"][name] = measure(name, Path(folder))
        print(json.dumps({name: results["cases"][name]}, indent=1), flush=True)
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.page:
        replace_between_marks("starts", starts_table(results["cases"]))
        replace_between_marks("memory", memory_table(results["cases"]))


def measure(name: str, folder: Path) -> dict:
    """All runs of one input; in an empty folder with an empty cache of kernels."""
    settings = load_yaml(SHARED / "bench" / f"{name}.yaml")
    settings["data"]["datapath"] = str(SHARED / "data")
    settings["fit"]["maxiter"] = ITERATIONS
    environment = os.environ | {"PACEHPC_CACHE": str(folder / "kernels")}

    def fit(ranks: int, limit: float | None = None) -> dict:
        settings["backend"] = {"evaluator": "cpu", "display_step": 100}
        if limit is not None:
            settings["backend"]["memory_limit"] = f"{limit:.3f}GiB"
        (folder / "input.yaml").write_text(dumps_yaml(settings))
        return run(folder, ranks, environment)

    first, one, two = fit(1), fit(1), fit(2)
    small = fit(1, one["before_GiB"] + ROOM)
    losses = {run["loss"] for run in (first, one, two, small)}
    if len(losses) != 1:
        raise SystemExit(f"{name}: parity check failed, losses {losses}")
    return {
        "first": first,
        "runs": {"one rank": one, "two ranks": two, "one rank, bonds in the file": small},
        "files": file_seconds(name, folder),
    }


def run(folder: Path, ranks: int, environment: dict[str, str]) -> dict:
    """One fit by the command."""
    command = [sys.executable, "-c", PROGRAM]
    if ranks > 1:
        command = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks), *command]
    for old in (*folder.glob("peak_*"), folder / "log.txt"):
        old.unlink(missing_ok=True)
    start, begun, lines = time.perf_counter(), None, []
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if begun is None and "Initial state:#0" in line:
                begun = time.perf_counter() - start
            lines.append(line)
    text = "".join(lines)
    if process.returncode:
        raise SystemExit(text[-3000:])
    predictions = re.findall(r"Memory of a rank: about ([\d.]+) GiB at most, ([\d.]+) GiB now", text)
    return {
        "first_iteration_s": begun,
        "whole_s": time.perf_counter() - start,
        "before_GiB": float(predictions[0][1]),
        "predicted_GiB": max(float(peak) for peak, _ in predictions),
        "peak_GiB": [int((folder / f"peak_{rank}").read_text()) / 2**20 for rank in range(ranks)],
        "streamed": "are read from" in text + (folder / "log.txt").read_text(),
        "optimizer": re.findall(r"optimizer: (.*)", text)[0],
        "optimizer_percent": float(re.findall(r"Time of the optimizer itself: ([\d.]+) %", text)[0]),
        "loss": re.findall(r"Cycle 0 ended .* Final loss (\S+)\. ", text)[0],
    }


def file_seconds(name: str, folder: Path) -> dict[str, float]:
    """Seconds to write and to read the potential of an input, which must come back as it was."""
    potential = build_potential(load_yaml(SHARED / "bench" / f"{name}.yaml")["potential"])
    randomise(potential)
    found, path = {"parameters": potential.n_parameters}, folder / "potential.yaml"
    start = time.perf_counter()
    potential.save(path)
    found["write_s"] = time.perf_counter() - start
    start = time.perf_counter()
    again = Potential.load(path)
    found["read_s"] = time.perf_counter() - start
    if not np.array_equal(again.parameters, potential.parameters):
        raise SystemExit(f"{name}: parity check failed, the potential is not what was written")
    start = time.perf_counter()
    export_yace(potential, folder / "potential.yace")
    found["write_yace_s"] = time.perf_counter() - start
    return found


def starts_table(cases: dict) -> str:
    lines = [
        "| input | parameters | data and kernels new | prepared before | two ranks | optimizer | potential written "
        "| read | .yace written |",
        "| --- |" + " --- |" * 8,
    ]
    for name, case in cases.items():
        one, two, files = case["runs"]["one rank"], case["runs"]["two ranks"], case["files"]
        cells = [name, str(files["parameters"])]
        cells += [f"{run['first_iteration_s']:.1f} s" for run in (case["first"], one, two)]
        cells.append(f"{one['optimizer']}, {one['optimizer_percent']:.0f} %")
        cells += [f"{files[what]:.1f} s" for what in ("write_s", "read_s", "write_yace_s")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory_table(cases: dict) -> str:
    lines = ["| input | run | predicted, GiB | largest of each rank, GiB | off by |", "| --- |" + " --- |" * 4]
    for name, case in cases.items():
        for kind, found in case["runs"].items():
            if "file" in kind and not found["streamed"]:
                continue  # so few bonds that they are never left in the file
            peaks = ", ".join(f"{peak:.2f}" for peak in found["peak_GiB"])
            off = 100 * (found["predicted_GiB"] / max(found["peak_GiB"]) - 1)
            lines.append(f"| {name} | {kind} | {found['predicted_GiB']:.2f} | {peaks} | {off:+.0f} % |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
