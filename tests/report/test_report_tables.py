"""Tables of metrics: columns, one header, rows that survive a kill."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd

from pacehpc.report.tables import COLUMNS, MetricsTable, read_table

KNOWN = (
    "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp low_rmse_epa "
    "low_rmse_f_comp mae_f_comp low_mae_f_comp nfuncs ncoefs l1_reg_contrib l2_reg_contrib smooth_orth smooth_w1 "
    "smooth_w2 smooth_w3"
)


def row(k: int) -> dict[str, float]:
    return dict.fromkeys(COLUMNS, 0.1 * k) | {
        "ladder_step": 0,
        "cycle_step": 1,
        "iter_num": k,
        "nfuncs": 5,
        "ncoefs": 9,
    }


def test_known_columns_come_first():
    assert " ".join(COLUMNS[:21]) == KNOWN
    assert len(set(COLUMNS)) == len(COLUMNS)


def test_rows_and_one_header(tmp_path):
    path = tmp_path / "metrics.txt"
    for k in range(3):
        with MetricsTable(path) as table:
            table.append(row(k))
    lines = path.read_text().splitlines()
    assert len(lines) == 4 and lines[0].split(" ") == list(COLUMNS)
    assert lines[3].split(" ")[:4] == ["0", "1", "2", "0.2"]
    for separator in (" ", r"\s+"):
        frame = pd.read_csv(io.StringIO(path.read_text()), sep=separator)
        assert list(frame["iter_num"]) == [0, 1, 2]
    np.testing.assert_allclose(read_table(path)["loss"], [0, 0.1, 0.2])


def test_rows_are_readable_while_the_table_is_open(tmp_path):
    table = MetricsTable(tmp_path / "metrics.txt")
    table.append(row(7))
    assert read_table(tmp_path / "metrics.txt")["iter_num"] == [7]
    table.close()


def test_missing_values_are_nan_and_others_are_left_out(tmp_path):
    with MetricsTable(tmp_path / "metrics.txt") as table:
        table.append({"loss": 1.0, "iter_num": 3, "unheard_of": 2.0})
    columns = read_table(tmp_path / "metrics.txt")
    assert columns["loss"] == [1.0] and np.isnan(columns["rmse_epa"]).all() and "unheard_of" not in columns


def test_a_torn_line_is_removed(tmp_path):
    path = tmp_path / "metrics.txt"
    with MetricsTable(path) as table:
        table.append(row(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b"0 1 2 0.0")
    assert len(read_table(path)["loss"]) == 1
    with MetricsTable(path) as table:
        assert path.read_bytes() == whole
        table.append(row(2))
    assert list(read_table(path)["iter_num"]) == [1, 2]
    path.write_bytes(b"ladder_st")
    MetricsTable(path).close()
    assert path.read_text().split() == list(COLUMNS)


def test_an_older_table_keeps_its_columns(tmp_path):
    path = tmp_path / "metrics.txt"
    path.write_text("iter_num loss\n1 0.5\n")
    with MetricsTable(path) as table:
        table.append(row(2))
    assert path.read_text() == "iter_num loss\n1 0.5\n2 0.2\n"


def test_no_table(tmp_path):
    assert read_table(tmp_path / "absent.txt") == {}


def test_a_header_that_the_user_cut_off_comes_back(tmp_path):
    path = tmp_path / "metrics.txt"
    with MetricsTable(path) as table:
        for k in range(4):
            table.append({"ladder_step": 0, "cycle_step": 0, "iter_num": k, "loss": 1.0 / (k + 1)})
    whole = path.read_text()
    path.write_text("\n".join(whole.split("\n")[3:]))
    with MetricsTable(path) as table:
        table.append({"ladder_step": 0, "cycle_step": 0, "iter_num": 3, "loss": 9.0})  # is there
        table.append({"ladder_step": 0, "cycle_step": 0, "iter_num": 4, "loss": 0.2})
    found = read_table(path)
    assert found["iter_num"].tolist() == [2, 3, 4] and np.allclose(found["loss"], [1 / 3, 0.25, 0.2])
    assert list(tmp_path.iterdir()) == [path]


def test_a_remark_of_the_user_between_rows_is_no_row(tmp_path):
    path = tmp_path / "metrics.txt"
    path.write_text("iter_num loss\n0 2.0\n# restarted by hand\n1 1.0\n")
    assert read_table(path)["loss"].tolist() == [2.0, 1.0]
