"""The whole cuda backend on a machine without a GPU: its kernels run by emulated blocks of threads."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from pacehpc import Potential, backends, load_dataset, metrics
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.cuda import CudaEvaluator
from pacehpc.backends.device import CudaUnavailable, describe, device_options, load_cupy
from pacehpc.backends.device_memory import batches, memory_needs, row_items
from pacehpc.backends.graph import right_nodes
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.backends.layout import make_layout
from pacehpc.backends.oracle import ReferenceEvaluator
from pacehpc.backends.records import record
from pacehpc.backends.shape import make_shape
from pacehpc.backends.source import cuda_source, kernel_names
from pacehpc.errors import PacehpcError
from pacehpc.potential import build_potential
from pacehpc.structures import VOIGT

LOSS = LossWeights(kappa=0.3, stress=0.1)

pytestmark = pytest.mark.usefixtures("fake_cupy")


def with_random_targets(s, seed=1):
    rng = np.random.default_rng(seed)
    n = s.n_structures
    s.energy, s.forces = rng.normal(size=n), rng.normal(size=(s.n_atoms, 3))
    s.w_energy, s.w_forces = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(s.n_atoms))
    s.stress = np.where((s.volumes > 0)[:, None], 0.01 * rng.normal(size=(n, 6)), np.nan)
    s.low = rng.random(n) < 0.5
    return s


@pytest.fixture
def case(golden, brute_force):
    """(potential, structures with random targets) of a golden potential."""

    def make(name):
        potential = Potential.load(golden / "potentials" / f"{name}.yaml")
        frames = read(golden / "potentials" / f"{name}.extxyz", ":")
        return potential, with_random_targets(brute_force(potential, frames))

    return make


def agree(sums, expected):
    scale = np.abs(expected.gradient).max()
    np.testing.assert_allclose(sums.gradient, expected.gradient, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(sums.terms, expected.terms, rtol=1e-9)
    np.testing.assert_allclose(sums.maxima, expected.maxima, rtol=1e-9)


def same(a, b):
    np.testing.assert_array_equal(a.gradient, b.gradient)
    np.testing.assert_array_equal(a.encoded_terms, b.encoded_terms)
    np.testing.assert_array_equal(a.maxima, b.maxima)


def test_golden_potentials_in_every_order_of_threads(case, golden, golden_name, fake_cupy):
    """Golden energies, forces, stress; the reference backend's loss and gradient; the same bits in any order."""
    potential, s = case(golden_name)
    x = potential.parameters
    golden_values = np.load(golden / "potentials" / f"{golden_name}.npz")
    expected = ReferenceEvaluator(potential, s, LOSS).evaluate(x)
    found = {}
    for block in (32, 128):
        for order in ("ascending", "descending", "shuffled"):
            fake_cupy.order.threads = order
            evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(block=block))
            found[block, order] = evaluator.evaluate(x)
    first = found[32, "ascending"]
    agree(first, expected)
    for sums in found.values():
        same(sums, first)

    prediction = evaluator.predict(x)
    for k, (begin, end) in enumerate(zip(s.atom_offsets[:-1], s.atom_offsets[1:], strict=True)):
        reference = golden_values[f"energies_{k}"]
        np.testing.assert_allclose(prediction.energies[begin:end], reference, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(prediction.forces[begin:end], golden_values[f"forces_{k}"], rtol=0, atol=5e-9)
        if f"stress_{k}" in golden_values:
            stress = prediction.virials[k][VOIGT] / s.volumes[k]
            np.testing.assert_allclose(stress, golden_values[f"stress_{k}"], rtol=0, atol=5e-10)


@pytest.mark.parametrize("name", ["alni_energy_only", "cu_forces", "ethanol_reg"])
def test_golden_losses(golden, shared, name):
    reference = json.loads((golden / "loss" / f"{name}.json").read_text())
    arrays = np.load(golden / "loss" / f"{name}.npz")
    potential = Potential.load(golden / "loss" / f"{name}.yaml")
    options = dict(zip(reference["options"][::2], reference["options"][1::2], strict=True))
    data = load_dataset(shared(f"data/{reference['data']}"), elements=potential.elements, rows=reference["order"])
    s = data.structures(potential)
    s.w_energy, s.w_forces = arrays["w_energy"], arrays["w_forces"]
    loss = LossWeights(kappa=float(options.get("--kappa", 0)))
    evaluator = CudaEvaluator(potential, s, loss)
    sums = evaluator.evaluate(potential.parameters)
    terms = dict(zip(metrics.TERMS, sums.terms, strict=True))
    assert terms["e_loss"] == pytest.approx(reference["e_loss"], rel=1e-10)
    assert terms["f_loss"] == pytest.approx(reference["f_loss"], rel=1e-10)
    agree(sums, backends.create_evaluator("cpu", potential, s, loss).evaluate(potential.parameters))
    prediction = evaluator.predict(potential.parameters)
    np.testing.assert_allclose(prediction.forces, arrays["forces"], rtol=0, atol=5e-9)


def test_repeats_and_batches(case, fake_cupy):
    """Repeated evaluations give the same bits; batches and moments made anew the same numbers to round-off."""
    potential, s = case("alni_mixed")
    x = potential.parameters
    whole = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(store_moments=True))
    first = whole.evaluate(x)
    whole.evaluate(x + 0.01)
    whole.predict(x)
    same(whole.evaluate(x), first)
    assert whole.moments_stored

    parts = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1, store_moments=False))
    assert len(parts.batches) == s.n_structures and not parts.moments_stored
    again = parts.evaluate(x)
    np.testing.assert_allclose(again.gradient, first.gradient, rtol=0, atol=1e-13 * np.abs(first.gradient).max())
    np.testing.assert_allclose(again.terms, first.terms, rtol=1e-12)
    prediction, expected = parts.predict(x), whole.predict(x)
    for name in ("energies", "forces", "virials"):
        np.testing.assert_allclose(getattr(prediction, name), getattr(expected, name), rtol=0, atol=1e-11)


