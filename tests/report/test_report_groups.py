"""Errors by group and the worst structures, against plain sums over the structures."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from pacehpc.dataset.groups import group_labels
from pacehpc.report import groups
from pacehpc.report.colours import Colours
from pacehpc.report.figures import data_title


@pytest.mark.parametrize(
    ("names", "types", "wanted"),
    [
        (["a", "b", "c", "d"], ["bulk", "bulk", "slab", "slab"], ["bulk", "bulk", "slab", "slab"]),
        (["bulk_1", "bulk_2", "slab/1", "slab/2"], [None] * 4, ["bulk", "bulk", "slab", "slab"]),
        (["bulk-fcc-1x", "bulk-bcc-2y", "slab-111-a", "slab-100-b"], [None] * 4, ["bulk", "bulk", "slab", "slab"]),
        (["bulk_1", "bulk_2", "", ""], [None] * 4, ["bulk", "bulk", "others", "others"]),
        (["", "", "", ""], [None] * 4, ["others"] * 4),
        (["one", "two", "three", "four"], [None] * 4, ["others"] * 4),
        (["x_1", "x_2", "x_3", "x_4"], ["all"] * 4, ["others"] * 4),
    ],
)
def test_groups_come_from_config_type_or_names(names, types, wanted):
    info = [{} if kind is None else {"config_type": kind} for kind in types]
    assert group_labels(names, info).tolist() == wanted


@pytest.fixture
def errors():
    rng = np.random.default_rng(0)
    counts = np.array([1, 4, 2, 8, 3, 2])
    offsets = np.concatenate(([0], np.cumsum(counts)))
    energy, force = rng.normal(0, 0.01, 6) * counts, rng.normal(0, 0.1, (offsets[-1], 3))
    energy[2], force[offsets[4] : offsets[5]] = np.nan, np.nan  # without reference values
    force[offsets[3]] = [0.0, 3.0, 0.0]
    labels = np.array(["a", "b", "a", "b", "a", "b"], dtype=object)
    made = groups.structure_errors(list(range(10, 16)), [""] * 6, ["data.xyz"] * 6, labels, offsets, energy, force)
    return made, counts, offsets, energy, force


def test_errors_of_groups_are_those_of_their_structures(errors):
    made, counts, offsets, energy, force = errors
    rows = {row["group"]: row for row in groups.group_rows(made)}
    for group, members in (("a", [0, 2, 4]), ("b", [1, 3, 5])):
        per_atom = np.array([energy[k] / counts[k] for k in members])
        per_atom = per_atom[np.isfinite(per_atom)]
        components = np.concatenate([force[offsets[k] : offsets[k + 1]].ravel() for k in members])
        components = components[np.isfinite(components)]
        row = rows[group]
        assert (row["structures"], row["atoms"]) == (3, counts[members].sum())
        assert row["rmse_epa"] == pytest.approx(np.sqrt(np.mean(per_atom**2)))
        assert row["mae_epa"] == pytest.approx(np.mean(np.abs(per_atom)))
        assert row["max_ae_epa"] == pytest.approx(np.abs(per_atom).max())
        assert row["rmse_f_comp"] == pytest.approx(np.sqrt(np.mean(components**2)))
        assert row["mae_f_comp"] == pytest.approx(np.mean(np.abs(components)))
        assert row["max_ae_f"] == pytest.approx(np.abs(components).max())


def test_the_worst_come_first_and_are_named(errors, tmp_path):
    made, *_ = errors
    rows = groups.worst_rows(made, 3)
    assert len(rows) == 3 and rows[0]["label"] == 13 and rows[0]["max_ae_f"] == 3.0
    groups.write_rows(tmp_path / "worst.csv", groups.WORST_COLUMNS, rows)
    with open(tmp_path / "worst.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["label"] for row in read] == [str(row["label"]) for row in rows]
    assert float(read[0]["rmse_f_comp"]) == pytest.approx(rows[0]["rmse_f_comp"], rel=1e-8)
    first = groups.worst_text(rows, with_groups=True).splitlines()[1]
    assert first.endswith("row 13 of data.xyz, b") and "3000.00" in first


def test_colours_of_points():
    labels = np.array([f"g{k}" for k in range(14) for _ in range(20 - k)], dtype=object)
    colours = Colours.of(labels)
    assert len(colours.names) == 10 and colours.names[:2] == ["g0", "g1"] and colours.names[-1] == "5 more"
    assert colours.number[0] == 0 and colours.number[-1] == 9
    assert Colours.of(np.array(["x", "x"], dtype=object)) is None and Colours.of(None) is None
    assert data_title("train", 1) == "Training set, 1 structure"
    assert data_title("test", 1200) == "Test set, 1,200 structures"
