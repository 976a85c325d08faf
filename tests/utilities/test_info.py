from __future__ import annotations

import subprocess
import sys

import pytest

from pacehpc.potential import Potential
from pacehpc.utilities import info


def table(text: str, title: str) -> list[list[str]]:
    """Words of the rows under a title."""
    lines = text.split(f"{title}\n", 1)[1].split("\n\n")[0].splitlines()
    return [line.split() for line in lines]


def test_two_elements(golden):
    """Numbers counted by hand, and as the reference program's pace_info prints them."""
    text = info.describe(Potential.load(golden / "potentials" / "alni_mixed.yaml"))
    assert "Functions:   326" in text and "Cutoff:      5.5 Å" in text
    _, al, ni = table(text, "Embeddings")
    assert al == ["Al", "2", "FinnisSinclairShiftedScaled", "1", "1", "1", "0.5", "200000", "250"]
    assert ni[1] == "1"
    bonds = table(text, "Bonds (Å)")[1:]
    assert [row[0] for row in bonds] == ["Al-Al", "Al-Ni", "Ni-Ni"]
    assert bonds[1] == ["Al-Ni", "ChebPow", "4", "5.5", "0.01", "1.4", "0.4", "distance", "30", "1.2", "5", "2", "2"]
    blocks = table(text, "Blocks")[1:]
    assert blocks[0] == ["Al", "1", "6", "0", "6", "12"]
    assert next(row for row in blocks if "sum" in row) == ["sum", "70", "140"]
    assert sum(int(row[1]) for row in blocks if row[0] == "sum") == 326


def test_reference_energies_and_metadata(golden, tmp_path, capsys):
    potential = Potential.load(golden / "potentials" / "al_cheblinear.yaml")
    potential.metadata["reference_energy"] = '{"Al": -0.25, "shift": 0.0}'
    potential.save(tmp_path / "p.yaml")
    assert info.main([str(tmp_path / "p.yaml"), str(golden / "potentials" / "al_cheblinear.yace")]) == 0
    first, second = capsys.readouterr().out.split("al_cheblinear.yace")
    assert "Al -0.25" in first and "comment: " in first
    assert "none recorded" in second and "Functions:   40" in second


def test_mistakes(tmp_path, capsys):
    (tmp_path / "p.yaml").write_text("species: 3")
    assert info.main([str(tmp_path / "p.yaml")]) == 1
    assert capsys.readouterr().err.startswith("ERROR: ")
    with pytest.raises(SystemExit):
        info.main([])


def test_pipe_that_closes(golden):
    path = golden / "potentials" / "alni_mixed.yaml"
    done = subprocess.run(
        f"{sys.executable} -m pacehpc info {' '.join([str(path)] * 5)} | head -n 1",
        shell=True, text=True, capture_output=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(path) and done.stderr == ""
