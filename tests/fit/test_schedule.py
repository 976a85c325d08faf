"""A fit in stages: each is a fit of its own that starts from the result of the one before."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pacehpc.config import load_settings
from pacehpc.errors import PacehpcError
from pacehpc.fit.plan import Tasks
from pacehpc.potential import Potential
from pacehpc.report.tables import read_table
from pacehpc.yamlio import loads_yaml

LOSS = {"kappa": 0.3, "L2_coeffs": 1e-8}
FORCES = {"kappa": 0.9, "w0_rad": 1e-7, "energy": {"type": "huber", "delta": 0.1}}


def test_stages_say_what_differs():
    given = {
        "fit.loss": LOSS,
        "fit.maxiter": 50,
        "fit.options": {"gtol": 1e-6},
        "fit.schedule": [
            {"loss": FORCES, "maxiter": 3},
            {"optimizer": "GN-BFGS", "options": {"rows": 3, "maxiter": 7}, "loss": {"energy": {"type": "square"}}},
            {"optimizer": "L-BFGS-B"},
        ],
    }
    first, second, third = load_settings(None, given).fit.stages
    assert (first.loss.kappa, first.loss.L2_coeffs, first.loss.w0_rad, first.loss.energy.delta) == (
        0.9,
        1e-8,
        1e-7,
        0.1,
    )
    assert (first.maxiter, first.optimizer, first.options) == (3, "BFGS", {"gtol": 1e-6})
    assert (second.loss.kappa, second.maxiter, second.optimizer) == (0.3, 7, "GN-BFGS")
    assert second.options == {"rows": 3.0, "gtol": 1e-8} and second.loss.energy.type == "square"
    assert (third.maxiter, third.options) == (50, {"gtol": 1e-8})
    plain = load_settings(None, {"fit.maxiter": 7}).fit
    assert plain.stages == [plain]


def test_resolved_settings_mean_the_same(tmp_path):
    settings = load_settings(None, {"fit.loss": LOSS, "fit.schedule": [{"loss": FORCES}, {"weights": {"a*": 2}}]})
    (tmp_path / "again.yaml").write_text(settings.resolved_yaml())
    assert load_settings(tmp_path / "again.yaml").fit == settings.fit
    assert loads_yaml(settings.resolved_yaml(), "")["fit"]["schedule"][1]["weights"] == {
        "a*": {"energy": 2, "forces": 2}
    }


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"schedule": []}, r"fit\.schedule: must be a list of stages such as .*, not \[\]"),
        ({"schedule": {"maxiter": 3}}, r"fit\.schedule: must be a list of stages such as .*, not a mapping"),
        ({"schedule": [{}, 3]}, r"fit\.schedule\[1\]: must hold keys and values, not 3"),
        ({"schedule": [{"kappa": 1}]}, r"fit\.schedule\[0\]\.kappa: unknown key; it belongs to fit\.loss\.kappa"),
        ({"schedule": [{"loss": {"kapa": 1}}]}, r"fit\.schedule\[0\]\.loss\.kapa: unknown key; did you mean `kappa`"),
        ({"schedule": [{"maxiter": -1}]}, r"fit\.schedule\[0\]\.maxiter: must be a whole number, 0 or larger"),
        ({"schedule": [{"name": 3}]}, r"fit\.schedule\[0\]\.name: must be a text"),
        ({"schedule": [{"optimizer": "TNC"}]}, r"fit\.schedule\[0\]\.optimizer: TNC cannot be used"),
        ({"schedule": [{"options": {"rows": 1}}]}, r"schedule\[0\]\.options\.rows: .* of BFGS; it is one of GN-BFGS"),
        ({"schedule": [{"maxiter": 3, "options": {"maxiter": 4}}]}, r"options\.maxiter: differs from maxiter, 3"),
        ({"schedule": [{"weights": {"a": {"b": 3}}}]}, r"fit\.schedule\[0\]\.weights\.a\.b: unknown key"),
        ({"schedule": [{}], "fit_cycles": 2}, r"fit\.fit_cycles: a fit has either cycles or a schedule"),
    ],
)
def test_mistakes_are_named(given, text):
    with pytest.raises(PacehpcError, match=text):
        load_settings(None, {f"fit.{key}": value for key, value in given.items()})


def test_a_schedule_is_one_fit_after_the_other(fit):
    """Bit for bit that of two runs, the second of which fits the potential of the first."""
    loss = {**LOSS, **FORCES}
    _, folder = fit(fit__loss=loss, fit__maxiter=4, data__test_size=0.2)
    (folder / "output_potential.yaml").rename(folder / "first.yaml")
    fit(potential="first.yaml", fit__loss=LOSS, fit__optimizer="L-BFGS-B", fit__maxiter=3, data__test_size=0.2)
    expected = Potential.load(folder / "output_potential.yaml")
    last = read_table(folder / "cycle_metrics.txt")
    stages = [{"loss": FORCES, "maxiter": 4}, {"optimizer": "L-BFGS-B", "maxiter": 3}]
    fit(fit__loss=LOSS, fit__schedule=stages, data__test_size=0.2)
    found = Potential.load(folder / "output_potential.yaml")
    np.testing.assert_array_equal(found.parameters, expected.parameters)
    assert found.metadata["final_loss"] == expected.metadata["final_loss"]
    cycles = read_table(folder / "cycle_metrics.txt")
    assert cycles["cycle_step"].tolist() == [0, 1] and cycles["loss"][1] == last["loss"][0]
    iterations = read_table(folder / "metrics.txt")
    assert set(zip(iterations["cycle_step"], iterations["iter_num"], strict=True)) == {(0, 0), (0, 4), (1, 0), (1, 3)}
    # the second stage starts where the first one ends: the same errors, another loss
    np.testing.assert_array_equal(iterations["rmse_f_comp"][1], iterations["rmse_f_comp"][2])
    assert iterations["f_loss_contrib"][2] == pytest.approx(iterations["f_loss_contrib"][1] / 0.9 * 0.3, rel=1e-12)
    assert len(read_table(folder / "ladder_metrics.txt")["loss"]) == 1
    assert all((folder / f"interim_potential_{k}.yaml").exists() for k in (0, 1))


def test_weights_of_a_stage_are_those_of_the_data_times_its_factors(fit):
    factors = {"*_dimer": {"energy": 5.0, "forces": 0.5}}
    given = {"data__test_size": 0.2, "fit__maxiter": 3, "fit__loss": LOSS}
    _, folder = fit(data__weights=factors, **given)
    expected, test = read_table(folder / "metrics.txt"), read_table(folder / "test_metrics.txt")
    potential = Potential.load(folder / "output_potential.yaml").parameters
    fit(fit__schedule=[{"weights": factors}, {"maxiter": 0}], **given)
    found = read_table(folder / "metrics.txt")
    for name in ("loss", "e_loss_contrib", "f_loss_contrib", "rmse_epa"):
        np.testing.assert_allclose(found[name][:2], expected[name], rtol=1e-7)
        np.testing.assert_allclose(read_table(folder / "test_metrics.txt")[name][:2], test[name], rtol=1e-7)
    np.testing.assert_allclose(Potential.load(folder / "output_potential.yaml").parameters, potential, rtol=1e-6)
    # without factors again in the second stage
    assert found["rmse_epa"][2] == found["rmse_epa"][1] and found["loss"][2] != found["loss"][1]
    text = (folder / "log.txt").read_text()
    assert re.search(r"stage 1, factors on the weights \(\d+ structures keep theirs\)", text) and "AlNi_dimer" in text


def test_a_pattern_without_structures_is_found_before_the_fit(fit):
    with pytest.raises(PacehpcError, match=r"fit\.schedule\[1\]\.weights: the pattern 'dimers' matches no structure"):
        fit(fit__schedule=[{}, {"weights": {"dimers": 2}}])
    with pytest.raises(PacehpcError, match=r"fit\.schedule\[0\]\.weights: the train set: all weights in w_forces are"):
        fit(fit__schedule=[{"weights": {"*": {"forces": 0}}}])


def test_a_later_stage_may_need_forces_and_stresses(fit):
    """What any stage uses is checked and prepared."""
    stages = [{"loss": {"kappa": 0.0}, "maxiter": 2}, {"loss": {"kappa": 1.0, "stress": 0.1}, "maxiter": 2}]
    code, folder = fit(fit__schedule=stages)
    table = read_table(folder / "cycle_metrics.txt")
    assert code == 0 and table["f_loss_contrib"][0] == 0 == table["e_loss_contrib"][1]
    assert table["f_loss_contrib"][1] > 0 and "structures take part" in (folder / "log.txt").read_text()


STOPS = """
def at_two(current_fit_cycle, current_fit_iteration, **keywords):
    with open("seen.txt", "a") as file:
        print(current_fit_cycle, current_fit_iteration, file=file)
    return current_fit_iteration == 2
