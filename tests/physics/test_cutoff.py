from __future__ import annotations

import numpy as np
import pytest

from pacehpc.physics.cutoff import cosine_step, smooth_step


def test_smooth_step_values():
    a, delta = 2.0, 0.5
    value, slope = smooth_step(np.array([0.1, 1.5, 1.625, 1.75, 1.875, 2.0, 3.0]), a, delta)
    quarter = 0.5 + 3.75 * (0.5 / 4 - 0.5**3 / 6 + 0.5**5 / 20)
    np.testing.assert_allclose(value, [1, 1, quarter, 0.5, 1 - quarter, 0, 0], atol=1e-15)
    assert slope[3] == pytest.approx(-15 / 16 * 2 / delta)
    assert np.all(slope[[0, 1, 5, 6]] == 0)


def test_smooth_step_joins_twice_continuously():
    h = 1e-4
    for edge in (1.5, 2.0):
        value, slope = smooth_step(np.array([edge - h, edge + h]), 2.0, 0.5)
        assert abs(value[1] - value[0]) < 100 * h**3
        assert abs(slope[1] - slope[0]) < 300 * h**2


def test_smooth_step_slope():
    r = np.linspace(1.4, 2.1, 57)
    h = 1e-6
    difference = (smooth_step(r + h, 2.0, 0.5)[0] - smooth_step(r - h, 2.0, 0.5)[0]) / (2 * h)
    np.testing.assert_allclose(smooth_step(r, 2.0, 0.5)[1], difference, atol=1e-8)


def test_smooth_step_of_no_width_is_a_jump():
    with np.errstate(all="raise"):
        value, slope = smooth_step(np.array([0.9, 1.0, 1.1]), 1.0, 0.0)
        at_zero, _ = smooth_step(np.array([0.0, 1.0]), 0.0, 0.0)
    assert value.tolist() == [1.0, 0.0, 0.0]
    assert slope.tolist() == [0.0, 0.0, 0.0]
    assert at_zero.tolist() == [0.0, 0.0]


def test_cosine_step():
    r = np.array([0.0, 4.0, 4.5, 5.0])
    value, slope = cosine_step(r, 4.0, 1.0)
    np.testing.assert_allclose(value, [1, 1, 0.5, 0], atol=1e-15)
    np.testing.assert_allclose(slope, [0, 0, -np.pi / 2, 0], atol=1e-15)
    with np.errstate(all="raise"):
        assert cosine_step(r, 5.0, 0.0)[0].tolist() == [1, 1, 1, 1]
