"""`fit.repulsion: auto`: what takes a ZBL core, and when it is put in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.neighborlist import neighbor_list

from pacehpc.errors import PacehpcError
from pacehpc.fit.repulsion import with_zbl
from pacehpc.potential import Potential
from pacehpc.report.tables import read_table

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"


def test_repulsion_auto_is_put_in_after_the_fit(fit):
    _, folder = fit(fit__repulsion="auto", fit__maxiter=3)
    before, after = (Potential.load(folder / name) for name in ("interim_potential_0.yaml", "output_potential.yaml"))
    np.testing.assert_array_equal(before.parameters, after.parameters)
    fitted = pd.read_pickle(folder / "fitting_data_info.pckl.gzip", compression="gzip")["ase_atoms"]
    within = [neighbor_list("d", atoms, after.cutoff) for atoms in fitted]
    shortest = min(bond.r_in for bond in after.bonds.values())
    assert shortest == pytest.approx(min(d.min() for d in within if len(d)), abs=1e-9)
    assert {bond.inner_cutoff_type for bond in after.bonds.values()} == {"zbl"}
    # no atoms are closer: energies and forces of the data stay as they were fitted
    table = read_table(folder / "cycle_metrics.txt")
    assert float(after.metadata["final_loss"]) == pytest.approx(table["loss"][-1], rel=1e-9)


@pytest.mark.parametrize(("bond", "data", "what"), [
    ({"rcut": 4.5, "dcut": 0.0}, DATA, "dcut 0"),
    ({"rcut": 2.4, "dcut": 0.1}, "al.pckl.gzip", "no bond (Al Ni|Ni Al) is in the data"),
])  # fmt: skip
def test_repulsion_auto_that_could_not_be_written_is_refused_before_the_fit(fit, bond, data, what):
    frame = pd.read_pickle(DATA, compression="gzip")
    frame[[set(a.symbols) == {"Al"} for a in frame["ase_atoms"]]].to_pickle("al.pckl.gzip", compression="gzip")
    bonds = {"ALL": {"radbase": "ChebPow", "radparameters": [2.0], **bond}}
    with pytest.raises(PacehpcError, match=rf"fit\.repulsion.*{what}"):
        fit(fit__repulsion="auto", potential__bonds=bonds, data__filename=[str(data)])
    assert not Path("checkpoint").exists() and not Path("metrics.txt").exists()


def test_bonds_absent_from_the_data_begin_at_the_covalent_radii(golden):
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    changed = with_zbl(potential, {("Al", "Al"): 2.5, ("Ni", "Ni"): 2.2})
    assert changed.bonds["Al", "Al"].r_in == 2.5
    assert changed.bonds["Al", "Ni"] == changed.bonds["Ni", "Al"]
    assert changed.bonds["Al", "Ni"].r_in == pytest.approx(1.21 + 1.24)