def test_the_same_bits_on_any_number_of_ranks(case, monkeypatch):
    """Whatever virtual shards are evaluated together, by rank, device or batch, their sums are the same integers."""
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "3")
    potential, s = case("alni_mixed")
    x, n = potential.parameters, s.n_structures
    assert n >= 4
    s.shards = np.array([0, 1, 3, *range(4, n + 1)])
    whole = CudaEvaluator(potential, s, LOSS).evaluate(x)
    agree(whole, ReferenceEvaluator(potential, s, LOSS).evaluate(x))
    for size in (1, 2, 3):
        bounds = s.shards[np.linspace(0, len(s.shards) - 1, size + 1).astype(int)]
        total = 0
        for rank, (first, last) in enumerate(itertools.pairwise(bounds)):
            part = s.select(slice(first, last))
            part.shards = s.shards[(s.shards >= first) & (s.shards <= last)] - first
            largest = int(np.diff(s.atom_offsets[s.shards]).max())
            evaluator = CudaEvaluator(
                potential,
                part,
                LOSS,
                EvaluatorOptions(local_rank=rank, ranks_per_node=size, batch_bytes=10**5 * largest),
            )
            sums = evaluator.evaluate(x)
            total = total + np.hstack([sums.encoded_terms, sums.encoded_gradient])
        np.testing.assert_array_equal(total, np.hstack([whole.encoded_terms, whole.encoded_gradient]))
    one_by_one = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1))
    assert len(one_by_one.batches) == n  # a shard is cut only where memory is too small for it
    again = one_by_one.evaluate(x)
    np.testing.assert_allclose(again.gradient, whole.gradient, rtol=0, atol=1e-12 * np.abs(whole.gradient).max())


def test_rows_of_a_shard_are_shared_out_among_warps(case):
    """Every tile belongs to one row, and a row to one element's tiles of one shard."""
    _, s = case("alni_mixed")
    s = s.select(slice(0, s.n_structures))
    s.shards = np.array([0, 2, s.n_structures])
    layout = make_layout(s, 2, 4, s.n_atoms, np.ones((2, 2), bool))
    for most in (1, 2, 100):
        items, starts = row_items(layout, most)
        tiles = np.concatenate([np.arange(first, end, step) for _, _, first, end, step in items])
        elements = np.concatenate([np.full(len(range(*item[2:])), item[0]) for item in items])
        rows = np.concatenate([np.full(len(range(*item[2:])), item[1]) for item in items])
        assert sorted(tiles) == list(range(layout.n_tiles))
        np.testing.assert_array_equal(elements, layout.tile_element[tiles])
        np.testing.assert_array_equal(np.searchsorted(starts, rows, side="right"), 1 + (tiles >= layout.batches[1, 0]))
        assert np.diff(starts).max() <= most


def test_functions_turned_round(case):
    """By right nodes the bilinear form is that of the groups; a component is in one right node or in none."""
    potential, _ = case("alni_mixed")
    graph = make_shape(potential, stress=False).elements[0].graph
    rng = np.random.default_rng(0)
    Phi, c = rng.normal(size=graph.n_components), rng.normal(size=len(graph.right))
    expected = 0.0
    for left, size, first, n in graph.groups:
        for k in range(first, first + n):
            expected += c[k] * Phi[left : left + size] @ Phi[graph.right[k] : graph.right[k] + size]
    nodes, entries, others = right_nodes(graph.groups, graph.right, graph.n_components)
    found = 0.0
    for right, size, first, n in nodes:
        for left, k in entries[first : first + n]:
            found += c[k] * Phi[left : left + size] @ Phi[right : right + size]
    assert found == pytest.approx(expected, rel=1e-12)
    assert sorted(entries[:, 1]) == list(range(len(graph.right)))
    inside = np.concatenate([np.arange(right, right + size) for right, size, *_ in nodes])
    assert sorted([*inside, *others]) == list(range(graph.n_components))


