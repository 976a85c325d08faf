"""Whole fits of a small Al-Ni data set, one strategy each, on one rank."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pacehpc.backends.cpu import STAGES
from pacehpc.dataset import load_dataset
from pacehpc.errors import PacehpcError
from pacehpc.fit.plan import Tasks
from pacehpc.objective import Objective
from pacehpc.potential import Potential
from pacehpc.report.summary import read_summary
from pacehpc.report.tables import COLUMNS, read_table

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"


def test_outputs_of_a_plain_fit(plain):
    code, folder = plain
    assert code == 0
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    figures = ("EF-pairplots", "E-dE-dist", "F-dF-dist", "Fi-dFi-dist", "E-dE-nn", "ef-distributions", "S-pairplot")
    assert names == {
        "input.yaml",
        "log.txt",
        "prepared_data.h5",
        "target_potential.yaml",
        "interim_potential_0.yaml",
        "output_potential.yaml",
        "fitting_data_info.pckl.gzip",
        "train_pred.pckl.gzip",
        "metrics.txt",
        "cycle_metrics.txt",
        "ladder_metrics.txt",
        "test_metrics.txt",
        "test_cycle_metrics.txt",
        "test_ladder_metrics.txt",
        "fit_summary.json",
        "report/index.html",
        "report/learning_curve.png",
        "report/train_groups.csv",
        "report/train_groups.png",
        "report/train_worst.csv",
        *(f"report/train_{name}.png" for name in figures),
    }
    metrics = read_table(folder / "metrics.txt")
    assert tuple(metrics) == COLUMNS
    empty = read_table(folder / "test_metrics.txt")  # as in pacemaker: without a test set the columns alone
    assert tuple(empty) == COLUMNS and len(empty["loss"]) == 0
    assert metrics["iter_num"].tolist() == [0, 4, 8]
    assert np.all(np.diff(metrics["loss"]) < 0)
    text = (folder / "log.txt").read_text()
    found = re.findall(r"I - (.*)#(\d) +\(\d+ evals\):  Loss: \S+ \| RMSE Energy\(low\)", text)
    assert found == [("Initial state:", "0"), *(("Iteration   ", str(n)) for n in (1, 2, 3, 5, 6, 7))]
    assert "Final errors, computed with output_potential.yaml" in text and "Time: data" in text
    found = read_summary(folder)
    assert found.iterations == 8 and found.errors["train"]["loss"] == pytest.approx(metrics["loss"][-1], rel=1e-9)
    counted = int(re.findall(r"\((\d+) evals\): ", text)[-1])
    assert found.evaluations == counted and found.evaluation_seconds > 0 and found.files == {"train": [str(DATA)]}
    assert text.count("left of this minimisation") == 1 and "Time of the optimizer itself" in text


def test_final_errors_are_those_of_the_file(plain):
    _, folder = plain
    potential = Potential.load(folder / "output_potential.yaml")
    data = load_dataset(str(DATA), potential.elements, reference_energy={"Al": 3.28, "Ni": 4.44})
    objective = Objective(potential, data, {"kappa": 0.3, "L2_coeffs": 1e-8}, backend="cpu")
    objective(objective.x)
    found = {key: float(potential.metadata[f"final_{key}"]) for key in ("loss", "rmse_epa", "rmse_f_comp")}
    assert found == pytest.approx({key: objective.metrics[key] for key in found}, rel=1e-10)
    last = read_table(folder / "cycle_metrics.txt")
    assert last["loss"][-1] == pytest.approx(found["loss"], rel=1e-9)
    for key in ("starttime", "user", "pacehpc_version", "input_sha256", "data_sha256"):
        assert potential.metadata[key]
    predicted = pd.read_pickle(folder / "train_pred.pckl.gzip", compression="gzip")
    counts = predicted["NUMBER_OF_ATOMS"].to_numpy()
    de = (predicted["energy_pred"] - predicted["energy_corrected"]).to_numpy() / counts
    assert np.sqrt(np.mean(de**2)) == pytest.approx(found["rmse_epa"], rel=1e-9)
    df = np.concatenate([p - f for p, f in zip(predicted["forces_pred"], predicted["forces"], strict=True)])
    assert np.sqrt(np.mean(df**2)) == pytest.approx(found["rmse_f_comp"], rel=1e-9)
    for atoms, nn_min in zip(predicted["ase_atoms"], predicted["nn_min"], strict=True):
        if len(atoms) > 8 and atoms.pbc.all():
            d = atoms.get_all_distances(mic=True)
            assert nn_min == pytest.approx(d[d > 0].min(), abs=1e-9)


def test_ladder_reaches_the_target(fit):
    code, folder = fit(fit__ladder_step=8)
    assert code == 0
    steps = sorted(folder.glob("interim_potential_ladder_step_*.yaml"))
    table = read_table(folder / "ladder_metrics.txt")
    assert len(steps) == len(table["loss"]) > 1
    assert table["ladder_step"].tolist() == list(range(len(steps)))
    sizes = [Potential.load(folder / f"interim_potential_ladder_step_{k}.yaml").n_functions for k in range(len(steps))]
    target = Potential.load(folder / "target_potential.yaml")
    assert sizes == sorted(set(sizes)) and sizes[-1] == target.n_functions
    assert np.all(np.diff(table["loss"]) < 0)
    assert Potential.load(folder / "output_potential.yaml").n_functions == target.n_functions


def test_cycles_keep_the_best(fit):
    code, folder = fit(fit__fit_cycles=3, fit__noise_relative_sigma=3, fit__maxiter=5)
    assert code == 0
    losses = read_table(folder / "cycle_metrics.txt")["loss"]
    assert len(losses) == 3
    best = Potential.load(folder / "interim_potential_best_cycle.yaml")
    final = Potential.load(folder / "output_potential.yaml")
    np.testing.assert_array_equal(best.parameters, final.parameters)
    assert float(final.metadata["final_loss"]) == pytest.approx(losses.min(), rel=1e-9)

    # the log says where each cycle starts, and how it compares
    text = (folder / "log.txt").read_text()
    starts = re.findall(
        r"Cycle (\d) starts from the best so far \(loss (\S+)\), disturbed: noise_relative_sigma 3", text
    )
    assert starts == [(str(k), f"{losses[:k].min():.6e}") for k in (1, 2)]
    ends = re.findall(r"Cycle (\d) ended .* Final loss (\S+), the best so far(?: is (\S+))?\. Time", text)
    for k, (cycle, loss, best) in enumerate(ends):
        assert (int(cycle), loss) == (k, f"{losses[k]:.6e}")
        assert best == ("" if losses[k] == losses[: k + 1].min() else f"{losses[: k + 1].min():.6e}")
    assert len(ends) == 3


def test_cycles_are_repeatable_by_seed(fit):
    options = {"fit__fit_cycles": 2, "fit__noise_absolute_sigma": 1e-3, "fit__maxiter": 3}
    tables = [read_table(fit(**options, seed=seed)[1] / "cycle_metrics.txt")["loss"] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert tables[0][0] == tables[2][0] and tables[0][1] != tables[2][1]


def test_ensemble_keeps_every_cycle(fit):
    _, folder = fit(fit__fit_cycles=2, fit__randomize_func_coeffs=1e-3, fit__maxiter=3)
    members = [Potential.load(folder / f"ensemble_potential_{k}.yaml").parameters for k in range(2)]
    assert not np.array_equal(*members)


def test_fixed_parameters_keep_their_values(fit):
    _, folder = fit(fit__trainable_parameters={"AlNi": "func"}, fit__maxiter=3)
    before, after = (Potential.load(folder / f"{name}_potential.yaml") for name in ("target", "output"))
    blocks = {block.elements for block in before.blocks}
    changed = {
        block.elements
        for block, old, new in zip(before.blocks, before.block_slices, after.block_slices, strict=True)
        if not np.array_equal(before.parameters[old], after.parameters[new])
    }
    assert ("Al", "Ni") in changed <= blocks and ("Al",) not in changed
    for pair, where in before.radial_slices.items():
        np.testing.assert_array_equal(before.parameters[where], after.parameters[where], err_msg=str(pair))


def test_a_test_set_has_tables_and_figures(fit):
    _, folder = fit(Tasks(), data__test_size=0.2)
    table = read_table(folder / "test_metrics.txt")
    assert table["iter_num"].tolist() == [0, 4, 8] and np.isfinite(table["loss"]).all()
    for name in (
        "test_cycle_metrics.txt",
        "test_ladder_metrics.txt",
        "test_pred.pckl.gzip",
        "report/test_EF-pairplots.png",
    ):
        assert (folder / name).exists()
    train, test = (pd.read_pickle(folder / f"{n}.pckl.gzip", compression="gzip") for n in ("train_pred", "test_pred"))
    assert not set(train.index) & set(test.index)
    assert train["w_energy"].sum() == pytest.approx(1) and test["w_energy"].sum() == pytest.approx(1)
    assert len(test) == round(0.2 * (len(train) + len(test)))
    page = (folder / "report" / "index.html").read_bytes()
    # from the files, the same page; in a process of its own, as Bokeh numbers all that a process has drawn
    again = subprocess.run(
        [sys.executable, "-m", "pacehpc", "report", "--page", folder], text=True, capture_output=True
    )
    assert again.returncode == 0, again.stderr
    assert (folder / "report" / "index.html").read_bytes() == page
    command = [sys.executable, "-m", "pacehpc", "activeset", "output_potential.yaml", "-d", "train_pred.pckl.gzip"]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b'"grade-test"' not in page and b'"grade-test"' in (folder / "report" / "index.html").read_bytes()


def test_early_stop_ends_the_minimisation_alone(fit):
    code, folder = fit(
        fit__min_relative_train_loss_per_iter=0.999, fit__early_stopping_patience=2, fit__fit_cycles=2, fit__maxiter=50
    )
    assert code == 0
    table = read_table(folder / "cycle_metrics.txt")
    assert len(table["loss"]) == 2 and table["iter_num"].max() < 50
    assert "Early stop" in (folder / "log.txt").read_text()


CALLBACKS = """
def stop(basis_config, current_fit_iteration, current_fit_cycle, current_ladder_step):
    assert basis_config.parameters.any()
    return current_fit_iteration == 2

