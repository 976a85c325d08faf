"""`pacehpc validate` as a command on two ranks, and as a callback."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk

import pacehpc.validate
from pacehpc import Potential
from pacehpc.errors import PacehpcError
from pacehpc.utilities.validate import read_reference

ROOT = Path(__file__).parents[2]
POTENTIAL = ROOT / "examples" / "ase" / "al_ni.yace"


def test_on_two_ranks(tmp_path: Path) -> None:
    (tmp_path / "ref.yaml").write_text("Ni-Ni: {dimer_length: 2.2}\n")
    ase.io.write(tmp_path / "b2.cif", bulk("NiAl", "cesiumchloride", a=2.9))
    command = [
        Path(sys.executable).parent / "mpirun", "-n", "2", sys.executable, "-m", "pacehpc", "validate", POTENTIAL,
        "--properties", "dimers", "--reference", "ref.yaml", "--structures", "b2.cif",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reference       2.2000" in done.stdout
    found = json.loads((tmp_path / "validation" / "validation.json").read_text())
    assert "Ni-Ni" in found["values"]
    assert len(found["curves"]["Ni-Ni"]["dimer"]["energy"]) > 50
    assert (tmp_path / "validation" / "dimers.png").stat().st_size > 1000
    assert 3.3 < found["values"]["Ni fcc"]["a"] < 3.8
    assert "b2" in found["values"]


@pytest.mark.parametrize("text", ["[1, 2]", "Cu fcc: 3.6", "Cu fcc: {a: large}"])
def test_references_of_another_form(tmp_path: Path, text: str) -> None:
    (tmp_path / "ref.yaml").write_text(text)
    with pytest.raises(PacehpcError, match="are needed"):
        read_reference(str(tmp_path / "ref.yaml"))


def test_callback_logs_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    potential = Potential.load(POTENTIAL)
    with caplog.at_level(logging.INFO, "pacehpc"):
        pacehpc.validate.dimers(basis_config=potential, current_fit_iteration=1, current_fit_cycle=0)
        assert not caplog.messages
        pacehpc.validate.dimers(basis_config=potential, current_fit_iteration=100, current_fit_cycle=0)
    assert "Iteration 100, Ni-Ni: dimer_length" in caplog.text