def test_functions_of_one_bond_alone(brute_force):
    """No function has two factors: nothing to add up in rows of functions."""
    section = {
        "elements": ["Al"],
        "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}},
        "bonds": {"ALL": {"radbase": "ChebPow", "radparameters": [2.0], "rcut": 4.5, "dcut": 0.01}},
        "functions": {"ALL": {"nradmax_by_orders": [5], "lmax_by_orders": [0]}},
    }
    potential = build_potential(section)
    potential.parameters = potential.parameters + 0.1
    s = with_random_targets(brute_force(potential, [bulk("Al", cubic=True)]))
    x = potential.parameters
    agree(CudaEvaluator(potential, s, LOSS).evaluate(x), ReferenceEvaluator(potential, s, LOSS).evaluate(x))


@pytest.mark.parametrize("name", ["alni_mixed", "cuozr_zbl", "al_density_core"])
def test_new_vectors_of_the_same_bonds(case, name):
    """As in molecular dynamics: some bonds of the list are longer than their cutoff, now or before."""
    potential, s = case(name)
    x, vectors = potential.parameters, s.bond_vector.copy()
    s = replace(s, energy=None, forces=None, w_energy=None, w_forces=None, stress=None, low=None)
    expected = CudaEvaluator(potential, s, LOSS).predict(x)
    stretched = CudaEvaluator(potential, replace(s, bond_vector=1.1 * vectors), LOSS, EvaluatorOptions(batch_bytes=1))
    assert len(stretched.batches) == s.n_structures

    rcut = np.array([[potential.bonds[a, b].rcut for b in potential.elements] for a in potential.elements])
    centre = np.repeat(np.arange(s.n_atoms), np.diff(s.bond_offsets))
    inside = np.linalg.norm(1.1 * vectors, axis=1) < rcut[s.species[centre], s.species[s.bond_atom]]
    assert 0 < np.count_nonzero(inside) < len(inside)
    offsets = np.r_[0, np.cumsum(np.bincount(centre[inside], minlength=s.n_atoms))]
    cut = replace(s, bond_offsets=offsets, bond_atom=s.bond_atom[inside], bond_vector=1.1 * vectors[inside])
    wanted = ReferenceEvaluator(potential, cut, LOSS).predict(x)

    def close(found, wanted):
        for key in ("energies", "forces", "virials"):
            a, b = getattr(found, key), getattr(wanted, key)
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * np.nanmax(np.abs(b)))

    close(stretched.predict(x), wanted)
    stretched.update(vectors)
    close(stretched.predict(x), expected)
    stretched.update(1.1 * vectors)
    close(stretched.predict(x), wanted)


def test_no_synchronisation_between_batches(case):
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1))
    assert len(evaluator.batches) > 2
    before = evaluator._stream.synchronizations
    evaluator.evaluate(potential.parameters)
    assert evaluator._stream.synchronizations == before + 1


def test_batches_of_whole_structures(case):
    _, s = case("al_cheblinear")
    for limit in (1, 40_000, 10**9):
        cuts = batches(s, np.array([0]), 100, 8, limit)
        assert [c.start for c in cuts] == [0, *(c.stop for c in cuts[:-1])] and cuts[-1].stop == s.n_structures
        for c in cuts:
            part = s.select(c)
            assert len(range(c.start, c.stop)) == 1 or 100 * part.n_atoms + 8 * part.n_bonds <= limit
    assert len(batches(s, np.array([0]), 100, 8, 10**9)) == 1


def test_energies_alone(case):
    """Without weight on forces no tangents are made, and the gradient is that of the reference."""
    potential, s = case("cuozr_zbl")
    s.stress, loss = None, LossWeights(kappa=0.0)
    agree(
        CudaEvaluator(potential, s, loss).evaluate(potential.parameters),
        ReferenceEvaluator(potential, s, loss).evaluate(potential.parameters),
    )


def test_value_without_gradient(case, fake_cupy):
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s, LOSS)
    full = evaluator.evaluate(potential.parameters)
    fake_cupy.launches.clear()
    sums = evaluator.evaluate(potential.parameters, gradient=False)
    assert sums.gradient is None and "make_moment_tangents" not in fake_cupy.launches
    np.testing.assert_array_equal(sums.encoded_terms, full.encoded_terms)


def test_fixed_radial_coefficients_get_no_gradient(case, fake_cupy):
    """The other components keep their bits, and the adjoint of the nodes has no tangent."""
    potential, s = case("alni_mixed")
    n_radial = sum(c.size for c in potential.radcoefficients.values())
    full = CudaEvaluator(potential, s, LOSS).evaluate(potential.parameters)
    fake_cupy.launches.clear()
    fixed = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(radial_gradient=False)).evaluate(potential.parameters)
    assert np.abs(full.gradient[:n_radial]).max() > 0 and not fixed.gradient[:n_radial].any()
    np.testing.assert_array_equal(fixed.gradient[n_radial:], full.gradient[n_radial:])
    assert "make_node_gradient" not in fake_cupy.launches


