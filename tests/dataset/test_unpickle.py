"""Frames of any pandas, with columns of any kind, hold the same numbers."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from dataset_samples import make_frame

from pacehpc.dataset import load_dataset
from pacehpc.dataset.arrow import arrow_values
from pacehpc.dataset.pickle_classes import ArrowArray, ArrowBuffer, ArrowType, Refused
from pacehpc.errors import PacehpcError

SAMPLES = Path(__file__).parent / "frames"
FIRST_ENERGY, FIRST_FORCE = 0.35507973974270257, 0.9835906287325233


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.iterdir()))
def test_frames_of_other_programs(name):
    """Texts as Arrow arrays, of protocols 4 and 5; atoms of pymatgen; atoms with a calculator of their own."""
    data = load_dataset(SAMPLES / name, reference_energy=0.0)
    assert data.energy[0] == FIRST_ENERGY and data.flat_forces[0, 0] == FIRST_FORCE and len(data) in (6, 8)
    if name.startswith(("arrow", "p5")):
        assert data.names == [f"s{k}" for k in range(8)]


VERSIONS = Path(__file__).parent / "frames_of_versions"


@pytest.mark.parametrize("name", sorted(path.name for path in VERSIONS.iterdir()))
def test_frames_of_other_versions(name):
    """Written by the pandas and NumPy in the name, with numbers and texts in extension and Arrow arrays."""
    data = load_dataset(VERSIONS / name, reference_energy=0.0)
    assert data.energy.tolist() == [-1, -2, -3, -4] and data.names == ["s0", "s1", "s2", "s3"]
    np.testing.assert_allclose(data.flat_forces[:, 0], np.repeat([0, 0.1, 0.2, 0.3], 2))


ODD = {
    "date": [datetime.datetime(2026, 1, k + 1) for k in range(4)],
    "day": pd.to_datetime(["2026-01-01"] * 4),
    "category": pd.Categorical(["a", "b", "a", "b"]),
    "count": pd.array([1, 2, None, 4], dtype="Int64"),
    "set": [{1, 2}] * 4,
    "interval": pd.interval_range(0, 4),
    "period": pd.period_range("2026-01", periods=4, freq="M"),
    "complex": [1j] * 4,
    "text": pd.array(["a", None, "b", "c"], dtype="string"),
    "w_energy": ["heavy"] * 4,
    "delta": pd.to_timedelta([1, 2, 3, 4], unit="s"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_columns_that_no_fit_uses_refuse_nothing(tmp_path, name, protocol):
    make_frame(**{name: ODD[name]}).to_pickle(tmp_path / "a.pkl", protocol=protocol)
    data = load_dataset(tmp_path / "a.pkl")
    assert data.energy_corrected.tolist() == [-1, 0, 1, 2] and data.forces[3][0].tolist() == [0.1 * 3] * 3


@pytest.mark.parametrize(
    "energies",
    [
        [[-1.0], [0.0], [1.0], [2.0]],
        [np.array([-1.0]), np.array([0.0]), np.array([[1.0]]), np.array(2.0)],
        ["-1.0", "0.0", "1.0d0", "0.2E+01"],
        pd.array([-1, 0, 1, 2], dtype="Float64"),
        pd.array([-1, 0, 1, 2], dtype="Int64"),
        pd.Categorical([-1.0, 0.0, 1.0, 2.0]),
        np.array([-1, 0, 1, 2], dtype=">f4"),
    ],
)
def test_numbers_in_other_clothes(tmp_path, energies):
    make_frame(energy_corrected=energies).to_pickle(tmp_path / "a.pkl")
    assert load_dataset(tmp_path / "a.pkl").energy_corrected.tolist() == [-1, 0, 1, 2]


def test_forces_in_other_clothes(tmp_path):
    frame = make_frame()
    forces = list(frame.forces)
    masked = np.ma.MaskedArray(forces[3], mask=[[False] * 3, [True, False, False]])
    odd = [forces[0].tolist(), np.matrix(forces[1]), forces[2].astype(object), masked]
    frame["forces"] = pd.Series(odd, dtype=object)
    frame.to_pickle(tmp_path / "a.pkl")
    data = load_dataset(tmp_path / "a.pkl")
    np.testing.assert_array_equal(data.flat_forces[:7], np.concatenate(forces)[:7])
    assert np.isnan(data.flat_forces[7]).all() and data.flat_w_forces[7] == 0 and data.flat_w_forces[:7].all()


@pytest.mark.parametrize(
    "index, labels",
    [
        (pd.MultiIndex.from_product([["a", "b"], [0, 1]]), ["a 0", "a 1", "b 0", "b 1"]),
        (pd.date_range("2026-01-01", periods=4), [0, 1, 2, 3]),
        (pd.CategoricalIndex(["x", "y", "z", "u"]), [0, 1, 2, 3]),
        (pd.Index(["x", "y", "z", "u"]), ["x", "y", "z", "u"]),
    ],
)
def test_row_labels_of_any_kind(tmp_path, index, labels):
    make_frame().set_index(index).to_pickle(tmp_path / "a.pkl")
    assert load_dataset(tmp_path / "a.pkl").index == labels


def test_columns_in_levels(tmp_path):
    frame = make_frame()
    frame.columns = pd.MultiIndex.from_tuples([(name, "") for name in frame.columns])
    frame.to_pickle(tmp_path / "a.pkl")
    assert load_dataset(tmp_path / "a.pkl").energy.tolist() == [-5, -4, -3, -2]


class MyAtoms(Atoms):
    """A class of a user's own."""