"""


def test_a_callback_knows_the_stage_and_ends_the_fit(fit, tmp_path):
    (tmp_path / "stops_a_schedule.py").write_text(STOPS)
    _, folder = fit(fit__schedule=[{"maxiter": 1}, {"maxiter": 5}, {}], fit__callbacks=["stops_a_schedule.at_two"])
    assert (folder / "seen.txt").read_text().split("\n")[:-1] == ["0 1", "1 1", "1 2"]
    assert len(read_table(folder / "ladder_metrics.txt")["loss"]) == 1


def test_an_early_stop_ends_its_stage_alone(fit):
    _, folder = fit(
        fit__schedule=[{"maxiter": 7}, {"maxiter": 3}],
        fit__min_relative_train_loss_per_iter=10.0,
        fit__early_stopping_patience=2,
    )
    assert read_table(folder / "cycle_metrics.txt")["iter_num"].tolist() == [2, 2]


def test_a_dry_run_shows_the_stages_and_all_evaluations(fit):
    stages = [{"name": "rough", "loss": FORCES, "maxiter": 20}, {"optimizer": "GN-BFGS", "maxiter": 30}]
    _, folder = fit(Tasks(dry_run=True), fit__schedule=stages, fit__ladder_step=8)
    text = (folder / "log.txt").read_text()
    steps = int(re.search(r"ladder: (\d+) steps", text)[1])
    assert f"{steps} ladder steps x 2 stages; at most about {int(steps * 1.3 * 50)} evaluations" in text
    assert "Stage 1 of 2 (rough): BFGS, at most 20 iterations; kappa 0.9, energy huber 0.1" in text
    assert "Stage 2 of 2: GN-BFGS, at most 30 iterations; kappa 0.3" in text
    assert f"{steps} ladder steps x 50 iterations of 2 stages, 1.3 evaluations each" in text