def test_many_angular_functions(brute_force):
    """More (l, m) than fit into shared memory at once, and an odd number of densities."""
    section = {
        "elements": ["Al"],
        "embeddings": {
            "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5, 1, 0.75], "ndensity": 3}
        },
        "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [4.0], "rcut": 4.5, "dcut": 0.01}},
        "functions": {"ALL": {"nradmax_by_orders": [4, 2], "lmax_by_orders": [0, 9]}},
    }
    potential = build_potential(section)
    rng = np.random.default_rng(3)
    potential.parameters = potential.parameters + 0.1 * rng.normal(size=potential.n_parameters)
    frames = [bulk("Al", cubic=True), bulk("Al", a=4.2)]
    for atoms in frames:
        atoms.rattle(0.1, seed=4)
    s = with_random_targets(brute_force(potential, frames))
    x = potential.parameters
    expected = ReferenceEvaluator(potential, s, LOSS).evaluate(x)
    for block in (32, 128):
        agree(CudaEvaluator(potential, s, LOSS, EvaluatorOptions(block=block)).evaluate(x), expected)


@pytest.mark.parametrize("ndensity", [5, 9])
def test_more_densities_than_sums_at_once(brute_force, ndensity):
    """More numbers of one function than are summed over a tile at once, on the host and on a GPU."""
    powers = np.ravel([(1, 1 / (p + 1)) for p in range(ndensity)]).tolist()
    section = {
        "elements": ["Al"],
        "embeddings": {
            "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": powers, "ndensity": ndensity},
        },
        "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [4.0], "rcut": 4.5, "dcut": 0.01}},
        "functions": {"ALL": {"nradmax_by_orders": [4, 2, 1], "lmax_by_orders": [0, 2, 1]}},
    }
    potential = build_potential(section)
    rng = np.random.default_rng(3)
    potential.parameters = potential.parameters + 0.1 * rng.normal(size=potential.n_parameters)
    frames = [bulk("Al", cubic=True), bulk("Al", a=4.2)]
    for atoms in frames:
        atoms.rattle(0.1, seed=4)
    s = with_random_targets(brute_force(potential, frames))
    x = potential.parameters
    expected = ReferenceEvaluator(potential, s, LOSS).evaluate(x)
    agree(CudaEvaluator(potential, s, LOSS).evaluate(x), expected)
    for bondwise in (False, True):
        agree(CpuEvaluator(potential, s, LOSS, EvaluatorOptions(bondwise=bondwise)).evaluate(x), expected)


def test_no_structures(case):
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s.select(slice(0, 0)), LOSS)
    sums = evaluator.evaluate(potential.parameters)
    assert not sums.terms.any() and not sums.gradient.any()
    assert len(evaluator.predict(potential.parameters).energies) == 0


def test_out_of_memory_halves_the_batches(case, caplog):
    potential, s = case("al_chebexpcos")
    x = potential.parameters
    whole = CudaEvaluator(potential, s, LOSS)
    with caplog.at_level(logging.INFO, "pacehpc"):
        tight = CudaEvaluator(
            potential, s, LOSS, EvaluatorOptions(memory_limit=int(0.8 * whole.peak_bytes), batch_bytes=2**40)
        )
    assert "out of memory" in caplog.text and f" {len(tight.batches)} batches" in tight.report
    assert len(tight.batches) > 1 and tight.peak_bytes <= 0.8 * whole.peak_bytes
    agree(tight.evaluate(x), whole.evaluate(x))
    with pytest.raises(PacehpcError, match="not even one structure"):
        CudaEvaluator(potential, s, LOSS, EvaluatorOptions(memory_limit=100_000))


def test_out_of_memory_gives_up_the_moments_last(golden, brute_force, caplog):
    """Where the smallest batches do not fit beside stored moments, these are made anew for each batch."""
    potential = Potential.load(golden / "potentials" / "al_cheblinear.yaml")
    frames = [bulk("Al", a=a, cubic=True).repeat((2, 2, 4)) for a in (3.9, 4.0, 4.1, 4.2)]  # 64 atoms, two tiles
    s, x = with_random_targets(brute_force(potential, frames)), potential.parameters
    least = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1, store_moments=False))
    most = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1, store_moments=True))
    limit = (least.peak_bytes + most.peak_bytes) // 2
    assert least.peak_bytes < limit < most.peak_bytes
    with caplog.at_level(logging.INFO, "pacehpc"):
        tight = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(store_moments=True, memory_limit=limit))
    assert (
        "; retrying with more, smaller batches" in caplog.text
        and "moments are made for each batch from now on" in caplog.text
    )
    assert not tight.moments_stored and tight.peak_bytes <= limit
    agree(tight.evaluate(x), most.evaluate(x))


