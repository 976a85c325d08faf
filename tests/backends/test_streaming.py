"""Data read piece by piece give the bits of data in memory."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from ase import Atoms

from pacehpc import backends
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.dataset import Store, load_dataset, write_frame, write_store
from pacehpc.fit import data as fit_data
from pacehpc.objective import Objective
from pacehpc.parallel import Ranks
from pacehpc.potential import build_potential
from pacehpc.shard import Shard, Stream, StreamingEvaluator


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(store, potential with random parameters)"""
    import pandas as pd

    folder = tmp_path_factory.mktemp("store")
    random = np.random.default_rng(4)
    rows = []
    for k in range(300):
        n = int(random.integers(1, 12))
        grid = np.argwhere(np.ones((3, 2, 2)))[:n] * 2.4 + random.uniform(-0.2, 0.2, (n, 3))
        atoms = Atoms(random.choice(["Al", "Ni"], n), grid, cell=np.eye(3) * 7.3, pbc=bool(k % 4))
        rows.append([atoms, random.normal(-3) * n, random.normal(size=(n, 3))])
    write_frame(pd.DataFrame(rows, columns=["ase_atoms", "energy_corrected", "forces"]), folder / "a.pckl.gzip")
    potential = build_potential(
        {
            "elements": ["Al", "Ni"],
            "embeddings": {
                "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}
            },
            "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 4.0, "dcut": 0.01}},
            "functions": {"ALL": {"nradmax_by_orders": [3, 2, 1], "lmax_by_orders": [0, 1, 1]}},
        }
    )
    potential.parameters = random.normal(0, 0.1, potential.n_parameters)
    write_store(folder / "a.h5", load_dataset(folder / "a.pckl.gzip"), potential)
    return folder / "a.h5", potential


@pytest.mark.parametrize("rank, size", [(0, 1), (1, 2), (30, 31)])
@pytest.mark.parametrize("max_bonds", [1, 3000, 10**9])
def test_the_same_bits(case, backend, rank, size, max_bonds):
    path, potential = case
    if backend == "reference" and max_bonds == 1:
        pytest.skip("slow, and the same as cpu")
    loss = LossWeights(kappa=0.4)
    with Store(path, potential) as store:
        whole = backends.create_evaluator(backend, potential, store.read_shard(rank, size), loss)
        pieces = list(store.read_pieces(rank, size, max_bonds))
        assert max_bonds == 10**9 or size > 30 or len(pieces) > 1
        assert sum(p.n_bonds for p in pieces) == store.read_shard(rank, size).n_bonds
    streamed = StreamingEvaluator(backend, potential, Stream(path, rank, size, max_bonds), loss)
    for x in (potential.parameters, 0.5 * potential.parameters):
        a, b = whole.evaluate(x), streamed.evaluate(x)
        if backend == "cpu":
            np.testing.assert_array_equal(a.encoded_terms, b.encoded_terms)
            np.testing.assert_array_equal(a.encoded_gradient, b.encoded_gradient)
        np.testing.assert_allclose(a.terms, b.terms, rtol=1e-12)
        np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(a.maxima, b.maxima, rtol=1e-12)
        assert streamed.evaluate(x, gradient=False).encoded_gradient is None
    one, two = whole.predict(potential.parameters), streamed.predict(potential.parameters)
    for name in ("energies", "forces", "virials"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12, atol=1e-12)


