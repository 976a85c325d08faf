"""The lines that users' scripts read, to the letter."""

from __future__ import annotations

from pacehpc.report.lines import (
    counted,
    errors_block,
    initial_line,
    iteration_line,
    seconds_text,
    size_text,
    statistics,
)

METRICS = {
    "loss": 1.9159e-4,
    "e_loss_contrib": 1.6074e-4,
    "f_loss_contrib": 3.0859e-5,
    "l1_reg_contrib": 0.0,
    "l2_reg_contrib": 0.0,
    "smooth_w1": 0.0,
    "ncoefs": 232,
    "nfuncs": 86,
    "rmse_epa": 0.01793,
    "low_rmse_epa": 0.01673,
    "rmse_f_comp": 0.00786,
    "low_rmse_f_comp": 0.00706,
    "mae_epa": 0.01222,
    "low_mae_epa": 0.01111,
    "mae_f_comp": 0.00531,
    "low_mae_f_comp": 0.00330,
    "max_ae_epa": 0.05319,
    "low_max_ae_epa": 0.03830,
    "max_ae_f": 0.03519,
    "low_max_ae_f": 0.02032,
    "rmse_stress": float("nan"),
}

BLOCK = """\
Iteration:  #1000   Loss:  Total: 1.9159e-04 (100%)
                          Energy: 1.6074e-04 ( 84%)
                           Force: 3.0859e-05 ( 16%)
                              L1: 0.0000e+00 (  0%)
                              L2: 0.0000e+00 (  0%)
Number of params./funcs:  232/86                     Avg. time: 526.93 mcs/at
-------------------------------------------------------------------------------------------------
          Energy/at, meV/at   Energy_low/at, meV/at   Force, meV/A   Force_low, meV/A
   RMSE:        17.93                 16.73               7.86             7.06
    MAE:        12.22                 11.11               5.31             3.30
 MAX_AE:        53.19                 38.30              35.19            20.32
-------------------------------------------------------------------------------------------------"""


def test_iteration_line():
    metrics = METRICS | {"loss": 1.92e-4, "rmse_epa": 0.01795, "low_rmse_epa": 0.01679}
    assert iteration_line(12, 13, metrics, 526.93e-6) == (
        "Iteration   #12 (13 evals):  Loss: 1.9200e-04 | RMSE Energy(low): 17.95 (16.79) meV/at | "
        "Forces(low): 7.86 (7.06) meV/A | Time/eval: 526.93 mcs/at"
    )


def test_initial_lines():
    rest = "#0    (1 evals):  Loss: 1.9159e-04 | RMSE Energy(low): 17.93 (16.73) meV/at | "
    for test, start in ((False, "Initial state:"), (True, "Initial(TEST):")):
        assert initial_line(METRICS, 1e-6, test).startswith(start + rest)


def test_errors_block():
    assert errors_block(1000, METRICS, 526.93e-6) == BLOCK


def test_statistics_begin_with_an_empty_line_and_a_framed_title():
    empty, title, *block = statistics("TEST STATS", 1000, METRICS, 526.93e-6).split("\n")
    assert (empty, title) == ("", 44 * "-" + "TEST STATS" + 44 * "-")
    assert "\n".join(block) == BLOCK


def test_terms_in_use_are_shown():
    metrics = METRICS | {"s_loss_contrib": 1.9159e-5, "smooth_w2": 1e-9, "rmse_stress": 0.25}
    lines = errors_block(3, metrics, 1e-6).splitlines()
    assert lines[0] == "Iteration:  #3   Loss:     Total: 1.9159e-04 (100%)"
    assert "                          Stress: 1.9159e-05 ( 10%)" in lines
    assert "                       Smooth_w2: 1.0000e-09 (  0%)" in lines
    assert not any("Smooth_w1" in line for line in lines)
    assert lines[-1] == " Stress:  RMSE 0.2500 GPa"


def test_long_iteration_numbers_and_an_empty_loss():
    zero = METRICS | {"loss": 0.0, "e_loss_contrib": 0.0, "f_loss_contrib": 0.0}
    lines = errors_block(123456789, zero, 0.0).splitlines()
    assert lines[0] == "Iteration:  #123456789   Loss:  Total: 0.0000e+00 (100%)"
    assert lines[1].endswith("0.0000e+00 (  0%)")


def test_numbers_in_words():
    assert [counted(n, "rank") for n in (0, 1, 2)] == ["0 ranks", "1 rank", "2 ranks"]
    assert [size_text(n) for n in (0, 512, 1010 * 1024, 6.2 * 2**20, 3 * 2**40)] == [
        "0 B", "512 B", "1010 KiB", "6.2 MiB", "3072 GiB",
    ]  # fmt: skip
    assert [seconds_text(s) for s in (7.06e-4, 0.25, 12.34)] == ["0.706 ms", "250 ms", "12.3 s"]