@pytest.mark.parametrize("stored", [True, False])
def test_memory_is_what_was_estimated(golden, brute_force, stored):
    """The estimate that cuts batches, and that the pages print for a million atoms, is near and not below."""
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    frames = read(golden / "potentials" / "alni_mixed.extxyz", ":")
    many = with_random_targets(brute_force(potential, 12 * frames))
    evaluator = CudaEvaluator(potential, many, LOSS, EvaluatorOptions(store_moments=stored))
    assert len(evaluator.batches) == 1
    shards = np.diff(many.atom_offsets[np.append(evaluator._starts, many.n_structures)])
    needs = sum(memory_needs(evaluator.shape, shards, many.n_bonds, stored))
    assert 0.6 * needs < evaluator.peak_bytes <= needs, evaluator.peak_bytes / needs


def test_several_ranks_on_a_device(case, monkeypatch):
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "2")
    potential, s = case("al_cheblinear")
    made = [CudaEvaluator(potential, s, LOSS, EvaluatorOptions(local_rank=rank, ranks_per_node=3)) for rank in range(3)]
    assert [e.device.index for e in made] == [0, 1, 0]
    assert [e.ranks_on_device for e in made] == [2, 1, 2]
    assert made[0]._limit < 0.5 * made[0].device.total_memory
    same(made[1].evaluate(potential.parameters), made[0].evaluate(potential.parameters))
    assert CudaEvaluator(potential, s, LOSS, EvaluatorOptions(device=1)).device.index == 1
    with pytest.raises(PacehpcError, match="GPU 2 was asked for, but only 2"):
        CudaEvaluator(potential, s, LOSS, EvaluatorOptions(device=2))


def test_gpu_config():
    assert device_options(1, 500, 0, 1) == EvaluatorOptions(device=1, memory_limit=500_000_000)
    assert device_options(1, 0, 2, 4) == EvaluatorOptions(local_rank=2, ranks_per_node=4)
    assert device_options(None, 0, 0, 1).device is None


def test_device_in_words(monkeypatch):
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "2")
    text = str(describe(1))
    assert text.startswith("GPU 1 Emulated device GPU-01020304-0506-0708-090a-0b0c0d0e0f01, 2.0 of 2.0 GiB free")
    assert "driver CUDA 12.9, runtime 12.9" in text
    assert "GPU 0 Emulated device PCI 0000:01:00.0, 2.0" in str(describe(0))  # a zero byte ends CuPy's UUID


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("2,0", [2, 0]), ("1,7,0", [1]), ("GPU-01020304-0506-0708-090a-0b0c0d0e0f02,1", [2, 1]), ("1,1", []), ("-1", [])],
)
def test_visible_devices_as_cuda_reads_them(visible, expected, monkeypatch):
    """In their order, up to the first that does not exist; with one named twice none."""
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if not expected:
        with pytest.raises(CudaUnavailable, match=f"CUDA_VISIBLE_DEVICES is '{visible}'"):
            load_cupy()
        return
    runtime = load_cupy().cuda.runtime
    assert [runtime.deviceGetPCIBusId(k) for k in range(runtime.getDeviceCount())] == [
        f"0000:{k + 1:02X}:00.0" for k in expected
    ]


def test_small_data_in_small_blocks(case):
    """Where there are fewer warps than multiprocessors, a block is a warp; the sums have the same bits."""
    potential, s = case("alni_mixed")
    x = potential.parameters
    usual, spread = (CudaEvaluator(potential, s, LOSS) for _ in range(2))
    spread._launch.multiprocessors = 10**6
    assert [e._launch._block_for(32 * len(s.species)) for e in (usual, spread)] == [128, 32]
    same(spread.evaluate(x), usual.evaluate(x))


def test_a_rank_takes_nothing_of_other_devices(case, monkeypatch, fake_cupy):
    """Neither memory nor a context; what it reports is of its own device."""
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "2")
    potential, s = case("al_cheblinear")
    fake_cupy.cuda._contexts.clear()
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(local_rank=1, ranks_per_node=2))
    evaluator.evaluate(potential.parameters)
    assert fake_cupy.cuda._contexts == {1} and set(evaluator._pool._devices) == {1}
    assert evaluator.peak_bytes > 0


@pytest.mark.parametrize(
    ("environment", "message", "present"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, "no CUDA device can be used .* CUDA_VISIBLE_DEVICES is ''", False),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "no CUDA device can be used .* CUDA_VISIBLE_DEVICES is '3'", True),
        ({"FAKE_CUPY_CAPABILITY": "61"}, "compute capability 6.1, .* for 7.0 and newer", True),
        ({"FAKE_CUPY_ERROR": "cudaErrorNoDevice: none is detected"}, "no CUDA device can be used", False),
        ({"FAKE_CUPY_ERROR": "cudaErrorInsufficientDriver: version"}, "driver is too old", True),
        ({"FAKE_CUPY_NO_NVRTC": "1"}, "NVRTC", True),
    ],
)
def test_why_not(environment, message, present, monkeypatch, caplog, case):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    files = present or "CUDA_VISIBLE_DEVICES" in environment  # hidden on purpose is as good as not there
    monkeypatch.setattr("pacehpc.backends.device._device_files", lambda: files)
    potential, s = case("al_cheblinear")
    with pytest.raises(CudaUnavailable, match=message):
        backends.create_evaluator("cuda", potential, s, LOSS)
    backends._fastest.cache_clear()
    try:
        with caplog.at_level(logging.INFO, "pacehpc"):
            assert backends.resolve("auto") == "cpu"
    finally:
        backends._fastest.cache_clear()
    assert [r.levelname for r in caplog.records] == ["WARNING" if present else "INFO"]


