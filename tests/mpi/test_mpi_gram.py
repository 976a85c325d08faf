"""Products of columns of rows that are spread over ranks."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from launch import python

from pacehpc.gram import BLOCK, gram
from pacehpc.parallel import Ranks

CODE = """
import hashlib, sys
import numpy as np
from pacehpc.gram import gram
from pacehpc.parallel import Ranks
ranks = Ranks.world()
bounds = [int(word) for word in sys.argv[1].split(",")]
rows = np.random.default_rng(4).normal(size=(bounds[-1], 300))
own = rows[bounds[ranks.rank]:bounds[ranks.rank + 1]]
whole = ranks.rows_on_root(own)
found = gram(own.copy(), ranks)
if ranks.root:
    assert np.array_equal(whole, rows)
    print(hashlib.sha256(b"".join(part.tobytes() for part in found)).hexdigest())
"""
N = 3 * BLOCK + 50


@pytest.mark.parametrize("bounds", [[0, N], [0, 500, N], [0, 10, 20, N], [0, 0, N - 3, N], [0, BLOCK, 2 * BLOCK, N]])
def test_the_same_bits_however_the_rows_are_spread(bounds):
    done = python(len(bounds) - 1, CODE, ",".join(map(str, bounds)))
    assert done.returncode == 0, done.stderr
    found = gram(np.random.default_rng(4).normal(size=(N, 300)), Ranks())
    assert done.stdout.strip() == hashlib.sha256(b"".join(part.tobytes() for part in found)).hexdigest()
