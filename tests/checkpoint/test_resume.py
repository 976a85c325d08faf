"""An unfinished fit goes on: every optimizer, options of the command, changed inputs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from killed_runs import INPUT, Zygote, assert_same_fit

from pacehpc.backends.compile import compiler
from pacehpc.config.optimizers import OPTIONS
from pacehpc.fit.optimizers import GRADIENT_FREE
from pacehpc.potential import Potential
from pacehpc.report.tables import read_table

KILL = {"op": "pwrite", "name": "journal_", "count": 7, "when": "mid"}


@pytest.mark.parametrize("method", OPTIONS)
def test_every_optimizer_goes_on_with_the_same_bits(zygote, tmp_path, method):
    few = "maxiter: 2\n  trainable_parameters: {AlNi: func}" if method in GRADIENT_FREE else "maxiter: 6"
    text = INPUT.replace("maxiter: 5", f"{few}\n  optimizer: {method}").replace("  ladder_step: 6\n", "")
    folders = [tmp_path / "whole", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
        (folder / "input.yaml").write_text(text)
    assert zygote(folders[0]) == 0, (folders[0] / "stderr.txt").read_text()
    assert zygote(folders[1], fault=KILL) == -9
    assert zygote(folders[1], "--restart") == 0, (folders[1] / "stderr.txt").read_text()
    log = (folders[1] / "log.txt").read_text()
    assert "Replayed" in log
    assert "no longer takes the path" not in log
    for name in ("metrics.txt", "test_metrics.txt", "cycle_metrics.txt", "ladder_metrics.txt"):
        assert (folders[0] / name).read_text() == (folders[1] / name).read_text()
    whole, resumed = (Potential.load(folder / "output_potential.yaml").parameters for folder in folders)
    np.testing.assert_array_equal(whole, resumed)


def test_restart_without_an_unfinished_fit_is_refused(zygote, tmp_path):
    (tmp_path / "input.yaml").write_text(INPUT)
    assert zygote(tmp_path, "--restart") == 1
    assert "no unfinished fit" in (tmp_path / "stderr.txt").read_text()
    assert not (tmp_path / "log.txt").exists()


def test_the_log_says_how_large_the_journal_will_be(unfinished):
    said = re.findall(r"Journal: about ([\d.]+) (B|KiB|MiB) by the end", (unfinished / "log.txt").read_text())
    expected = float(said[-1][0]) * {"B": 1, "KiB": 2**10, "MiB": 2**20}[said[-1][1]]
    (journal,) = (unfinished / "checkpoint").glob("journal*")
    assert 0.1 * expected < journal.stat().st_size < expected


def test_fresh_moves_the_unfinished_fit_aside(zygote, unfinished, uninterrupted):
    before = (unfinished / "checkpoint" / "state.json").read_bytes()
    assert zygote(unfinished, "--fresh") == 0
    assert (unfinished / "previous_1" / "checkpoint" / "state.json").read_bytes() == before
    assert_same_fit(unfinished, uninterrupted)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kappa: 0.3", "kappa: 0.4", "settings.fit.loss.kappa: 0.3 before, 0.4 now"),
        ("maxiter: 5", "maxiter: 6", "settings.fit.maxiter"),
        ("lmax_by_orders: [0, 1]", "lmax_by_orders: [0, 0]", "--force-restart` cannot help"),
        ("Ni: 4.44", "Ni: 4.45", "settings.data.reference_energy.Ni"),
    ],
)
def test_changed_inputs_are_named_and_refused(zygote, unfinished, old, new, said):
    before = {path: path.read_bytes() for path in [*unfinished.glob("checkpoint/*"), unfinished / "prepared_data.h5"]}
    (unfinished / "input.yaml").write_text(INPUT.replace(old, new))
    assert zygote(unfinished) == 1
    assert said in (unfinished / "stderr.txt").read_text()
    assert {path: path.read_bytes() for path in before} == before


def test_harmless_changes_are_said(zygote, unfinished, uninterrupted):
    (unfinished / "input.yaml").write_text(INPUT.replace("evaluator: cpu", "imagetype: pdf, evaluator: cpu"))
    assert zygote(unfinished) == 0
    assert "without effect on the numbers: settings.backend.imagetype" in (unfinished / "log.txt").read_text()
    assert_same_fit(unfinished, uninterrupted)


def test_force_restart_goes_on_from_the_best_point(zygote, unfinished):
    (unfinished / "input.yaml").write_text(INPUT.replace("kappa: 0.3", "kappa: 0.31"))
    assert zygote(unfinished, "--force-restart") == 0, (unfinished / "stderr.txt").read_text()
    table = read_table(unfinished / "metrics.txt")
    keys = list(zip(table["ladder_step"], table["cycle_step"], table["iter_num"], strict=True))
    assert keys == sorted(set(keys))


def test_force_restart_with_an_optimizer_of_another_kind(zygote, unfinished):
    """Its journal holds losses alone; that of the gradients is not its own, and not damaged."""
    (unfinished / "input.yaml").write_text(INPUT.replace("maxiter: 5", "maxiter: 5\n  optimizer: Nelder-Mead"))
    assert zygote(unfinished, "--force-restart") == 0, (unfinished / "stderr.txt").read_text()
    assert "damaged" not in (unfinished / "log.txt").read_text()


def test_without_a_journal_the_best_point_goes_on(zygote, tmp_path):
    (tmp_path / "input.yaml").write_text(INPUT + "checkpoint: {journal_limit: 1 KiB}\n")
    assert zygote(tmp_path, fault={"op": "pwrite", "name": "best_0_0", "count": 4, "when": "mid"}) == -9
    assert zygote(tmp_path) == 0, (tmp_path / "stderr.txt").read_text()
    log = (tmp_path / "log.txt").read_text()
    assert "Exact restart is off" in log and "resumes from its best point" in log
    iterations = read_table(tmp_path / "metrics.txt")["iter_num"]
    assert len(iterations) == len(read_table(tmp_path / "test_metrics.txt")["iter_num"])


def test_another_journal_is_not_taken_for_this_ones(zygote, unfinished, uninterrupted):
    journal = next(unfinished.glob("checkpoint/journal_*.bin"))
    journal.write_bytes(journal.read_bytes().replace(b'"run"', b'"rum"', 1))
    assert zygote(unfinished) == 0
    assert "damaged" in (unfinished / "log.txt").read_text()
    assert_same_fit(unfinished, uninterrupted)


def test_a_path_that_differs_from_the_journal_goes_on_from_the_best_point(zygote, unfinished):
    """As with another BLAS: the starting point of the checkpoint is changed by a bit, properly signed."""
    from pacehpc.checkpoint import state

    folder = unfinished / "checkpoint"
    body = state.load(folder)
    body["start"]["x"][0] = float(np.nextafter(body["start"]["x"][0], 1e9))
    state.save(folder, body)
    assert zygote(unfinished) == 0
    assert "no longer takes the path of the journal" in (unfinished / "log.txt").read_text()


def test_other_compilation_of_the_kernels_is_named(unfinished):
    """Another instruction set gives other bits: what is recorded is replayed, and the log says what changed."""
    with Zygote(PACEHPC_MARCH="x86-64-v3") as other:
        assert other(unfinished) == 0, (unfinished / "stderr.txt").read_text()
    log = (unfinished / "log.txt").read_text()
    assert "Changed since: kernels: native" in log and "x86-64-v3, 4 lanes" in log and "not bit for bit" in log
    assert "Replayed" in log


def test_a_kernel_cache_that_was_lost_is_made_again(unfinished, uninterrupted, tmp_path_factory):
    with Zygote(PACEHPC_CACHE=str(tmp_path_factory.mktemp("cache"))) as other:
        assert other(unfinished) == 0, (unfinished / "stderr.txt").read_text()
    assert "Changed since" not in (unfinished / "log.txt").read_text()
    assert_same_fit(unfinished, uninterrupted)


def test_another_blas_is_named(unfinished):
    """OpenBLAS takes the kernels of an older processor."""
    with Zygote(OPENBLAS_CORETYPE="Nehalem") as other:
        assert other(unfinished) == 0, (unfinished / "stderr.txt").read_text()
    log = (unfinished / "log.txt").read_text()
    assert "versions.openblas of scipy" in log and "Nehalem now" in log and "not bit for bit" in log


@pytest.mark.parametrize("command", [(), ("--force-restart",)])
def test_other_prepared_data_behind_the_same_names(zygote, unfinished, command):
    """As a database gives that has changed: refused, or accepted by the user's word."""
    from pacehpc.checkpoint import state

    body = state.load(unfinished / "checkpoint")
    body["prepared"]["values"] = "0" * 64
    state.save(unfinished / "checkpoint", body)
    before = {path: path.read_bytes() for path in unfinished.glob("checkpoint/*")}
    code = zygote(unfinished, *command)
    said = (unfinished / "stderr.txt").read_text() + (unfinished / "log.txt").read_text()
    if command:
        assert code == 0 and "accepted by --force-restart: the prepared data" in said and "Replayed" not in said
    else:
        assert code == 1 and "prepared data are not those" in said
        assert {path: path.read_bytes() for path in before} == before


