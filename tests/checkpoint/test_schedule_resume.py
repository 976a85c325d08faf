"""A killed fit with a schedule resumes with the same bits, and some changes of the schedule are allowed in between."""

from __future__ import annotations

import pytest
from killed_runs import INPUT, assert_same_fit

from pacehpc.report.tables import read_table

STAGES = """  schedule:
  - {name: forces, loss: {kappa: 0.9, forces: {type: huber, delta: 0.5}}, maxiter: 4}
  - {weights: {"*_dimer": 0.1}, optimizer: GN-BFGS, options: {start: 2, renew: 2}, maxiter: 6}
  - {name: energies, loss: {kappa: 0.05, L1_coeffs: 1e-6}, optimizer: L-BFGS-B}
"""
LADDER = INPUT.replace("  fit_cycles: 2\n  noise_relative_sigma: 1e-2\n", STAGES)
PLAIN = LADDER.replace("  ladder_step: 6\n", "")


def run(zygote, folder, text, *arguments, **options):
    folder.mkdir(exist_ok=True)
    (folder / "input.yaml").write_text(text)
    return zygote(folder, *arguments, **options)


@pytest.fixture(scope="module")
def ladder(zygote, tmp_path_factory):
    folder = tmp_path_factory.mktemp("schedule") / "whole"
    assert run(zygote, folder, LADDER) == 0, (folder / "stderr.txt").read_text()
    return folder


def test_every_ladder_step_has_every_stage(ladder):
    table = read_table(ladder / "cycle_metrics.txt")
    steps = len(read_table(ladder / "ladder_metrics.txt")["loss"])
    assert steps > 1
    assert table["cycle_step"].tolist() == [0, 1, 2] * steps
    text = (ladder / "log.txt").read_text()
    assert text.count("-Stage 2 of 3: GN-BFGS, at most 6 iterations; kappa 0.3, L2_coeffs 1e-08-") == steps
    assert text.count("-Stage 3 of 3 (energies): L-BFGS-B, at most 5 iterations; kappa 0.05, ") == steps
    assert text.count("Stage 1 of 3 (forces) ended after 4 iterations") == steps
    assert text.count("Intermediate potential saved in") == steps and "Cycle 0 ended" not in text


@pytest.mark.parametrize("place", ["0_0", "0_1", "0_2", "1_0", "1_1"])
def test_a_kill_in_any_stage(zygote, tmp_path, ladder, place):
    """In the middle of a record of the journal of that ladder step and stage."""
    folder = tmp_path / "fit"
    fault = {"op": "pwrite", "name": f"journal_{place}", "count": 5, "when": "mid"}
    assert run(zygote, folder, LADDER, fault=fault) == -9
    assert zygote(folder, "--restart") == 0, (folder / "stderr.txt").read_text()
    log = (folder / "log.txt").read_text()
    assert "Replayed" in log and "no longer takes the path" not in log
    assert_same_fit(folder, ladder)


def test_a_kill_between_two_stages(zygote, tmp_path, ladder):
    """The checkpoint of the second stage is not in place: the journal of the first one is replayed to its end."""
    folder = tmp_path / "fit"
    fault = {"op": "replace", "name": "state.json", "count": 2, "when": "before"}
    assert run(zygote, folder, LADDER, fault=fault) == -9
    assert zygote(folder) == 0, (folder / "stderr.txt").read_text()
    assert_same_fit(folder, ladder)


@pytest.fixture
def second(zygote, tmp_path):
    """A folder whose fit without ladder was killed in its second stage."""
    folder = tmp_path / "fit"
    assert run(zygote, folder, PLAIN, fault={"op": "pwrite", "name": "journal_0_1", "count": 4, "when": "mid"}) == -9
    return folder


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kappa: 0.9", "kappa: 0.8", "settings.fit.schedule.1.loss.kappa: 0.9 before, 0.8 now"),
        ("maxiter: 6", "maxiter: 7", "settings.fit.schedule.2.maxiter: 6 before, 7 now"),
        ('"*_dimer": 0.1', '"*_dimer": 0.2', "settings.fit.schedule.2.weights.*_dimer.energy: 0.1 before, 0.2 now"),
        (
            "  - {name: forces",
            "  - {maxiter: 3}\n  - {name: forces",
            "settings.fit.schedule.1.maxiter: 4 before, 3 now",
        ),
    ],
)
def test_a_stage_that_has_begun_cannot_change(zygote, second, old, new, said):
    before = {path: path.read_bytes() for path in second.glob("checkpoint/*")}
    assert run(zygote, second, PLAIN.replace(old, new)) == 1
    assert said in (second / "stderr.txt").read_text()
    assert {path: path.read_bytes() for path in second.glob("checkpoint/*")} == before


@pytest.mark.parametrize("arguments", [(), ("--force-restart",)])
def test_a_stage_that_runs_cannot_vanish(zygote, second, arguments):
    text = PLAIN[: PLAIN.index("  - {weights")] + PLAIN[PLAIN.index("backend:") :]
    assert run(zygote, second, text, *arguments) == 1
    said = (second / "stderr.txt").read_text()
    assert "an unfinished fit in stage 2 of its schedule, which the input no longer has" in said


def test_later_stages_may_change_and_be_added(zygote, second, tmp_path):
    """The result is that of a fit with the new schedule from the start."""
    text = PLAIN.replace("kappa: 0.05", "kappa: 0.1").replace("backend:", "  - {maxiter: 2}\nbackend:")
    assert run(zygote, second, text, "--restart") == 0, (second / "stderr.txt").read_text()
    log = (second / "log.txt").read_text()
    assert "in a stage that has not begun: settings.fit.schedule.3.loss.kappa: 0.05 before, 0.1 now" in log
    whole = tmp_path / "whole"
    assert run(zygote, whole, text) == 0, (whole / "stderr.txt").read_text()
    assert_same_fit(second, whole)


def test_on_a_ladder_no_stage_is_later(zygote, tmp_path):
    """Earlier ladder steps had them all."""
    folder = tmp_path / "fit"
    assert run(zygote, folder, LADDER, fault={"op": "pwrite", "name": "journal_1_0", "count": 4, "when": "mid"}) == -9
    assert run(zygote, folder, LADDER.replace("kappa: 0.05", "kappa: 0.1")) == 1
    assert "settings.fit.schedule.3.loss.kappa: 0.05 before, 0.1 now" in (folder / "stderr.txt").read_text()


def test_force_restart_goes_on_in_its_stage(zygote, second):
    assert run(zygote, second, PLAIN.replace("kappa: 0.9", "kappa: 0.8"), "--force-restart") == 0
    assert read_table(second / "cycle_metrics.txt")["cycle_step"].tolist() == [0, 1, 2]