def test_little_room_streams_and_the_objective_is_the_same(case, monkeypatch, caplog):
    path, potential = case
    in_memory = fit_data.read_shard(path, potential, Ranks())
    assert in_memory.stream is None
    monkeypatch.setattr(fit_data, "SMALLEST_ROOM", 1)
    monkeypatch.setattr(fit_data, "resident_memory", lambda: 10**9)
    streamed = fit_data.read_shard(path, potential, Ranks(), memory_limit=10**9 + 280 * in_memory.n_bonds // 3)
    assert "do not fit" in caplog.text and streamed.structures.n_bonds == 0 and streamed.n_bonds == in_memory.n_bonds
    assert len(list(streamed.pieces(potential))) > 3
    one, two = (Objective(potential, s, {"kappa": "auto"}, backend="cpu") for s in (in_memory, streamed))
    (value, slope), (value_2, slope_2) = one(one.x), two(two.x)
    assert value == value_2 and (slope == slope_2).all()
    np.testing.assert_equal(one.metrics, two.metrics)  # NaN where there is no stress
    assert one.shard_sizes == two.shard_sizes
    np.testing.assert_allclose(one.predict(one.x).forces, two.predict(two.x).forces, rtol=1e-12, atol=1e-12)
    for shard in (in_memory, streamed):
        shard.nearest = fit_data.nearest_distances(shard, potential, Ranks())
        shard.bonds = fit_data.shortest_bonds(shard, potential, Ranks())
    np.testing.assert_array_equal(in_memory.nearest, streamed.nearest)
    assert in_memory.bonds == streamed.bonds


def test_factors_on_weights_reach_every_piece(case):
    """As a stage of a schedule has them."""
    path, potential = case
    random = np.random.default_rng(2)
    with Store(path, potential) as store:
        whole = Shard(store.read_shard(1, 2))
        bare = store.read_without_bonds(1, 2)
    streamed = Shard(bare, stream=Stream(path, 1, 2, 2000), streamed_bonds=whole.n_bonds)
    factors = random.random(bare.n_structures), random.random(bare.n_structures)
    assert len(list(streamed.pieces(potential))) > 1
    found = []
    for shard in (whole, streamed):
        changed = shard.reweighted(*factors)
        found.append(changed.evaluator("cpu", potential, LossWeights(kappa=0.4)).evaluate(potential.parameters))
        assert changed.structures.w_energy.tolist() == (whole.structures.w_energy * factors[0]).tolist()
    np.testing.assert_array_equal(found[0].encoded_terms, found[1].encoded_terms)
    np.testing.assert_array_equal(found[0].encoded_gradient, found[1].encoded_gradient)
    plain = whole.evaluator("cpu", potential, LossWeights(kappa=0.4)).evaluate(potential.parameters)
    assert (plain.terms[:2] > found[0].terms[:2]).all()


def test_stages_are_those_of_all_pieces(case, monkeypatch):
    path, potential = case
    with Store(path, potential) as store:
        n_bonds = store.n_bonds
    evaluator = StreamingEvaluator("cpu", potential, Stream(path, 0, 1, n_bonds // 3), LossWeights(kappa=0.3))
    calls = []

    def one_second_each(self, parameters):
        calls.append(self.structures.n_bonds)
        return {"forces": 1.0}

    monkeypatch.setattr(CpuEvaluator, "stage_seconds", one_second_each)
    assert evaluator.stage_seconds(potential.parameters) == {"forces": float(len(calls))}
    assert len(calls) > 1 and sum(calls) == n_bonds


def test_one_evaluator_lives_at_a_time(case, monkeypatch):
    path, potential = case
    with Store(path, potential) as store:
        n_bonds = store.n_bonds
    alive, most, made = weakref.WeakSet(), [], CpuEvaluator.__init__

    def counting(self, *args, **options):
        gc.collect()
        most.append(len(alive))
        alive.add(self)
        made(self, *args, **options)

    monkeypatch.setattr(CpuEvaluator, "__init__", counting)
    evaluator = StreamingEvaluator("cpu", potential, Stream(path, 0, 1, n_bonds // 4), LossWeights(kappa=0.3))
    kept = [evaluator.evaluate(potential.parameters), evaluator.predict(potential.parameters)]
    assert len(most) >= 8 and max(most) == 0 and np.isfinite(kept[0].gradient).all()


def test_memory_of_the_device_is_that_of_a_piece(case, fake_cupy):
    """Kept sums keep no evaluator: what a piece took is free before the next, and at the end."""
    path, potential = case
    with Store(path, potential) as store:
        n_bonds, whole = store.n_bonds, store.read_shard(0, 1)
    loss, x = LossWeights(kappa=0.3), potential.parameters
    expected = backends.create_evaluator("cuda", potential, whole, loss)
    sums = expected.evaluate(x)
    most = fake_cupy.cuda._held[0]
    del expected
    assert fake_cupy.cuda._held[0] == 0
    streamed = StreamingEvaluator("cuda", potential, Stream(path, 0, 1, n_bonds // 4), loss)
    seen, release = [], fake_cupy.cuda._OneDevice.give_back
    fake_cupy.cuda._OneDevice.give_back = lambda self: (seen.append(fake_cupy.cuda._held[0]), release(self))
    kept = [streamed.evaluate(x), streamed.predict(x), streamed.evaluate(x)]
    assert fake_cupy.cuda._held[0] == 0 and len(seen) >= 12 and max(seen) < 0.7 * most
    np.testing.assert_array_equal(kept[2].encoded_gradient, sums.encoded_gradient)
    np.testing.assert_array_equal(kept[2].gradient, sums.gradient)


def test_memory_is_that_of_a_piece(case):
    path, potential = case

    def peak(load):
        tracemalloc.start()
        load()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    with Store(path, potential) as store:
        whole = peak(lambda: store.read_shard(0, 1))
        without = peak(lambda: store.read_without_bonds(0, 1))
        bonds = store.n_bonds // 8
        pieces = peak(lambda: [None for _ in store.read_pieces(0, 1, bonds)])
    assert without < 0.4 * whole and pieces < 0.5 * whole


def test_a_shard_in_memory_is_one_piece(case):
    path, potential = case
    with Store(path, potential) as store:
        shard = Shard(store.read_shard(0, 1))
    assert [p is shard.structures for p in shard.pieces(potential)] == [True]
