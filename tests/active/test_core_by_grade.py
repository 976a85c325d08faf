"""augment and corerep by grade, on the golden potential of Al and Ni."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms

from pacehpc import PaceCalculator, Potential

Command = Callable[..., str]


def test_core_below_the_reliable_distances(alni: Path, command: Command) -> None:
    text = command("corerep", "pot.yaml", "-d", "data.pckl.gzip", "-nnstep", "0.1", "-n", "20", ranks=2, folder=alni)
    assert "pot_core.yaml written" in text
    before, after = Potential.load(alni / "pot.yaml"), Potential.load(alni / "pot_core.yaml")
    for pair, bond in after.bonds.items():
        assert bond.inner_cutoff_type == "zbl"
        assert 1.0 < bond.r_in < 3.0
        assert bond.rcut == before.bonds[pair].rcut
    r_in = after.bonds["Al", "Ni"].r_in
    atoms = Atoms("AlNi", [[0, 0, 0], [0, 0, r_in - 0.3]])
    atoms.calc = PaceCalculator(after)
    below = atoms.get_potential_energy()
    atoms.positions[1, 2] = r_in - 0.5
    assert atoms.get_potential_energy() > below > 3.0  # ZBL alone
    fixed = ["--inner-cutoff", "Al:1.5", "Al-Ni:1.6", "-o", "fixed.yaml"]
    command("corerep", "pot.yaml", "-d", "data.pckl.gzip", "-n", "3", "-nnstep", "0.3", *fixed, folder=alni)
    bonds = Potential.load(alni / "fixed.yaml").bonds
    assert bonds["Al", "Al"].r_in == 1.5
    assert bonds["Ni", "Al"].r_in == 1.6


def test_augmented_rows_flow_into_a_fit(alni: Path, command: Command) -> None:
    arguments = ["augment", "pot.yaml", "-d", "data.pckl.gzip", "-mss", "6", "-mnat", "4"]
    command(*arguments, folder=alni)
    one = pd.read_pickle(alni / "aug_df.pkl.gz", compression="gzip")
    command(*arguments, "-o", "aug2.pkl.gz", ranks=2, folder=alni)
    two = pd.read_pickle(alni / "aug2.pkl.gz", compression="gzip")
    assert one.name.tolist() == two.name.tolist()
    np.testing.assert_array_equal(one.energy_corrected, two.energy_corrected)
    assert one.name.str.startswith("augmented").all()
    assert len(one) > 3
    (alni / "fit.yaml").write_text(
        "data: {filename: [data.pckl.gzip, aug_df.pkl.gz], aug_factor: 0.01}\nfit: {loss: {kappa: 0.3}, maxiter: 3}\n"
    )
    command("fit.yaml", "-p", "pot.yaml", "--no-predict", ranks=2, folder=alni)
    info = pd.read_pickle(alni / "fitting_data_info.pckl.gzip", compression="gzip")
    augmented = info.name.str.startswith("augmented")
    assert augmented.sum() == len(one)
    ratio = info.w_energy[augmented].mean() / info.w_energy[~augmented].mean()
    assert ratio == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["corerep", "pot.yaml", "-d", "data.pckl.gzip", "--inner-cutoff", "Cu:1.5"], "Cu"),
        (["corerep", "pot.yaml", "-d", "data.pckl.gzip", "-nnmin", "3"], "0 < nnmin < nnmax"),
        (["corerep", "pot.yaml"], "nothing to change"),
        (["augment", "pot.yaml", "-d", "data.pckl.gzip", "-mnat", "0"], "no structure of the data"),
    ],
)
def test_mistakes(alni: Path, command: Command, arguments: list[str], expected: str) -> None:
    assert expected in command(*arguments, folder=alni, fails=True)