def test_atoms_of_derived_classes_and_their_calculators(tmp_path, caplog):
    frame = make_frame()
    frame["ase_atoms"] = [MyAtoms(a) for a in frame.ase_atoms]
    frame.ase_atoms[0].calc = EMT()
    frame.to_pickle(tmp_path / "a.pkl")
    with caplog.at_level("INFO"):
        data = load_dataset(tmp_path / "a.pkl")
    np.testing.assert_array_equal(data.positions, np.concatenate([a.positions for a in frame.ase_atoms]))
    assert "calculators in the atoms are not used: ase.calculators.emt.EMT" in caplog.text


def test_what_cannot_be_read_is_named_with_a_cure_that_works(tmp_path):
    frame = make_frame(energy_corrected=pd.arrays.SparseArray([-1.0, 0.0, 1.0, 2.0]))
    frame.to_pickle(tmp_path / "a.pkl")
    with pytest.raises(PacehpcError, match=r"a\.pkl: column 'energy_corrected' cannot be read: .*plain objects"):
        load_dataset(tmp_path / "a.pkl")
    frame["energy_corrected"] = pd.Series(list(frame["energy_corrected"]), index=frame.index, dtype=object)
    frame.to_pickle(tmp_path / "a.pkl")
    assert load_dataset(tmp_path / "a.pkl").energy_corrected.tolist() == [-1, 0, 1, 2]


def arrow(kind: str, length: int, offset: int, *buffers: bytes | None) -> ArrowArray:
    return ArrowArray(
        (ArrowType(kind), length, 0, offset, [None if b is None else ArrowBuffer(b) for b in buffers], [], None)
    )


def test_arrow_buffers():
    """By the columnar format's own description: bits of validity, offsets, bytes; a slice begins at its offset."""
    ends = np.array([0, 1, 3, 3, 6], np.int32).tobytes()
    assert arrow_values(arrow("string", 4, 0, b"\x0b", ends, b"a\xc3\xa4xyz")).tolist() == ["a", "ä", None, "xyz"]
    assert arrow_values(arrow("string", 2, 1, None, ends, b"a\xc3\xa4xyz")).tolist() == ["ä", ""]
    numbers = np.array([1.5, 2.5, 3.5]).tobytes()
    np.testing.assert_array_equal(arrow_values(arrow("double", 3, 0, b"\x05", numbers)), [1.5, np.nan, 3.5])
    assert arrow_values(arrow("bool", 3, 1, None, b"\x0a")).tolist() == [True, False, True]
    for bad in (
        arrow("double", 4, 0, None, numbers),
        arrow("string", 4, 0, None, ends, b"a"),
        arrow("string", 9, 0, b"\xff", ends, b"abcdef"),
        arrow("list", 1, 0, None, numbers),
    ):
        with pytest.raises(Refused):
            arrow_values(bad)


def test_every_frame_of_the_field(shared):
    """Shapes that are wrong are named; all others hold the first structure's energy and force."""
    wrong = {"f_T": r"forces has shape \(3, 4\)", "f_df": "not an array of numbers", "f_flat": r"shape \(12,\)",
             "w_n3": r"w_forces has shape \(4, 3\).*ignore_weights"}  # fmt: skip
    for folder in ("arrow", "atoms_flavours", "column_types"):
        for path in sorted(shared(f"cases/{folder}").iterdir()):
            if path.suffix == ".py":
                continue
            name = path.name.split(".")[0]
            if name in wrong:
                with pytest.raises(PacehpcError, match=wrong[name]):
                    load_dataset(path, reference_energy=0.0)
                continue
            data = load_dataset(path, reference_energy=0.0)
            assert data.energy[0] == pytest.approx(FIRST_ENERGY, abs=1e-8), path
            assert data.flat_forces[0, 0] == pytest.approx(FIRST_FORCE, abs=1e-7), path
            assert data.stress is None or data.stress.shape == (len(data), 6)
