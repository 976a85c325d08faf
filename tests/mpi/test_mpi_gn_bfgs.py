"""Fits with GN-BFGS on any number of ranks, killed and resumed: the same bits."""

from __future__ import annotations

import os
import signal

import pytest
import test_mpi_restart as restart
from held_fits import AT_ONCE, WAIT, iterations, let_go
from launch import pacehpc
from on_ranks import counting_compiler

INPUT = restart.INPUT.replace(
    "  maxiter: 60\n", "  optimizer: GN-BFGS\n  options: {start: 8, renew: 10}\n  maxiter: 35\n"
)
FITS = {
    "normal matrix": INPUT,
    "rows alone, stress, every term of the loss": INPUT.replace(
        "{kappa: 0.3, L2_coeffs: 1e-8}",
        "{kappa: auto, stress: 1.0, L1_coeffs: 1e-8, L2_coeffs: 1e-8, w0_rad: 1e-6, w1_rad: 1e-6, w2_rad: 1e-6, "
        "w_orth: 1e-6}",
    ).replace("renew: 10", "renew: 10, rows: 0.3"),
    "a schedule": INPUT.replace(
        "  fit_cycles: 2\n  noise_relative_sigma: 1e-2\n",
        "  schedule:\n  - {loss: {kappa: 0.9}, maxiter: 10, optimizer: BFGS, options: {}}\n"
        "  - {weights: {'*_dimer': {energy: 0.1}}}\n  - {loss: {kappa: auto, stress: 0.1}, maxiter: 20}\n",
    ),
    "Huber's loss": INPUT.replace(
        "L2_coeffs: 1e-8",
        "L2_coeffs: 1e-8, energy: {type: huber, delta: 0.02}, forces: {type: huber, delta: 0.1}",
    ),
    "ladder, part of the parameters, early stop": INPUT.replace(
        "  fit_cycles: 2\n  noise_relative_sigma: 1e-2\n",
        "  ladder_step: 6\n  trainable_parameters: {AlNi: func, Al: radial, Ni: func}\n"
        "  min_relative_train_loss_per_iter: 1e-3\n  early_stopping_patience: 15\n",
    ),
}
NAMES = ("metrics", "test_metrics", "cycle_metrics", "ladder_metrics")


def prepared(folder, text):
    restart.prepare(folder)
    (folder / "input.yaml").write_text(text)
    return folder


def results(folder):
    lines = (folder / "output_potential.yaml").read_text().splitlines()
    tables = [(folder / f"{name}.txt").read_text() for name in NAMES if (folder / f"{name}.txt").exists()]
    return [*tables, *(line for line in lines if "starttime" not in line)]


@pytest.mark.parametrize("name", FITS)
def test_the_same_bits_on_any_ranks_and_after_kills(tmp_path, name):
    whole = prepared(tmp_path / "whole", FITS[name])
    (whole / "slow_down.py").write_text(AT_ONCE)
    done = pacehpc(1, "--no-predict", cwd=whole)
    assert done.returncode == 0, done.stderr
    log = (whole / "log.txt").read_text()
    assert "GN-BFGS: a renewal has about" in log and log.count("Inverse Hessian renewed") >= 2
    assert ("Woodbury" in log) == name.startswith("rows alone")
    killed = prepared(tmp_path / "killed", FITS[name])
    for ranks, rule in ((2, signal.SIGKILL), (3, signal.SIGTERM)):
        job = restart.start_and_hold(killed, iterations(killed) + 14, ranks)
        os.kill(restart.ranks_of(job)[-1], rule)
        let_go(killed)
        assert (job.wait(timeout=WAIT) == 75) == (rule == signal.SIGTERM)
    done = pacehpc(2, "--no-predict", "--restart", cwd=killed)
    assert done.returncode == 0, done.stderr
    log = (killed / "log.txt").read_text()
    assert "Replayed" in log and "no longer takes the path" not in log
    assert results(killed) == results(whole)


def test_ranks_of_a_node_compile_the_rows_once(tmp_path):
    fit = prepared(tmp_path / "fit", INPUT.replace("maxiter: 35", "maxiter: 10").replace("  fit_cycles: 2\n", ""))
    (fit / "slow_down.py").write_text(AT_ONCE)
    environment, log = counting_compiler(tmp_path)
    done = pacehpc(2, "--no-predict", cwd=fit, **environment)
    assert done.returncode == 0, done.stderr
    assert "Inverse Hessian renewed" in (fit / "log.txt").read_text()
    assert log.read_text().count("rows.cpp") == 1
