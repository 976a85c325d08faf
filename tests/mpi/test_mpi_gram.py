"""Products of columns of rows that are spread over ranks."""

from __future__ import annotations

import pytest
from launch import python

from pacehpc.gram import BLOCK

CODE = """
import hashlib, sys
import numpy as np
from pacehpc.gram import gram
from pacehpc.parallel import Ranks
from pacehpc.spread_columns import SpreadColumns
ranks = Ranks.world()
bounds = [int(word) for word in sys.argv[1].split(",")]
rows = np.random.default_rng(4).normal(size=(bounds[-1], 300))
own = rows[bounds[ranks.rank]:bounds[ranks.rank + 1]]
columns = SpreadColumns(own, ranks)
assert columns.n_rows == len(rows)
random = np.random.default_rng(1)
v, w, weights = random.normal(size=300), random.normal(size=len(rows)), random.uniform(size=300)
products = [columns.squares(), columns.times(v), columns.transposed_times(w), *(columns.weighted_gram(weights) or ())]
found = gram(own.copy(), ranks)
if ranks.root:
    np.testing.assert_allclose(products[0], (rows**2).sum(axis=0), rtol=1e-13)
    np.testing.assert_allclose(products[1], rows @ v, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(products[2], rows.T @ w, rtol=1e-10, atol=1e-12)
    inner, scales, _ = products[3:]
    expected = np.tril((rows * weights) @ rows.T * np.outer(scales, scales))
    np.testing.assert_allclose(np.tril(inner), expected, rtol=1e-10, atol=1e-13)
    print(hashlib.sha256(b"".join(part.tobytes() for part in (*found, *products))).hexdigest())
"""
N = 3 * BLOCK + 50


@pytest.fixture(scope="module")
def alone():
    return run([0, N])


def run(bounds):
    done = python(len(bounds) - 1, CODE, ",".join(map(str, bounds)))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("bounds", [[0, 500, N], [0, 0, N - 3, N], [0, BLOCK, 2 * BLOCK, N], [0, 9, 20, 30, N]])
def test_the_same_bits_however_the_rows_are_spread(bounds, alone):
    """Products of a matrix of 300 columns; more ranks than blocks of columns, too."""
    assert run(bounds) == alone
