"""The parser of pyiron-potentialfit's PacemakerJob on the log and the tables of a ladder fit with a test set."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from caller_environments import ROOT, call

from pacehpc.report.tables import read_table

pytestmark = pytest.mark.slow

INPUT = f"""
cutoff: 4.5
data: {{filename: {ROOT}/examples/al_ni/al_ni.pckl.gzip, test_size: 0.2, reference_energy: {{Al: 3.28, Ni: 4.44}}}}
potential:
  elements: [Al, Ni]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}}}
  bonds: {{ALL: {{radbase: SBessel, radparameters: [5.25], rcut: 4.5, dcut: 0.01}}}}
  functions: {{ALL: {{nradmax_by_orders: [4, 2], lmax_by_orders: [0, 1]}}}}
fit: {{loss: {{kappa: 0.3}}, maxiter: 7, ladder_step: 9, ladder_type: power_order}}
backend: {{evaluator: tensorpot, batch_size: 100, display_step: 3}}
"""
PARSE = """
import json, sys
from pyiron_potentialfit.pacemaker.job import PacemakerJob

class Finished(PacemakerJob):
    working_directory = sys.argv[1]
    project_hdf5 = {"output/log_test/loss": [1.0]}
    __del__ = object.__init__

job = object.__new__(Finished)
tables = {name: job._analyse_log(f"{name}.txt") for name in sys.argv[2:]}
json.dump([tables, job._parse_time()], open("parsed.json", "w"))
"""
TABLES = ("metrics", "test_metrics", "ladder_metrics", "test_ladder_metrics")


def test_its_parser_finds_every_iteration(environment, callers, tmp_path):
    (tmp_path / "input.yaml").write_text(INPUT)
    call(environment / "pacemaker", "--no-predict", "input.yaml", cwd=tmp_path)
    parse(callers, tmp_path)


def parse(python: Path, folder: Path) -> None:
    """Run its parser and compare with what the fit has done."""
    done = subprocess.run([python, "-c", PARSE, folder, *TABLES], cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tables, (train, test, ladder) = json.loads((folder / "parsed.json").read_text())
    for name in TABLES:
        own = read_table(folder / f"{name}.txt")
        assert tables[name]["loss"] == pytest.approx(own["loss"].tolist()) and list(tables[name]) == list(own)
    n_steps = len(tables["ladder_metrics"]["loss"])
    assert n_steps >= 2 and len(ladder) == n_steps
    assert len(train) == n_steps * 8  # the starting point and seven iterations
    assert len(test) == n_steps * 4  # iterations 0, 3, 6 and the last
    assert all(isinstance(seconds, int) and seconds >= 0 for seconds in (*train, *test, *ladder))
