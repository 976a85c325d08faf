"""Bad data are found when they are read, and the message names file and row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from dataset_samples import make_frame

from pacehpc.dataset import load_dataset
from pacehpc.errors import PacehpcError


def broken(row, **changes):
    """A good frame with a fault in one row: changes of columns, or of the atoms' positions, cell, pbc."""
    frame = make_frame(5)
    frame.index = range(10, 15)
    frame.insert(0, "stress", pd.Series([np.zeros(6)] * 5, index=frame.index, dtype=object))
    for name, value in changes.items():
        if name in ("positions", "cell", "pbc"):
            setattr(frame.ase_atoms.iloc[row], name, value)
        else:
            frame[name] = frame[name].astype(object)
            frame[name].array[row] = value
    return frame


CASES = [
    ({"forces": np.zeros((3, 3))}, "forces for 3 atoms, but there are 2"),
    ({"forces": np.zeros((2, 2))}, r"forces has shape \(2, 2\), expected n x 3"),
    ({"forces": np.full((2, 3), np.inf)}, "forces contains NaN or infinite"),
    ({"forces": "abc"}, "forces is not an array of numbers"),
    ({"forces": [[1, 2, 3], [1, 2]]}, "forces is not an array of numbers"),
    ({"energy_corrected": float("inf")}, "energy_corrected contains NaN or infinite"),
    ({"energy_corrected": "low"}, "energy_corrected is not an array of numbers"),
    ({"energy_corrected": [1.0, 2.0]}, "energy_corrected has shape"),
    ({"energy_corrected": np.nan}, "energy_corrected contains NaN"),
    ({"stress": np.zeros(5)}, "stress has shape"),
    ({"stress": np.arange(9.0).reshape(3, 3)}, "not symmetric"),
    ({"stress": np.array([0, 0, 0, 0, 0, np.inf])}, "stress contains NaN or infinite"),
    ({"positions": [[0, 0, 0], [0, 0, np.nan]]}, "positions contains NaN"),
    ({"positions": [[0, 0, 0], [0, 0.05, 0]]}, "atoms [01] and [01] are closer than 0.1"),
    ({"positions": [[0, 0, 0], [3, 0, 0]]}, "atoms [01] and [01] are closer than 0.1"),
    ({"positions": [[0, 0, 0], [0, 0, 1e9]]}, "positions beyond"),
    ({"cell": np.zeros((3, 3))}, "no volume"),
    ({"cell": [[3, 0, 0], [0, 3, 0], [3, 3, 0]]}, "no volume"),
    ({"cell": [[3, 0, 0], [0, 3, 0], [0, 0, 0.05]]}, "closer than 0.1"),
    ({"cell": [[30, 0, 0], [30, 0.01, 0], [0, 0, 0.2]]}, "closer than 0.1"),
    ({"cell": np.full((3, 3), np.inf)}, "cell contains NaN or infinite"),
    ({"ase_atoms": Atoms("Cu", [[0, 0, 0]])}, "contains Cu, but the potential is for Al Ni"),
    ({"ase_atoms": Atoms("X", [[0, 0, 0]])}, "atomic numbers must be"),
    ({"ase_atoms": Atoms()}, "without atoms"),
    ({"ase_atoms": "Al"}, "holds str, not ase.Atoms"),
]


@pytest.mark.parametrize("changes, text", CASES, ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("row", [0, 3])
def test_faults_name_file_and_row(tmp_path, changes, text, row):
    broken(row, **changes).to_pickle(tmp_path / "bad.pkl")
    with pytest.raises(PacehpcError, match=rf"bad\.pkl, row {10 + row}: .*{text}"):
        load_dataset(tmp_path / "bad.pkl", elements=["Al", "Ni"])


@pytest.mark.parametrize(
    "missing, text",
    [
        (["ase_atoms"], "no column 'ase_atoms'"),
        (["forces"], "no column 'forces'"),
        (["energy", "energy_corrected"], "neither a column 'energy' nor"),
    ],
)
def test_missing_columns(tmp_path, missing, text):
    make_frame().drop(columns=missing).to_pickle(tmp_path / "bad.pkl")
    with pytest.raises(PacehpcError, match=rf"bad\.pkl: {text}"):
        load_dataset(tmp_path / "bad.pkl")


def test_no_rows_and_no_format(tmp_path):
    make_frame().iloc[:0].to_pickle(tmp_path / "none.pkl")
    with pytest.raises(PacehpcError, match="no structures"):
        load_dataset(tmp_path / "none.pkl")
    for content, text in ((b"", "empty"), (b"a,b\n1,2\n", "no pickled"), (b"\x1f\x8bxx", "damaged file")):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(PacehpcError, match=text):
            load_dataset(tmp_path / "file")
    with pytest.raises(PacehpcError, match="no files"):
        load_dataset([])
    with pytest.raises(PacehpcError, match="'Xx'"):
        make_frame().to_pickle(tmp_path / "a.pkl")
        load_dataset(tmp_path / "a.pkl", elements=["Al", "Ni", "Xx"])


def test_unusual_structures_are_normal(tmp_path):
    """Open, mixed and periodic; without a cell; one atom; a cell far smaller than any cutoff; atoms far outside."""
    frames = [
        Atoms("Al", [[5.0, 5, 5]]),
        Atoms("Al", [[0.0, 0, 0]], cell=[2.2, 2.2, 2.2], pbc=True),
        Atoms("Al2", [[0, 0, 0], [0, 0, 2.0]], cell=[3, 3, 0], pbc=[True, True, False]),
        Atoms("Al2", [[100, -250, 0], [0, 0, 2.0]], cell=[4, 0, 0], pbc=[True, False, False]),
        Atoms("AlNi", [[0, 0, 0], [3000.0, 0, 2.0]]),
    ]
    frame = pd.DataFrame({"energy_corrected": [-1.0] * 5})
    frame["ase_atoms"], frame["forces"] = frames, [np.zeros((len(a), 3)) for a in frames]
    frame.to_pickle(tmp_path / "a.pkl")
    data = load_dataset(tmp_path / "a.pkl")
    assert data.energy is None and (data.volumes > 0).tolist() == [False, True, False, False, False]
    assert data.pbc.sum(axis=1).tolist() == [0, 3, 2, 1, 0]


def test_stress_forms_and_units(tmp_path):
    tensor = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    frame = make_frame(4)
    frame["stress"] = pd.Series([tensor, np.arange(1.0, 7.0), None, np.nan], dtype=object)
    frame.to_pickle(tmp_path / "a.pkl")
    data = load_dataset(tmp_path / "a.pkl")
    assert data.stress[:2].tolist() == [[1, 2, 3, 4, 5, 6]] * 2 and np.isnan(data.stress[2:]).all()
    gpa = 160.21766208
    for units, factor in (("GPa", 1 / gpa), ("kbar", 0.1 / gpa), ("-kbar", -0.1 / gpa)):
        np.testing.assert_allclose(load_dataset(tmp_path / "a.pkl", stress_units=units).stress[1, 5], 6 * factor)
    with pytest.raises(PacehpcError, match="stress_units"):
        load_dataset(tmp_path / "a.pkl", stress_units="bar")
