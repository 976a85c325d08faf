"""Ten thousand structures through the benchmark that a million are recorded with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "prepare_data.py"


@pytest.mark.slow
def test_ten_thousand_structures_on_two_ranks(tmp_path):
    command = [sys.executable, SCRIPT, "--size", "10000", "--output", tmp_path / "result.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["structures"] == 10_000 and result["bonds"] > 100_000
    assert result["prepare_peak_gib"] < 1 and result["load_peak_gib_per_rank"] < 1