def test_data_that_are_prepared_again_are_the_same(zygote, unfinished, uninterrupted):
    for path in unfinished.glob("prepared_*.h5"):
        path.unlink()
    assert zygote(unfinished) == 0, (unfinished / "stderr.txt").read_text()
    assert "Changed since" not in (unfinished / "log.txt").read_text()
    assert_same_fit(unfinished, uninterrupted)


def test_data_prepared_with_another_cut_are_named(zygote, unfinished):
    """Lists that reach further, made for other potentials, are used as they are: their virtual shards may be others."""
    from pacehpc.checkpoint import state

    body = state.load(unfinished / "checkpoint")
    body["prepared"]["cut"] = "0" * 64
    state.save(unfinished / "checkpoint", body)
    assert zygote(unfinished) == 0
    assert "cut in another way" in (unfinished / "log.txt").read_text()


def test_other_threads_give_the_same_bits(unfinished, uninterrupted):
    with Zygote(OMP_NUM_THREADS="2") as other:
        assert other(unfinished) == 0, (unfinished / "stderr.txt").read_text()
    assert_same_fit(unfinished, uninterrupted)


MOVES = """
import os, pathlib
def here(current_fit_iteration, **keywords):
    if current_fit_iteration == 2 and not pathlib.Path("moved").exists():
        open("moved", "w").close()
        os.rename(os.getcwd(), os.getcwd() + "_elsewhere")
"""


