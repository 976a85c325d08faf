"""The example of active learning as a chain of Slurm jobs, one of them killed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from held_fits import HELD, hold, iterations, let_go, wait_for

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def example(folder: Path) -> Path:
    """A copy of the example with its job script: three generations on two ranks."""
    shutil.copytree(ROOT / "examples" / "active_learning", folder)
    text = (ROOT / "jobscripts" / "active_learning.sh").read_text().replace("\nlast=4 ", "\nlast=2 ")
    (folder / "active_learning.sh").write_text(text)
    return folder


def test_generations_in_a_chain_of_jobs(slurm, tmp_path: Path) -> None:
    """Grades and errors fall, and the generation whose job was killed ends as one that was left alone."""
    chain, alone = example(tmp_path / "chain"), example(tmp_path / "alone")
    text = (chain / "input.yaml").read_text()
    (chain / "input.yaml").write_text(text.replace("fit:\n", "fit:\n  callbacks: held.wait\n"))
    (chain / "held.py").write_text(HELD)
    (chain / "gen_0").mkdir()
    hold(chain / "gen_0", 20)
    imports = f"--export=ALL,PYTHONPATH={ROOT}:{chain}"
    first = slurm.run("sbatch", "--parsable", imports, "active_learning.sh", cwd=chain)
    wait_for(lambda: iterations(chain / "gen_0") >= 20)
    slurm.run("scancel", "--signal=KILL", "--full", first)
    let_go(chain / "gen_0")
    slurm.wait_all()
    assert "Replayed" in (chain / "gen_0" / "log.txt").read_text()
    text = "".join(path.read_text() for path in sorted(chain.glob("slurm-*.out")))
    found = re.findall(r"generation (\d): largest grade ([\d.]+), error of test forces ([\d.]+)", text)
    assert [number for number, *_ in found] == ["0", "1", "2"], text
    grades, errors = ([float(values[k]) for values in found] for k in (1, 2))
    assert grades[0] > 2 * grades[2]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] / 2

    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path, "RANKS": "2"}
    command = [sys.executable, "generation.py", "0"]
    subprocess.run(command, cwd=alone, env=environment, check=True, capture_output=True, timeout=300)
    one, two = (pd.read_pickle(f / "gen_1" / "data.pckl.gzip", compression="gzip") for f in (chain, alone))
    pd.testing.assert_frame_equal(one.drop(columns="ase_atoms"), two.drop(columns="ase_atoms"))
