"""Shears in another order or sign than expected are found, group by group."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pacehpc.fit.shears import better_order, warn_of_shears


@pytest.fixture
def stresses() -> tuple[np.ndarray, np.ndarray]:
    """Stress of 12 structures in eV/Å³, and a prediction that is off by a tenth."""
    random = np.random.default_rng(3)
    right = random.normal(0, 0.01, (12, 6))
    return right, right + random.normal(0, 0.001, (12, 6))


@pytest.mark.parametrize("order, sign", [((2, 0, 1), 1), ((0, 1, 2), -1), ((1, 0, 2), -1), ((0, 1, 2), 1)])
def test_the_order_of_the_columns(stresses, order, sign):
    right, predicted = stresses
    found = better_order(sign * right[:, 3:][:, order], predicted[:, 3:])
    assert found[:2] == (order, sign) and np.sqrt(found[2]) < 0.0015


def test_a_group_in_the_order_of_vasp_is_named(stresses, caplog):
    right, predicted = stresses
    groups = np.repeat(["bulk", "shear"], 6)
    data = right.copy()
    data[6:] = data[6:, [0, 1, 2, 5, 3, 4]]  # xx yy zz xy yz zx
    with caplog.at_level(logging.WARNING):
        warn_of_shears(data, predicted, groups, "train")
    assert len(caplog.records) == 1
    assert "of the group 'shear'" in caplog.text and "xy yz xz (RMSE" in caplog.text


def test_right_small_few_and_unknown_stresses_say_nothing(stresses, caplog):
    right, predicted = stresses
    with caplog.at_level(logging.WARNING):
        warn_of_shears(right, predicted, np.repeat("all", 12), "train")
        warn_of_shears(-right[:4], predicted[:4], np.repeat("all", 4), "train")
        warn_of_shears(-1e-3 * right, 1e-3 * predicted, np.repeat("all", 12), "train")
        warn_of_shears(np.full((12, 6), np.nan), predicted, np.repeat("all", 12), "train")
        random = np.random.default_rng(4)  # a potential that knows nothing
        warn_of_shears(right, random.normal(0, 0.01, (12, 6)), np.repeat("all", 12), "train")
    assert not caplog.records