def test_a_folder_that_is_moved_under_a_running_fit(zygote, tmp_path):
    """Names are relative to the folder, wherever that is: nothing is lost, and the lock is no obstacle later."""
    folder, moved = tmp_path / "fit", tmp_path / "fit_elsewhere"
    folder.mkdir()
    (folder / "input.yaml").write_text(INPUT.replace("maxiter: 5", "maxiter: 5\n  callbacks: moving.here"))
    (folder / "moving.py").write_text(MOVES)
    assert zygote(folder) == 0
    assert not folder.exists()
    assert (moved / "output_potential.yaml").exists() and not (moved / "checkpoint").exists()
    table = read_table(moved / "metrics.txt")
    assert table["ladder_step"][-1] == 1 and table["cycle_step"][-1] == 1
    (moved / "input.yaml").write_text(INPUT)
    assert zygote(moved, "--fresh") == 0, (moved / "stderr.txt").read_text()


def test_a_signal_to_everything_of_the_job_does_not_end_its_compiler(unfinished, uninterrupted, tmp_path_factory):
    """Slurm signals all processes of a step: a compiler that dies of it would make an error of an orderly stop."""
    folder = tmp_path_factory.mktemp("compiler")
    script = folder / "c++"
    script.write_text(f'#!/bin/sh\nkill -USR1 $$\nkill -TERM $$\nexec {compiler()} "$@"\n')
    script.chmod(0o755)
    # it is asked for its version and macros before, where nothing protects it
    quiet = folder / "quiet"
    quiet.write_text(f'#!/bin/sh\ncase "$*" in *-shared*) exec {script} "$@";; esac\nexec {compiler()} "$@"\n')
    quiet.chmod(0o755)
    with Zygote(CXX=str(quiet), PACEHPC_CACHE=str(folder)) as other:
        assert other(unfinished) == 0, (unfinished / "stderr.txt").read_text()
    assert list(folder.glob("kernels/*.so"))
    assert_same_fit(unfinished, uninterrupted)
