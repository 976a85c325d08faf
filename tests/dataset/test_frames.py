"""Frames as users have them: old and new pickles, compressions, several files, and frames written for users."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from dataset_samples import make_frame

from pacehpc.dataset import frame_of, load_dataset, write_frame
from pacehpc.errors import PacehpcError


def test_public_data(shared):
    """The counts that the data's own README states; labels, energies and forces as pandas sees them."""
    for name, n_structures, n_atoms, elements in (
        ("exmpl_df.pckl.gzip", 174, 449, "Al Ni"),
        ("Cu_df1_A1_A2_A3_EV_elast_phon.pckl.gzip", 105, 368, "Cu"),
        ("ethanol.pckl.gzip", 1000, 9000, "C H O"),
        ("HEA_randII_example.pckl.gzip", 20, 3600, "Co Cr Fe Mn Ni"),
    ):
        data = load_dataset(shared("data") / name)
        assert (len(data), data.n_atoms, data.elements) == (n_structures, n_atoms, tuple(elements.split()))
        assert data.pbc.all() == (name != "ethanol.pckl.gzip")
        assert data.w_energy.sum() == pytest.approx(1) and data.flat_w_forces.sum() == pytest.approx(1)
        assert np.abs(data.flat_forces).max() > 1e-3
    # pandas itself can read the frame that was pickled as pandas.DataFrame
    frame = pd.read_pickle(shared("data") / "exmpl_df.pckl.gzip", compression="gzip")
    data = load_dataset(shared("data") / "exmpl_df.pckl.gzip")
    assert data.index == frame.index.tolist()
    np.testing.assert_array_equal(data.energy_corrected, frame.energy_corrected)
    for mine, forces, a, b in zip(data.forces, frame.forces, data.atoms, frame.ase_atoms, strict=True):
        np.testing.assert_array_equal(mine, forces)
        assert a == b and (a.pbc == b.pbc).all() and a.calc is None


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_protocols_and_compressions(tmp_path, protocol, pack):
    frame = make_frame(name=["a", "b", "c", "d"], date=[1, 2, 3, 4])
    frame.index = [10, 11, 17, 19]
    (tmp_path / "any.name").write_bytes(pack(pickle.dumps(frame, protocol=protocol)))
    data = load_dataset(tmp_path / "any.name")
    assert data.index == [10, 11, 17, 19] and data.names == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(data.energy, frame.energy)
    np.testing.assert_array_equal(data.forces[3], frame.forces.iloc[3])
    np.testing.assert_array_equal(data.cells[2], np.diag([3, 3, 5]))
    assert data.info[1] == {"tag": "t1"}
    assert [a.calc for a in data.atoms] == [None] * 4 and not data.atoms[0].constraints


def test_what_is_written_is_read_by_pandas_and_here(tmp_path, caplog):
    random = np.random.default_rng(0)
    stress = [random.normal(size=6), None, random.normal(size=6), random.normal(size=6)]
    make_frame(name=["a", "augmented b", "c", "d"], stress=stress).to_pickle(
        tmp_path / "in.pckl.gzip", compression="gzip"
    )
    data = load_dataset(tmp_path / "in.pckl.gzip", rows=slice(1, 4))
    write_frame(
        frame_of(data, {"energy_pred": data.energy + 1, "forces_pred": data.forces}), tmp_path / "out.pckl.gzip"
    )
    frame = pd.read_pickle(tmp_path / "out.pckl.gzip", compression="gzip")
    assert list(frame.columns) == [
        "name", "ase_atoms", "energy", "energy_corrected", "forces", "stress", "energy_corrected_per_atom",
        "NUMBER_OF_ATOMS", "w_energy", "w_forces", "energy_pred", "forces_pred",
    ]  # fmt: skip
    assert frame.index.tolist() == [1, 2, 3] and frame.NUMBER_OF_ATOMS.tolist() == [2, 2, 2]
    np.testing.assert_allclose(frame.energy_corrected_per_atom, np.array([0, 1, 2]) / 2)
    assert frame.w_energy.sum() == pytest.approx(1)
    assert sum(w.sum() for w in frame.w_forces) == pytest.approx(1)
    assert frame.w_energy.iloc[0] == pytest.approx(1e-4 * frame.w_energy.iloc[1])  # augmented
    assert isinstance(frame.ase_atoms.iloc[0], Atoms) and frame.forces_pred.iloc[2].shape == (2, 3)
    again = load_dataset(tmp_path / "out.pckl.gzip", aug_factor=1.0)  # the weights in the file contain it
    for name in ("positions", "flat_forces", "stress", "energy_corrected", "w_energy", "flat_w_forces", "cells", "pbc"):
        np.testing.assert_allclose(getattr(again, name), getattr(data, name), rtol=1e-15, err_msg=name)
    assert again.weighting == "columns" and again.names == data.names
    raw = gzip.decompress((tmp_path / "out.pckl.gzip").read_bytes())
    assert raw[1] == 4 and b"StringArray" not in raw  # older pandas reads it, too
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pckl.gzip", "out.pckl.gzip"]