def test_without_headers(fake_cupy, monkeypatch):
    """CuPy 14 refuses to compile anything where it does not find CUDA's headers, which nothing of ours includes."""

    def refuse(options):
        raise RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit headers")

    core = SimpleNamespace(core=SimpleNamespace(assemble_cupy_compiler_options=refuse))
    monkeypatch.setattr(fake_cupy, "_core", core, raising=False)
    with pytest.raises(CudaUnavailable, match=r"Failed to find CUDA headers.* pip install nvidia-cuda") as error:
        load_cupy()
    assert error.value.present


def test_without_cupy(monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(CudaUnavailable, match="needs CuPy"):
        patch.setitem(sys.modules, "cupy", None)
        load_cupy()


def test_auto_takes_a_device():
    backends._fastest.cache_clear()
    try:
        assert backends.resolve("auto") == "cuda"
    finally:
        backends._fastest.cache_clear()


def test_ranges_for_the_profiler_and_times_of_kernels(case, fake_cupy):
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(profile=True))
    seconds = evaluator.stage_seconds(potential.parameters)
    assert set(seconds) >= {"make_bond_forces", "make_moment_tangents", "add_rows"}
    assert min(seconds.values()) >= 0
    assert "make_bond_forces" in fake_cupy.cuda.nvtx.ranges


def test_launches_of_one_evaluation(case, fake_cupy):
    """What a small data set costs is launches: those of one batch, and sums of rows."""
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(store_moments=True))
    assert evaluator._n_batches == 1
    for gradient, most in ((False, 10), (True, 20)):
        before = len(fake_cupy.launches)
        evaluator.evaluate(potential.parameters, gradient)
        assert 0 < len(fake_cupy.launches) - before <= most


def test_from_the_second_evaluation_on_all_kernels_are_one_graph(case, fake_cupy, monkeypatch, caplog):
    """One launch, with the bits of single launches; where nothing can be recorded, single launches as before."""
    potential, s = case("al_cheblinear")
    x, graphs = potential.parameters, fake_cupy.cuda.Graph
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1))
    first, launched = None, []
    for parameters, gradient in ((x, True), (x + 0.01, True), (x, True), (x, False), (x, False), (x, False)):
        before = graphs.launches
        sums = evaluator.evaluate(parameters, gradient)
        launched.append(graphs.launches - before)
        if parameters is x and gradient:
            first = first or sums
            same(sums, first)
    assert launched == [0, 1, 1, 0, 1, 1]
    np.testing.assert_array_equal(sums.encoded_terms, first.encoded_terms)
    evaluator.stage_seconds(x)

    monkeypatch.setenv("FAKE_CUPY_NO_CAPTURE", "1")
    single, before = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1)), graphs.launches
    with caplog.at_level(logging.INFO, "pacehpc"):
        for _ in range(3):
            same(single.evaluate(x), first)
    assert graphs.launches == before and caplog.text.count("cannot be recorded") == 1


def test_source_is_one_text():
    text = cuda_source("#define ND 1\n")
    assert '#include "' not in text and re.findall(r"atomic[A-Z]\w*", text) == ["atomicAdd", "atomicMax"]  # of integers
    assert len(kernel_names()) == text.count("\nKERNEL(") + 1
    assert record("Problem").names[0] == "n_elements" and record("Work").itemsize > 0


def test_calculator(golden):
    """PaceCalculator on a GPU gives what it gives on the CPU; while atoms move a little it keeps its evaluator."""
    from pacehpc.calculator import PaceCalculator

    folder = golden / "potentials"
    potential = Potential.load(folder / "al_cheblinear.yaml")
    atoms = max(read(folder / "al_cheblinear.extxyz", ":"), key=lambda a: (all(a.pbc), len(a)))
    moved = atoms.copy()
    moved.rattle(0.03, seed=3)
    moved.set_cell(1.005 * moved.cell, scale_atoms=True)
    calculators = [PaceCalculator(potential, backend=backend) for backend in ("cuda", "cpu")]
    evaluators = []
    for frame in (atoms, moved):
        found = []
        for calculator in calculators:
            frame.calc = calculator
            found.append((frame.get_potential_energy(), frame.get_forces(), frame.get_stress()))
        for ours, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-11)
        evaluators.append(calculators[0]._evaluator)
    assert isinstance(evaluators[0], CudaEvaluator) and evaluators[0] is evaluators[1]


