from __future__ import annotations

import numpy as np
import pytest

from pacehpc.gram import BLOCK, gram
from pacehpc.parallel import Ranks


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (BLOCK, 10), (3 * BLOCK + 7, 2 * BLOCK + 5)])
def test_products_of_columns(shape):
    rng = np.random.default_rng(3)
    rows = rng.normal(size=shape) * 10.0 ** rng.uniform(-8, 3, shape[1])
    products, scales, squares = gram(rows.copy(), Ranks())
    expected = rows.T @ rows
    np.testing.assert_allclose(squares, np.diag(expected), rtol=1e-13)
    assert np.array_equal(np.log2(scales), np.round(np.log2(scales)))
    lower = np.tril(np.ones_like(expected, bool))
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    error = np.abs(products / np.outer(scales, scales) - expected) / size
    assert error[lower].max() < 1e-14
    assert np.abs(products[lower]).max() <= 1 + 1e-12


def test_columns_of_zeros():
    rows = np.ones((4, 3))
    rows[:, 1] = 0.0
    products, scales, squares = gram(rows, Ranks())
    assert squares.tolist() == [4.0, 0.0, 4.0] and scales[1] == 1.0
    assert not products[1, :2].any() and products[2, 1] == 0.0
