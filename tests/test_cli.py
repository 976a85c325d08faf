"""The command on one rank, run as users run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pacehpc import cli
from pacehpc.errors import PacehpcError

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "al_ni" / "al_ni.pckl.gzip"
INPUT = f"""
data: {{filename: {DATA}, reference_energy: {{Al: 3.28, Ni: 4.44}}}}
potential:
  elements: [Al, Ni]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1], ndensity: 1}}}}
  bonds: {{ALL: {{radbase: SBessel, radparameters: [5.25], rcut: 4.0, dcut: 0.01}}}}
  functions: {{ALL: {{nradmax_by_orders: [3, 1], lmax_by_orders: [0, 1]}}}}
fit: {{maxiter: 2}}
backend: {{evaluator: cpu}}
"""


@pytest.fixture
def pacehpc(tmp_path):
    """pacehpc(*arguments, **environment) in tmp_path, which holds input.yaml."""
    (tmp_path / "input.yaml").write_text(INPUT)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(
            [sys.executable, "-m", "pacehpc", *arguments],
            cwd=tmp_path, env=env, text=True, capture_output=True, timeout=600, check=False,
        )  # fmt: skip

    return run


def test_help_and_version_need_no_mpi(pacehpc):
    """With a launcher's variables for two separate worlds, which a run would refuse."""
    shown = pacehpc("--help", SLURM_STEP_NUM_TASKS="2")
    assert shown.returncode == 0 and "--initial-potential" in shown.stdout
    version = pacehpc("-v", PMI_RANK="0")
    assert version.returncode == 0 and version.stdout.startswith("pacehpc ")
    assert pacehpc("-v", PMI_RANK="1").stdout == ""


def test_a_fit_and_what_happens_in_its_folder_afterwards(pacehpc, tmp_path):
    first = pacehpc("--no-predict", "--verbose-tf")
    assert first.returncode == 0, first.stderr
    assert "Final errors" in first.stdout and "--verbose-tf: accepted" in first.stdout
    log = (tmp_path / "log.txt").read_text()
    fitted = (tmp_path / "output_potential.yaml").read_bytes()

    again = pacehpc()
    assert again.returncode == 1 and "--fresh" in again.stderr and "Traceback" not in again.stderr
    assert (tmp_path / "log.txt").read_text() == log
    assert (tmp_path / "output_potential.yaml").read_bytes() == fitted

    fresh = pacehpc("--fresh", "--no-predict")
    assert fresh.returncode == 0
    assert (tmp_path / "previous_1" / "output_potential.yaml").read_bytes() == fitted
    assert (tmp_path / "previous_1" / "log.txt").read_text() == log
    assert (tmp_path / "previous_1" / "metrics.txt").exists() and (tmp_path / "output_potential.yaml").exists()


def test_command_line_wins_over_the_file_and_is_logged(pacehpc, tmp_path):
    done = pacehpc("-b", "reference", "-o", "mine.yaml", "-l", "mine.log", "--no-predict")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine.yaml").exists() and not (tmp_path / "log.txt").exists()
    assert "backend.evaluator: 'reference' (command line)" in (tmp_path / "mine.log").read_text()


def test_potential_and_data_without_an_input_file(pacehpc, tmp_path):
    assert pacehpc("--no-predict").returncode == 0
    (tmp_path / "input.yaml").unlink()
    (tmp_path / "output_potential.yaml").rename(tmp_path / "start.yaml")
    done = pacehpc("-p", "start.yaml", "-d", str(DATA), "--no-fit", "--no-predict")
    assert done.returncode == 0, done.stderr  # reference energies stand in the potential's metadata
    assert "Final errors" in done.stdout


def test_dry_run_leaves_no_files(pacehpc, tmp_path):
    done = pacehpc("--dry-run")
    assert done.returncode == 0 and "functions" in done.stdout
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["input.yaml", "prepared_data.h5"]


def test_prepared_data_is_used_by_the_fit(pacehpc, tmp_path):
    whole = (tmp_path / "input.yaml").read_text()
    (tmp_path / "input.yaml").write_text("cutoff: 5.0\n" + whole.split("\npotential:")[0])  # no potential yet
    done = pacehpc("--prepare-data")
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "prepared_data.h5").stat().st_mtime_ns
    (tmp_path / "input.yaml").write_text(whole)
    fitted = pacehpc("--no-predict")
    assert fitted.returncode == 0 and "prepared before" in fitted.stdout
    assert (tmp_path / "prepared_data.h5").stat().st_mtime_ns == made
    (tmp_path / "input.yaml").write_text(whole.replace("rcut: 4.0", "rcut: 5.5"))
    longer = pacehpc("--fresh", "--no-predict")
    assert longer.returncode == 0 and "too short" in longer.stdout
    rebuilt = pacehpc("--fresh", "--no-predict", "-rebuild")
    assert rebuilt.returncode == 0 and "prepared before" not in rebuilt.stdout


