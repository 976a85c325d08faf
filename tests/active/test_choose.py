"""The choice of active sets: the same on any ranks, and right where functions are undetermined."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from pacehpc.active.choose import Chosen, Limits, choose
from pacehpc.active.select import rows_of

DEFAULTS = Limits()


class Threads:
    """Ranks that are threads of this process."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.values = size, Barrier(size), [None] * size

    def of(self, rank: int) -> Threads.One:
        return Threads.One(self, rank)

    class One:
        def __init__(self, all_ranks: Threads, rank: int) -> None:
            self.all, self.rank, self.size, self.root = all_ranks, rank, all_ranks.size, rank == 0

        def gather(self, value: Any) -> list | None:
            self.all.values[self.rank] = value
            self.all.barrier.wait(60)
            found = list(self.all.values)
            self.all.barrier.wait(60)
            return found if self.root else None

        def broadcast(self, value: Any) -> Any:
            if self.root:
                self.all.values[0] = value
            self.all.barrier.wait(60)
            found = self.all.values[0]
            self.all.barrier.wait(60)
            return found


def chosen(rows: dict[str, np.ndarray], bounds: list[int], size: int, limits: Limits = DEFAULTS) -> dict[str, Chosen]:
    """Choose among rows cut into blocks at `bounds`, the blocks spread over `size` ranks."""
    n_blocks, ranks = len(bounds) - 1, Threads(size)

    def of_rank(rank: int) -> dict[str, Chosen]:
        def blocks() -> Iterator:
            for k in range(rank * n_blocks // size, (rank + 1) * n_blocks // size):
                span = slice(bounds[k], bounds[k + 1])
                yield k, {e: (np.arange(len(a))[span], a[span]) for e, a in rows.items()}

        return choose(blocks, {e: a.shape[1] for e, a in rows.items()}, ranks.of(rank), limits)

    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(of_rank, range(size)))
    for other in found[1:]:
        for element, choice in found[0].items():
            np.testing.assert_array_equal(other[element].inverse, choice.inverse)
    return found[0]


@pytest.fixture
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    scale = np.logspace(0, -6, 12)
    aluminium = rng.normal(size=(900, 12)) @ rng.normal(size=(12, 12)) * scale
    return {"Al": aluminium, "Ni": rng.normal(size=(700, 7)) @ rng.normal(size=(7, 7))}


BOUNDS = [0, 40, 41, 200, 201, 330, 500, 777, 900]


def test_no_atom_of_the_data_is_above_the_tolerance(rows: dict[str, np.ndarray]) -> None:
    found = chosen(rows, BOUNDS, 1)
    for element, choice in found.items():
        grades = np.abs(rows[element] @ choice.inverse).max(axis=1)
        assert grades.max() == pytest.approx(choice.largest, rel=1e-8)
        assert choice.largest <= 1.01
        assert choice.converged
        np.testing.assert_allclose(choice.rows, rows[element][choice.atoms])
        np.testing.assert_allclose(choice.inverse @ choice.rows, np.eye(len(choice.rows)), atol=1e-9)
        assert choice.log_determinant == pytest.approx(np.linalg.slogdet(choice.rows)[1])
        assert choice.n_atoms == len(rows[element])


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_the_same_set_on_any_ranks(rows: dict[str, np.ndarray], size: int) -> None:
    one, many = chosen(rows, BOUNDS, 1), chosen(rows, BOUNDS, size)
    for element, choice in one.items():
        np.testing.assert_array_equal(many[element].atoms, choice.atoms)
        np.testing.assert_array_equal(many[element].inverse, choice.inverse)


def test_functions_that_the_data_do_not_determine() -> None:
    """Two zero columns and one that is a sum of others: rank n - 3, and the pseudo-inverse gives grades of the data."""
    rng = np.random.default_rng(4)
    data = rng.normal(size=(300, 10))
    data[:, [2, 7]] = 0.0
    data[:, 9] = data[:, 0] + data[:, 1]
    choice = chosen({"O": data}, [0, 100, 300], 2)["O"]
    assert len(choice.atoms) == 7
    assert set(choice.undetermined) > {2, 7}
    assert len(choice.undetermined) == 3
    assert choice.inverse.shape == (10, 10)
    assert np.abs(data @ choice.inverse).max() <= 1.0101
    np.testing.assert_allclose(choice.rows @ choice.inverse[:, :7], np.eye(7), atol=1e-9)
    np.testing.assert_array_equal(choice.inverse[:, 7:], 0.0)
    np.testing.assert_array_equal(choice.inverse[[2, 7]], 0.0)


def test_fewer_atoms_than_functions() -> None:
    data = np.random.default_rng(5).normal(size=(4, 9))
    choice = chosen({"O": data}, [0, 2, 4], 1)["O"]
    assert len(choice.atoms) == 4
    assert np.abs(data @ choice.inverse).max() == pytest.approx(1.0)


def test_sweeps_are_limited(rows: dict[str, np.ndarray]) -> None:
    choice = chosen(rows, BOUNDS, 1, Limits(max_sweeps=1))["Al"]
    assert not choice.converged
    assert np.abs(rows["Al"] @ choice.inverse).max() == pytest.approx(choice.largest, rel=1e-8)


def test_rows_of_an_active_set_come_back_from_its_inverse(rows: dict[str, np.ndarray]) -> None:
    for choice in chosen(rows, BOUNDS, 1).values():
        np.testing.assert_allclose(rows_of(choice.inverse), choice.rows, rtol=1e-6)
    deficient = np.random.default_rng(6).normal(size=(50, 5)) * [1.0, 1e-5, 1e5, 0.0, 1.0]
    choice = chosen({"O": deficient}, [0, 50], 1)["O"]
    np.testing.assert_allclose(rows_of(choice.inverse), choice.rows, atol=1e-8)
