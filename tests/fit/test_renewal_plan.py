from __future__ import annotations

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.fit.gauss_newton import Method
from pacehpc.fit.renewal_plan import plan_renewals, renewal_memory
from pacehpc.sketch import Sizes


def sizes(n_structures, n_atoms):
    return Sizes(np.array([3 * n_atoms]), np.array([n_structures]), np.array([n_structures * n_atoms]), 0)


def plan(n, n_structures, n_atoms, operations=1e12, energies=True, forces=True, memory=np.inf, **options):
    return plan_renewals(Method(**options), n, sizes(n_structures, n_atoms), operations, energies, forces, memory)


def test_as_few_combinations_as_make_twice_as_many_rows_as_parameters():
    found = plan(1000, 400, 20)
    assert (found.rows.combinations, found.rows.together, found.n_rows) == (4, 1, 2000)
    assert found.products and not found.reduced
    assert plan(1000, 400, 20, rows=1.0).rows.combinations == 2
    assert plan(1000, 400, 20, energies=False).rows.combinations == 5
    assert plan(1000, 400, 20, forces=False).n_rows == 400
    assert plan(10**5, 400, 20, renewal_cost=1e9).rows.combinations == 10  # the most
    assert plan(10**5, 400, 20, renewal_cost=1e9, combinations=12).rows.combinations == 12
    assert plan(10**5, 400, 2, renewal_cost=1e9).n_rows == 400 * 7  # small structures have no more
    # each combination of few large structures adds much, up to n rows
    assert plan(1000, 20, 200, renewal_cost=1e9).rows.combinations == 49
    assert plan(1000, 40, 200, renewal_cost=1e9, combinations=30).rows.combinations == 30


def test_rows_of_many_structures_are_added():
    found = plan(1000, 10_000, 9)
    assert (found.rows.combinations, found.rows.together, found.n_rows) == (1, 20, 1000)
    assert plan(100, 10**6, 9).n_rows <= 200


def test_dear_renewals_have_fewer_rows_and_come_less_often():
    whole = plan(2000, 1000, 9, operations=1e10)
    assert not whole.reduced and whole.products and whole.cost < 30
    dear = plan(10_000, 1000, 9, operations=3e9)
    assert dear.reduced and not dear.products and dear.cost <= 30
    dearer = plan(10_000, 1000, 9, operations=3e9, renewal_cost=200.0)
    assert dearer.n_rows > dear.n_rows and dearer.interval == round(4 * dearer.cost) > 100


def test_memory_makes_fewer_rows_and_then_an_error():
    n = 5000
    free = plan(n, 5000, 9)
    assert free.products
    limit = renewal_memory(free.n_rows, n, 100) - 1
    tight = plan(n, 5000, 9, memory=limit)
    assert tight.reduced and renewal_memory(tight.n_rows, n, 100) <= limit
    with pytest.raises(PacehpcError, match="L-BFGS-B"):
        plan(n, 5000, 9, memory=1e6)