def test_gpu_check_runs(tmp_path):
    """The script for machines with a GPU goes through all its steps with the stand-in."""
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_check.py"
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(script), "--dry", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert results["dry"] and all(case["repeats"] == 0 for case in results["parity"].values())
    (case,) = results["cases"].values()
    assert sum(kernel["share"] for kernel in case["kernels"].values()) == pytest.approx(1)
    assert case["kernels"]["make_bond_forces"]["times_floor"] > 0


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    import gpu_check

    return gpu_check


def test_an_allocation_for_every_array(case, gpu_check, fake_cupy, monkeypatch):
    """What stands in for the pool under memcheck."""
    potential, s = case("al_cheblinear")
    expected = CudaEvaluator(potential, s, LOSS).evaluate(potential.parameters)
    pool, sizes, pointer = fake_cupy.cuda.MemoryPool(), [], fake_cupy.cuda.MemoryPointer
    monkeypatch.setattr(fake_cupy.cuda, "Memory", lambda size: sizes.append(size) or pool.malloc(size), raising=False)
    monkeypatch.setattr(fake_cupy.cuda, "MemoryPointer", lambda m, at: m if isinstance(m, pointer) else pointer(m, at))
    monkeypatch.setattr(fake_cupy.cuda, "MemoryPool", gpu_check.SingleAllocations)
    evaluator = CudaEvaluator(potential, s, LOSS)
    same(evaluator.evaluate(potential.parameters), expected)
    assert len(sizes) > 30 and evaluator.peak_bytes == 0


def test_gpu_check_begins_with_what_tells_most(gpu_check):
    cases = gpu_check.order(["cu_82", "hea_55360", "cu_529"], [1000, 10_000, 100_000, 1_000_000])
    assert cases[:4] == [("cu_529", 100_000), ("cu_529", 1000), ("cu_82", 100_000), ("hea_55360", 100_000)]
    assert len(set(cases)) == 12 and cases[-1] == ("hea_55360", 10_000)


def test_gpu_check_says_which_bars_are_met(gpu_check, capsys):
    def case(asked, us, forces, ms, floor):
        kernels = {"make_leaves": {"times_floor": floor}, "make_residuals": {"times_floor": None}}
        return {
            "asked": asked,
            "us_per_atom": us,
            "us_per_atom_forces": forces,
            "evaluation_ms": ms,
            "kernels": kernels,
        }

    found = gpu_check.bars(
        {
            "cu_529 100000": case(100_000, 0.09, 0.06, 9.0, 2.9),
            "cu_529 1000": case(1000, 1.2, 0.6, 1.2, 70.0),
            "cu_82 1000000": case(1_000_000, 0.3, 0.3, 300.0, 3.1),
            "hea_435 100000": {"failed": "MemoryError"},
        }
    )
    assert [(row["case"].split()[0], row["limit"], row["met"]) for row in found] == [
        ("cu_529", 0.1, True), ("cu_529", 0.05, False), ("cu_529", 3.0, True), ("cu_529", 1.0, False),
        ("cu_82", 3.0, False),
    ]  # fmt: skip
    gpu_check.print_bars(found)
    said = capsys.readouterr().out
    assert said.count("pass") == 1 and said.count("MISS") == 3 and "3 times their floor: 1 of 2" in said


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0, "clean"),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0, "clean"),
        ("========= ERROR SUMMARY: 3 errors", 9, "errors: "),
        ("========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)", 0, "errors: "),
        ("========= Error: Device not supported", 0, "not run: exit code 0"),
        ("alni_mixed: gradient differs", 1, "not run: exit code 1"),
        ("sleep", 0, "not run: not finished within 1 s"),
    ],
)
def test_gpu_check_reads_compute_sanitizer(gpu_check, tmp_path, monkeypatch, text, code, expected):
    program = tmp_path / "compute-sanitizer"
    wait = "exec sleep 10" if text == "sleep" else ""
    program.write_text(f'#!/bin/sh\n{wait}\necho "$@" > {tmp_path}/arguments\necho "{text}"\nexit {code}\n')
    program.chmod(0o755)
    assert gpu_check.sanitized(str(program), "racecheck", 1.0 if wait else 20.0).startswith(expected)
    if not wait:
        given = (tmp_path / "arguments").read_text().split()
        assert given[:2] == ["--tool", "racecheck"] and given[-3:] == ["--parity-only", "--few", "--single-allocations"]
        monkeypatch.setenv("PATH", str(tmp_path))
        found = gpu_check.sanitizer(lambda: 5.0)
        assert set(found.values()) == {"not run: no time left (--minutes)"}
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_PATH", "/nowhere")
    assert set(gpu_check.sanitizer(lambda: 100.0).values()) == {"not run: no compute-sanitizer on PATH"}