def test_mistakes_are_one_message(pacehpc, tmp_path):
    assert pacehpc("--no-such-option").returncode == 2
    missing = pacehpc("other.yaml")
    assert missing.returncode == 1 and "other.yaml" in missing.stderr and "Traceback" not in missing.stderr
    (tmp_path / "input.yaml").write_text(INPUT + "fitt: {}\n")
    unknown = pacehpc()
    assert unknown.returncode == 1 and "did you mean `fit`" in unknown.stderr
    (tmp_path / "input.yaml").write_text("global: {DeltaSplineBins: 0.001}\nspecies: []\n")
    potential = pacehpc()
    assert potential.returncode == 1 and "is a potential, not an input file; name it after -p" in potential.stderr
    output = pacehpc("-o", "fitted.yace")
    assert output.returncode == 1 and "pacehpc yaml2yace" in output.stderr
    (tmp_path / "input.yaml").unlink()
    nothing = pacehpc()
    assert nothing.returncode == 1 and "input.yaml" in nothing.stderr
    assert not (tmp_path / "log.txt").exists()


def test_separately_launched_worlds_are_refused_before_any_work(pacehpc, tmp_path):
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        done = pacehpc(**{name: "2"})
        assert done.returncode == 1 and "separate programs" in done.stderr and "Traceback" not in done.stderr
    assert pacehpc(SLURM_STEP_NUM_TASKS="2", SLURM_PROCID="1").stderr == ""
    assert [p.name for p in tmp_path.iterdir()] == ["input.yaml"]


def test_names_that_no_file_can_have_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option, name in (("-o", "."), ("-o", ""), ("-l", ""), ("-o", "nodir/x.yaml"), ("-l", "nodir/x")):
        with pytest.raises(PacehpcError, match=f"^{option} {name}: (is a folder|there is no folder nodir)"):
            cli._settings(cli.parser().parse_args([option, name]))


def test_what_a_run_reads_it_does_not_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input.yaml").write_text(INPUT)
    for argv in (["-l", "input.yaml"], ["-o", "./old.yaml", "-p", "old.yaml"], ["-l", "a.xyz", "-d", "b.xyz", "a.xyz"]):
        with pytest.raises(PacehpcError, match="this run reads the file"):
            cli._settings(cli.parser().parse_args(argv))


def test_a_potential_that_is_only_evaluated_may_have_the_name_of_the_output(pacehpc, tmp_path):
    pacehpc("--no-predict")
    fitted = (tmp_path / "output_potential.yaml").read_bytes()
    for argv in (["--no-fit"], ["--dry-run"]):
        done = pacehpc("-p", "output_potential.yaml", *argv)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "output_potential.yaml").read_bytes() == fitted


def test_potential_and_log_in_other_folders(pacehpc, tmp_path):
    (tmp_path / "out").mkdir()
    names = ["-o", str(tmp_path / "out" / "fitted.yaml"), "-l", "out/fit[1].log", "--no-predict"]
    first = pacehpc(*names)
    assert first.returncode == 0, first.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"fitted.yaml", "fit[1].log"}
    fresh = pacehpc(*names, "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    assert {"fitted.yaml", "fit[1].log", "metrics.txt"} <= {p.name for p in (tmp_path / "previous_1").iterdir()}


def test_an_input_behind_options_that_take_several_names(tmp_path, monkeypatch, golden):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(INPUT)
    for name in ("one.yaml", "two.yaml"):
        shutil.copy(golden / "potentials" / "al_chebexpcos.yaml", tmp_path / name)
    for argv in (
        ["-ip", "one.yaml", "two.yaml", "mine.yaml"],
        ["-ip", "one.yaml", "two.yaml", "-d", "d.xyz", "mine.yaml"],
    ):
        settings = cli._settings(cli.parser().parse_args(argv))
        assert settings.potential["initial_potential"] == ["one.yaml", "two.yaml"]
        assert settings.data.filename == (["d.xyz"] if "-d" in argv else [str(DATA)])
    with pytest.raises(PacehpcError, match=r"there is no input\.yaml here"):
        cli._settings(cli.parser().parse_args(["-ip", "one.yaml", "two.yaml"]))
