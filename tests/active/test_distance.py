"""The distance grade: at most 1 in the data, above it where atoms lose their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from pacehpc import Potential
from pacehpc.active.active_set import ActiveSet
from pacehpc.active.data_rows import DataRows
from pacehpc.active.distance import learn, load_distances, save_distances
from pacehpc.active.structure_files import read_structures
from pacehpc.errors import PacehpcError
from pacehpc.parallel import Ranks


def test_clusters_and_the_space_between() -> None:
    """Two clusters of opposite B: the point 0 between them is far from both, and γ cannot see it."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(3.0, 0.1, (200, 4)), rng.normal(-3.0, 0.1, (200, 4))])
    found = learn(lambda: iter([(0, {"H": (np.arange(400), rows)})]), {"H": 400}, Ranks())["H"]
    assert found.grades(rows).max() == pytest.approx(1.0)
    assert found.grades(np.zeros((1, 4)))[0] > 3.0


def test_files_round_trip(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(100, 5))
    found = learn(lambda: iter([(0, {"O": (np.arange(100), rows)})]), {"O": 100}, Ranks())
    save_distances(found, tmp_path / "pot.distance.npz")
    again = load_distances(tmp_path / "pot.distance.npz")
    np.testing.assert_array_equal(again["O"].grades(rows), found["O"].grades(rows))
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(PacehpcError, match="not a file of distances"):
        load_distances(tmp_path / "bad.npz")


def test_a_bond_stretched_past_the_cutoff(shared: Callable[[str], Path]) -> None:
    """The hydroxyl hydrogen of ethanol leaves: its extrapolation grade falls to 0, its distance grade rises above 1."""
    potential = Potential.load(shared("golden/activeset/eth.yaml"))
    active_set = ActiveSet.load(shared("golden/activeset/eth.asi"), potential)
    data = read_structures([str(shared("data/ethanol.pckl.gzip"))])
    rows = DataRows(data.atoms[::4], potential, "cpu")
    counts = {element: int((data.symbols == element).sum()) // 4 for element in "CHO"}
    distances = learn(rows.blocks, counts, Ranks())
    atoms = molecule("CH3CH2OH")
    oxygen = atoms.symbols.indices()["O"][0]
    hydrogen = min(atoms.symbols.indices()["H"], key=lambda k: atoms.get_distance(k, oxygen))
    near, far = atoms.copy(), atoms.copy()
    far.set_distance(oxygen, hydrogen, 9.0, fix=0)
    grades = {}
    for name, structure in (("near", near), ("far", far)):
        ((_, block),) = DataRows([structure], potential, "cpu").blocks()
        number, row = block["H"]
        mine = row[number == hydrogen]
        grades[name] = active_set.grades("H", mine)[0], distances["H"].grades(mine)[0]
    assert grades["far"][0] < 1.0
    assert grades["far"][1] > 1.5
    assert grades["near"][1] < grades["far"][1]