def test_the_hosts_part_alone(tmp_path):
    """The script that times it: no kernel runs, sizes are those of the potential."""
    root, out = Path(__file__).resolve().parents[2], tmp_path / "host.json"
    command = [sys.executable, str(root / "benchmarks" / "gpu_host.py"), str(root / "benchmarks/inputs/cu_82.yaml")]
    command += ["--atoms", "200", "--seconds", "0", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    case = json.loads(out.read_text())["cases"]["cu_82"]
    assert case["atoms"] == 216 and case["bytes_down"] == 3 * case["bytes_up"] + 8 * (3 * len(metrics.TERMS) + 5)
    assert case["evaluate_ms"] > 0 and case["to_parameters_ms"] > 0


def test_rows_through_a_cache(monkeypatch, golden):
    """The model of the caches: a row comes in once while it is kept, and goes out if it was written."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    from gpu_traffic import WALKS, Rows, node_bytes

    rows = Rows(2)
    rows.access("a", [0, 1, 0])
    assert rows.moved == 2
    rows.access("a", [2, 0])  # 1 gives way, 0 is still there
    assert rows.moved == 3
    rows.access("b", [0, 1], write=True, read=False)
    rows.access("a", [0])  # b 0 goes out, a 0 comes in
    assert rows.moved == 5 and rows.end() == 6

    shape = make_shape(Potential.load(golden / "potentials" / "alni_mixed.yaml"), stress=False)
    graphs = [table.graph for table in shape.elements]
    for kernel in WALKS:
        assert node_bytes(shape, kernel, 5) >= node_bytes(shape, kernel, 50) >= node_bytes(shape, kernel) > 0
    lefts = [g.groups[:, 1].sum() for g in graphs]
    unique = [g.n_components + n + n * shape.n_densities for g, n in zip(graphs, lefts, strict=True)]
    assert node_bytes(shape, "adjoint_of_densities") == 8 * np.mean(unique)  # all adjoints, left nodes, y


@pytest.mark.gpu
def test_on_a_device():
    """Golden values, reference backend and equal bits on a real GPU, in a process without the stand-in."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("no NVIDIA device on this machine")
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_check.py"
    done = subprocess.run([sys.executable, str(script), "--parity-only"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


RANKS = """
import sys
import numpy as np
from mpi4py import MPI
sys.path[:0] = {path!r}
from pacehpc import Potential
from pacehpc.backends.device import device_options
from pacehpc.backends.interface import LossWeights
from pacehpc.objective import Objective
from pacehpc.parallel import Ranks
import pickle
comm = MPI.COMM_WORLD
potential, data = pickle.load(open({data!r}, "rb"))
part = data.select(slice(comm.rank, comm.rank + 1)) if comm.size > 1 else data
objective = Objective(potential, part, dict(kappa=0.3), backend={backend!r}, ranks=Ranks(comm),
                      options=device_options(None, 0, comm.rank, comm.size))
devices = comm.gather(getattr(next(iter(objective._evaluators.values())), "device", None))
if comm.rank == 0:
    value, gradient = objective(objective.x)
    objective.close()
    np.savez({out!r}, value=value, gradient=gradient, devices=[d.index if d else -1 for d in devices])
else:
    objective.serve()
"""


def test_four_ranks_on_two_devices(case, tmp_path):
    """Under mpirun: the devices are taken by turns, and the sum over ranks is that of one process."""
    import pickle

    mpirun = Path(sys.executable).with_name("mpirun")
    mpirun = str(mpirun) if mpirun.exists() else shutil.which("mpirun")
    if mpirun is None:
        if os.environ.get("CI") == "true":
            pytest.fail("mpirun is missing on a machine that has to run every test")
        pytest.skip("needs mpirun")
    potential, s = case("al_cheblinear")
    s = s.select(slice(0, 4))
    s.w_energy, s.w_forces = s.w_energy / s.w_energy.sum(), s.w_forces / s.w_forces.sum()
    (tmp_path / "data.pickle").write_bytes(pickle.dumps((potential, s)))
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), str(root / "tests" / "fake_cupy")]
    script, out = tmp_path / "ranks.py", tmp_path / "out.npz"
    text = RANKS.format(path=paths, data=str(tmp_path / "data.pickle"), backend="cuda", out=str(out))
    script.write_text(text)
    environment = {**os.environ, "FAKE_CUPY_DEVICES": "2", "OMP_NUM_THREADS": "1"}
    command = [mpirun, "-n", "4", sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = np.load(out)
    assert found["devices"].tolist() == [0, 1, 0, 1]
    expected = ReferenceEvaluator(potential, s, LossWeights(kappa=0.3)).evaluate(potential.parameters)
    scale = np.abs(expected.gradient).max()
    np.testing.assert_allclose(found["gradient"], expected.gradient, rtol=0, atol=1e-9 * scale)
    assert found["value"] == pytest.approx(0.7 * expected.terms[0] + 0.3 * expected.terms[1], rel=1e-10)