def test_notes_of_atoms_that_are_read_are_written_so_that_they_are_read_again(tmp_path):
    frame = make_frame()
    frame.ase_atoms[0].info |= {"kept": np.float32(0.5), "complex": np.complex64(1j), "bytes": np.bytes_(b"x")}
    frame.to_pickle(tmp_path / "in.pckl.gzip", compression="gzip")
    data = load_dataset(tmp_path / "in.pckl.gzip")
    write_frame(frame_of(data), tmp_path / "out.pckl.gzip")
    assert data.info[0] == load_dataset(tmp_path / "out.pckl.gzip").info[0] == {"tag": "t0", "kept": 0.5}


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_frame(make_frame(), tmp_path / "a.pckl.gzip")
    good = (tmp_path / "a.pckl.gzip").read_bytes()

    class Unpicklable:
        def __reduce__(self):
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_frame(make_frame(name=[Unpicklable()] * 4), tmp_path / "a.pckl.gzip")
    assert (tmp_path / "a.pckl.gzip").read_bytes() == good and len(list(tmp_path.iterdir())) == 1


def test_several_files_and_where_they_are_looked_for(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    make_frame(3).to_pickle(tmp_path / "one/a.pckl.gzip", compression="gzip")
    make_frame(2).to_pickle(tmp_path / "two/b.pkl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACEMAKERDATAPATH", str(tmp_path / "two"))
    data = load_dataset(["a.pckl.gzip", "b.pkl"], datapath="one")
    assert len(data) == 5 and data.index == [0, 1, 2, 3, 4] and data.source.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(data.cells[:, 2, 2], [3, 4, 5, 3, 4])
    assert data.where(4) == f"{tmp_path}/two/b.pkl, row 4"
    assert data.w_energy.tolist() == [0.2] * 5
    with pytest.raises(PacehpcError, match=r"not found.*one/none\.gz.*two/none\.gz"):
        load_dataset("none.gz", datapath="one")


def test_rows_and_subsets(tmp_path):
    make_frame(5).to_pickle(tmp_path / "a.gz")
    assert load_dataset(tmp_path / "a.gz", rows=slice(0, 2)).index == [0, 1]
    data = load_dataset(tmp_path / "a.gz", rows=[4, 0])
    assert data.index == [4, 0] and data.rows.tolist() == [4, 0] and data.w_energy.tolist() == [0.5, 0.5]
    np.testing.assert_array_equal(data.cells[0], np.diag([3, 3, 7]))
    with pytest.raises(PacehpcError, match="positions from 0 to 4"):
        load_dataset(tmp_path / "a.gz", rows=[5])


def test_columns_of_other_programs_are_dropped_with_a_line(tmp_path, caplog):
    module = "pyace.catomicenvironment"
    cls = type("ACEAtomicEnvironment", (), {"__module__": module})
    import sys
    import types

    fake = types.ModuleType(module)
    fake.ACEAtomicEnvironment = cls
    sys.modules.update({"pyace": types.ModuleType("pyace"), module: fake})
    try:
        frame = make_frame(atomic_env=[cls() for _ in range(4)])
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(frame))
    finally:
        del sys.modules["pyace"], sys.modules[module]
    with caplog.at_level("INFO", "pacehpc"):
        data = load_dataset(tmp_path / "a.pkl")
    assert len(data) == 4
    assert [r.message for r in caplog.records if "dropped" in r.message and "atomic_env" in r.message]
