"""Trials that several workers share: no two take the same, and none is lost with its worker."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pacehpc.checkpoint.lock import Lock
from pacehpc.errors import PacehpcError
from pacehpc.scan.inputs import trial_folder

pytest.importorskip("optuna")

from pacehpc.scan.study import Study

SPACE = {"rcut": [4.0, 6.0], "kappa": [0.01, 0.5], "radbase": ["SBessel", "ChebPow"]}
SPACE["number_of_functions_per_element"] = [5, 500]
PROBLEM = {"input": {"fit": {"maxiter": 8}}, "scan": {}}
WORKER = """
import os, signal, sys
from pathlib import Path
from pacehpc.scan.study import Study
trial = Study(Path(sys.argv[1]), {"input": {"fit": {"maxiter": 8}}, "scan": {}}).next(eval(sys.argv[2]), 5, 0)
print(trial.number, trial.values["rcut"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_values_are_in_their_ranges_and_trials_end_at_their_number(tmp_path):
    study, found = Study(tmp_path, PROBLEM), []
    while (trial := study.next(SPACE, 8, 42)) is not None:
        found.append(trial)
        study.tell(trial, None if trial.number == 3 else (1.0 / trial.values["rcut"], trial.values["rcut"]))
    assert [one.number for one in found] == list(range(8))
    for one in found:
        assert 4 <= one.values["rcut"] <= 6 and 0.01 <= one.values["kappa"] <= 0.5
        assert 5 <= one.values["number_of_functions_per_element"] <= 500 and one.values["radbase"] in SPACE["radbase"]
    assert len({one.values["rcut"] for one in found}) == 8
    states = [one.state for one in Study(tmp_path).trials()]
    assert states.count("complete") == 7 and states[3] == "failed"
    assert Study(tmp_path).trials()[0].results == pytest.approx((1 / found[0].values["rcut"], found[0].values["rcut"]))


def test_workers_at_once_take_different_trials(tmp_path):
    one, other = Study(tmp_path, PROBLEM), Study(tmp_path, PROBLEM)
    first, second = one.next(SPACE, 3, 0), other.next(SPACE, 3, 0)
    assert (first.number, second.number) == (0, 1) and first.values != second.values
    one.release(first)  # as a worker that was asked to stop does
    again = other.next(SPACE, 3, 0)
    assert again == first
    third = one.next(SPACE, 3, 0)
    assert third.number == 2 and one.next(SPACE, 3, 0) is None
    for study, trial in ((other, second), (other, again), (one, third)):
        study.tell(trial, (1.0, 1.0))
    assert [trial.state for trial in one.trials()] == ["complete"] * 3


def test_a_trial_whose_worker_was_killed_is_taken_over_once_its_fit_has_ended(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WORKER, tmp_path, repr(SPACE)], text=True, capture_output=True, check=False
    )
    number, rcut = done.stdout.split()
    assert done.returncode == -9 and number == "0"
    study = Study(tmp_path, PROBLEM)
    folder = trial_folder(tmp_path, 0)
    folder.mkdir()
    fit = Lock(folder)
    fit.acquire()  # the fit outlives its worker
    other = study.next(SPACE, 5, 0)
    assert other.number == 1
    fit.release()
    taken = study.next(SPACE, 5, 0)
    assert taken.number == 0 and taken.values["rcut"] == float(rcut)


def test_another_input_is_refused_and_named(tmp_path):
    Study(tmp_path, PROBLEM)
    with pytest.raises(PacehpcError, match=r"different: fit\.maxiter"):
        Study(tmp_path, {"input": {"fit": {"maxiter": 9}}, "scan": {}})


def test_nothing_to_show(tmp_path):
    with pytest.raises(PacehpcError, match="holds no scan"):
        Study(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