def broken(**keywords):
    raise RuntimeError("no such plot")
"""


def test_a_callback_stops_the_fit_cleanly(fit, tmp_path):
    (tmp_path / "user_stop_here.py").write_text(CALLBACKS)
    code, folder = fit(fit__callbacks=["user_stop_here.stop"], fit__fit_cycles=3)
    table = read_table(folder / "cycle_metrics.txt")
    assert code == 0 and table["iter_num"].tolist() == [2]
    assert Potential.load(folder / "output_potential.yaml").metadata["final_loss"]


def test_a_broken_callback_is_reported_and_ends_the_fit(fit, tmp_path):
    (tmp_path / "user_broken_here.py").write_text(CALLBACKS)
    code, folder = fit(fit__callbacks="user_broken_here.broken", fit__ladder_step=8)
    assert code == 1
    assert "RuntimeError: no such plot" in (folder / "log.txt").read_text()
    assert len(read_table(folder / "ladder_metrics.txt")["loss"]) == 1
    assert (folder / "output_potential.yaml").exists()


def test_without_fit_the_potential_is_evaluated_as_it_is(fit):
    code, folder = fit(Tasks(fit=False))
    assert code == 0
    assert not (folder / "output_potential.yaml").exists() and not (folder / "metrics.txt").exists()
    assert (folder / "train_pred.pckl.gzip").exists()


def test_without_fit_other_data_than_those_of_the_fit_are_called_test(fit, tmp_path):
    fit(fit__maxiter=1)
    frame = pd.read_pickle(DATA, compression="gzip").iloc[::4]
    frame.to_pickle(tmp_path / "other.pckl.gzip", compression="gzip")
    given = {"potential": "output_potential.yaml"}
    fit(Tasks(fit=False), **given)
    assert (tmp_path / "train_pred.pckl.gzip").exists() and not (tmp_path / "test_pred.pckl.gzip").exists()
    (tmp_path / "log.txt").unlink()
    fit(Tasks(fit=False), **given, data__filename=["other.pckl.gzip"])
    assert len(pd.read_pickle(tmp_path / "test_pred.pckl.gzip", compression="gzip")) == len(frame)
    assert (tmp_path / "report" / "test_EF-pairplots.png").exists()
    log = (tmp_path / "log.txt").read_text()
    assert f"test: {len(frame)} structures" in log and "train:" not in log


def test_without_predictions(fit):
    _, folder = fit(Tasks(predict=False, output="mine.yaml"), fit__maxiter=1)
    assert (folder / "mine.yaml").exists()
    assert not (folder / "train_pred.pckl.gzip").exists() and not (folder / "report").exists()


def test_dry_run_writes_no_results(fit):
    code, folder = fit(Tasks(dry_run=True))
    assert code == 0
    assert {p.name for p in folder.iterdir()} == {"input.yaml", "log.txt", "prepared_data.h5"}
    text = (folder / "log.txt").read_text()
    assert "structures" in text and "block" in text


def test_heavy_regularisation_is_warned_about(fit):
    _, folder = fit(fit__loss__L1_coeffs=10.0, fit__maxiter=3)
    assert re.search(r" W - regularisation is \d+ % of the loss", (folder / "log.txt").read_text())


def test_profile_logs_every_stage_and_changes_no_bit(fit):
    _, folder = fit(Tasks(predict=False))
    fitted = Potential.load(folder / "output_potential.yaml").parameters
    log = folder / "log.txt"
    assert "Stages of one" not in log.read_text()
    (folder / "output_potential.yaml").unlink()
    _, folder = fit(Tasks(predict=False, profile=True))
    np.testing.assert_array_equal(Potential.load(folder / "output_potential.yaml").parameters, fitted)
    text = log.read_text()
    assert text.count("Stages of one loss and gradient") == 1
    shares = dict(re.findall(r"    (\w[\w ]*?) +\d+\.\d+ +\d+\.\d+ +(\d+\.\d) %", text))
    assert set(STAGES) | {"sum"} == set(shares) and shares.pop("sum") == "100.0"
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.05 * len(shares))


def test_profile_without_a_fit(fit):
    _, folder = fit(Tasks(fit=False, predict=False, profile=True))
    assert (folder / "log.txt").read_text().count("Stages of one loss and gradient") == 1


def test_profile_of_the_reference_backend_is_refused(fit):
    with pytest.raises(PacehpcError, match="--profile: the reference backend has no stages"):
        fit(Tasks(predict=False, profile=True), backend__evaluator="reference")
