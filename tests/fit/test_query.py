"""Fits of the result of a database query."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacehpc.dataset import Store
from pacehpc.dataset.database import ingest
from pacehpc.dataset.loading import read_raw
from pacehpc.errors import PacehpcError
from pacehpc.fit.plan import Tasks
from pacehpc.potential import Potential

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"


def test_a_query_whose_result_is_not_kept(fit, tmp_path):
    ingest(str(tmp_path / "all.db"), read_raw(DATA, rows=slice(30)), "DFT")
    query = {"element": ["Al", "Ni"], "ref_energy": 0.0, "cache_ref_df": False}
    code, folder = fit(data={"database": "all.db", "config": query}, fit__maxiter=1)
    assert code == 0 and not [path for path in folder.iterdir() if "df-" in path.name]
    assert len(Potential.load(folder / "output_potential.yaml").metadata["data_sha256"]) == 64


def test_a_folder_in_place_of_the_result_of_a_query(fit, tmp_path):
    ingest(str(tmp_path / "all.db"), read_raw(DATA, rows=slice(30)), "DFT")
    (tmp_path / "df-any-AlNi.pckl.gzip").mkdir()
    query = {"element": ["Al", "Ni"], "ref_energy": 0.0}
    with pytest.raises(PacehpcError, match=r"df-any-AlNi\.pckl\.gzip: the result .* \(Is a directory\)"):
        fit(Tasks(prepare=True), data={"database": "all.db", "config": query})


@pytest.mark.parametrize("datapath", [".", "kept"])
def test_a_query_whose_result_is_not_kept_leaves_what_was_kept(fit, tmp_path, datapath):
    """A result that an earlier fit kept is neither used, nor overwritten, nor removed."""
    ingest(str(tmp_path / "all.db"), read_raw(DATA, rows=slice(30)), "DFT")
    (tmp_path / "kept").mkdir()
    query = {"element": ["Al", "Ni"], "ref_energy": 0.0}
    data = {"database": "all.db", "datapath": datapath}
    fit(Tasks(prepare=True), data=data | {"config": query})
    kept = tmp_path / datapath / "df-any-AlNi.pckl.gzip"
    before = kept.read_bytes()
    code, folder = fit(Tasks(prepare=True), data=data | {"config": query | {"query_limit": 5, "cache_ref_df": False}})
    assert code == 0 and kept.read_bytes() == before
    assert list(folder.rglob("*df-*")) == [kept]
    with Store(folder / "prepared_data.h5") as store:
        assert store.n_structures == 5
