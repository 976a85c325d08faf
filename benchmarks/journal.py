"""What the journal costs per evaluation: python benchmarks/journal.py [folder on the file system to be measured]

Leaves benchmarks/results/journal.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from evaluation import machine

from pacehpc.checkpoint.journal import BestPoint, Evaluation, Journal, hash_of

RESULTS = Path(__file__).parent / "results" / "journal.json"
PARAMETERS = 10_000
EVALUATIONS = 300
PAUSE = 0.01  # s between two appends, in place of the evaluation

if __name__ == "__main__":
    rng = np.random.default_rng(1)
    metrics = {f"m{k}": float(k) for k in range(35)}
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as folder:
        journal = Journal(Path(folder) / "journal.bin", "run", "0 0 0", PARAMETERS)
        best = BestPoint(Path(folder) / "best.bin", "run", "0 0 0", PARAMETERS)
        spent = []
        for k in range(EVALUATIONS):
            x, gradient = rng.normal(size=(2, PARAMETERS))
            time.sleep(PAUSE)
            start = time.perf_counter()
            journal.append(Evaluation(0, k, hash_of(x), -k, metrics, gradient))
            best.update(x, -k, k, k)
            spent.append(time.perf_counter() - start)
        start = time.perf_counter()
        again = Journal(Path(folder) / "journal.bin", "run", "0 0 0", PARAMETERS)
        opened = time.perf_counter() - start
    mean, median = 1e3 * np.mean(spent), 1e3 * np.median(spent)
    print(f"{PARAMETERS} parameters, {again.size / 1024:.0f} KiB a record: mean {mean:.3f} ms, median {median:.3f} ms")
    found = {"parameters": PARAMETERS, "mean_ms": mean, "median_ms": median, "read_s": opened, "machine": machine()}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"below 1 % of evaluations above {100 * mean:.0f} ms; {again.count} records read in {opened:.3f} s")
