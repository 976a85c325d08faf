"""`pacehpc scan` as users run it: killed with its fit, stopped, gone on with by two workers at once."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from held_fits import HELD, WAIT, hold, iterations, let_go, wait_for

from pacehpc.report.summary import read_summary

pytest.importorskip("optuna")

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"
INPUT = """
data: {filename: data.pckl.gzip, reference_energy: {Al: 3.28, Ni: 4.44}}
potential:
  elements: [Al, Ni]
  embeddings: {ALL: {npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}
  bonds: {ALL: {radbase: SBessel, radparameters: [5.25], rcut: 4.5, dcut: 0.01}}
  functions:
    UNARY: {nradmax_by_orders: [4, 2, 1], lmax_by_orders: [0, 1, 1]}
    BINARY: {nradmax_by_orders: [4, 1], lmax_by_orders: [0, 1]}
fit: {loss: {kappa: 0.3, L2_coeffs: 1e-8}, maxiter: 16, callbacks: [slow.wait]}
backend: {evaluator: cpu, display_step: 1}
scan: {rcut: [3.8, 4.6], kappa: [0.05, 0.5], trials: 3}
"""
IN_A_SCAN = HELD.replace('"hold"', '"../../hold"')  # trials' folders are made by the scan


@pytest.fixture
def folder(tmp_path) -> Path:
    frame = pd.read_pickle(DATA, compression="gzip").iloc[:40]
    frame.to_pickle(tmp_path / "data.pckl.gzip", compression="gzip")
    (tmp_path / "input.yaml").write_text(INPUT)
    (tmp_path / "slow.py").write_text(IN_A_SCAN)
    return tmp_path


def start(folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "pacehpc", "scan", *options]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_a_scan_that_is_killed_and_stopped_goes_on(folder):
    first = folder / "scan" / "trial_0000"
    hold(folder, 4)
    job = start(folder, "-n", "2")
    wait_for(lambda: iterations(first) >= 4)
    job.kill()  # as a node that fails: the worker, and all of its fit
    kill_fit(first)
    job.communicate()
    before = (first / "metrics.txt").read_text().splitlines()

    hold(folder, 6)
    job = start(folder, "-n", "2")
    wait_for(lambda: iterations(first) >= 6)
    kill_fit(first)  # the worker resumes it
    hold(folder, 8)
    wait_for(lambda: iterations(first) >= 8)
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=WAIT)
    let_go(folder)
    assert said.count("Trial 0: its fit was killed") == 1
    assert job.returncode == 75 and "start the same command again" in said, said
    assert re.search(r"trial_0000 +running", said)

    jobs = [start(folder), start(folder)]
    said = [one.communicate(timeout=WAIT)[0] for one in jobs]
    assert [one.returncode for one in jobs] == [0, 0], said
    assert "Replayed" in (first / "log.txt").read_text()  # resumed, not begun again
    rows = (first / "metrics.txt").read_text().splitlines()
    assert rows[: len(before) - 1] == before[:-1]

    shown = start(folder, "--show").communicate()[0]
    assert len(re.findall(r"^trial_000[012] +complete", shown, re.MULTILINE)) == 3
    assert sum(text.count(": error ") for text in said) == 3  # each trial ended in one worker
    for k in range(3):
        errors = read_summary(folder / "scan" / f"trial_000{k}").errors["test"]
        both = 1000 * (errors["rmse_epa"] * errors["rmse_f_comp"]) ** 0.5
        row = re.search(rf"^trial_000{k} .*$", shown, re.MULTILINE)[0].split()
        assert float(row[7]) == pytest.approx(both, abs=0.06)
    assert (folder / "scan" / "scan.html").stat().st_size > 1e6
    held = [pd.read_pickle(path, compression="gzip").index for path in folder.glob("scan/*/test_data_info.pckl.gzip")]
    assert len(held) == 3 and all(list(one) == list(held[0]) for one in held) and len(held[0]) == 4


def kill_fit(folder: Path) -> None:
    """Kill the fit in a folder, and what started it on its ranks."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/cwd") == str(folder):
                os.kill(int(pid), signal.SIGKILL)


@pytest.mark.slow
def test_a_scan_whose_fits_fail_says_why(folder):
    path = folder / "input.yaml"
    path.write_text(path.read_text().replace("slow.wait", "slow.absent"))
    job = start(folder)
    said, _ = job.communicate(timeout=WAIT)
    assert job.returncode == 1 and "the first 3 trials failed, the last one with: fit.callbacks" in said, said
    assert "slow has no function absent. Mend" in said
