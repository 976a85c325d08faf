"""MaxVol against determinants computed one by one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from pacehpc.active.maxvol import determined_columns, exchange, independent_rows


@pytest.mark.parametrize("seed", range(5))
def test_no_single_exchange_enlarges_the_determinant(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(30, 4)) * [1.0, 1e-3, 1e4, 1e-8]
    found = exchange(matrix, independent_rows(matrix), tolerance=1.0 + 1e-9, max_exchanges=1000)
    reached = abs(np.linalg.det(matrix[found.rows]))
    for place in range(4):
        for row in range(30):
            other = found.rows.copy()
            other[place] = row
            assert abs(np.linalg.det(matrix[other])) <= reached * (1 + 1e-8)
    coordinates = matrix @ np.linalg.inv(matrix[found.rows])
    assert found.largest == pytest.approx(np.abs(coordinates).max(), rel=1e-9)


def test_the_determinant_is_near_the_largest_of_all() -> None:
    """MaxVol's bound: within n^(n/2) of the largest; on small random matrices far closer."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        matrix = rng.normal(size=(10, 3))
        found = exchange(matrix, independent_rows(matrix), tolerance=1.0001, max_exchanges=1000)
        largest = max(abs(np.linalg.det(matrix[list(rows)])) for rows in combinations(range(10), 3))
        assert abs(np.linalg.det(matrix[found.rows])) > 0.5 * largest


def test_exchanges_are_limited() -> None:
    matrix = np.random.default_rng(1).normal(size=(200, 8))
    found = exchange(matrix, np.arange(8), tolerance=1.01, max_exchanges=2)
    assert found.n_exchanges == 2
    assert found.largest > 1.01


def test_independent_rows_do_not_depend_on_the_scale_of_columns() -> None:
    matrix = np.random.default_rng(2).normal(size=(50, 6))
    rows = independent_rows(matrix)
    assert len(set(rows.tolist())) == 6
    assert abs(np.linalg.det(matrix[rows])) > 1e-2
    np.testing.assert_array_equal(independent_rows(matrix * np.logspace(-8, 8, 6)), rows)


def test_columns_that_others_determine_are_left_out() -> None:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(40, 5))
    matrix[:, 3] = 0.0
    matrix[:, 4] = 1e-6 * (matrix[:, 0] - matrix[:, 2])
    columns, scale = determined_columns(matrix)
    assert len(columns) == 3
    assert 1 in columns and 3 not in columns
    np.testing.assert_allclose(scale, [*np.abs(matrix[:, :3]).max(axis=0), 1.0, np.abs(matrix[:, 4]).max()])
