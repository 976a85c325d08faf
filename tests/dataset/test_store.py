"""The store gives every rank its own structures, and only those, whatever the number of ranks."""

from __future__ import annotations

import dataclasses
import logging
import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from ase import Atoms

from pacehpc import fixed_point
from pacehpc.backends import compile
from pacehpc.dataset import Dataset, Store, input_hash, load_dataset, shards, write_frame, write_store
from pacehpc.errors import PacehpcError


def potential(elements=("Al", "Ni"), rcut=4.0, mixed=3.5):
    bonds = {(a, b): SimpleNamespace(rcut=rcut if a == b else mixed) for a in elements for b in elements}
    return SimpleNamespace(elements=tuple(elements), bonds=bonds)


def make_data(folder: Path, n_structures=60, seed=0, largest=24) -> Dataset:
    random = np.random.default_rng(seed)
    frames, energies, forces, names = [], [], [], []
    for k in range(n_structures):
        n = int(random.integers(1, largest))
        grid = np.argwhere(np.ones((3, 3, 3)))[:n] * 2.6 + random.uniform(-0.2, 0.2, (n, 3))
        pbc = [(True, True, True), (True, True, False), (False, False, False)][k % 3]
        frames.append(Atoms(random.choice(["Al", "Ni"], n), grid, cell=np.eye(3) * 7.8, pbc=pbc))
        frames[-1].info |= {"tag": f"t{k}", "number": np.float32(0.1 * k), "sure": np.bool_(k % 2)}
        energies.append(random.normal(-3, 1) * n)
        forces.append(random.normal(0, 1, (n, 3)))
        names.append("augmented/x" if k % 7 == 0 else f"s{k}")
    stress = [random.normal(0, 1, 6) if all(f.pbc) else None for f in frames]
    frame = pd.DataFrame({"energy": energies, "energy_corrected": energies})
    frame["ase_atoms"], frame["forces"], frame["name"], frame["stress"] = frames, forces, names, stress
    frame.index = range(100, 100 + n_structures)
    write_frame(frame, folder / "data.pckl.gzip")
    return load_dataset(folder / "data.pckl.gzip")


def rows_of(structures):
    """Everything a structure holds, structure by structure, with bonds in a defined order."""
    for s in range(structures.n_structures):
        one = structures.select(slice(s, s + 1))
        centre = np.repeat(np.arange(one.n_atoms), np.diff(one.bond_offsets))
        bonds = np.column_stack([centre, one.bond_atom, one.bond_vector])
        bonds = bonds[np.lexsort(np.round(bonds, 6).T)]
        per_structure = [one.species, bonds, one.volumes, one.energy, one.forces, one.w_energy, one.w_forces, one.low]
        yield [*per_structure, one.stress]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_ranks_together_hold_the_data_once(tmp_path, size):
    data = make_data(tmp_path)
    pot = potential()
    write_store(tmp_path / "store.h5", data, pot)
    whole = list(rows_of(data.structures(pot)))
    seen = []
    with Store(tmp_path / "store.h5") as store:
        for rank in range(size):
            part, rows = store.read_shard(rank, size), store.rows(rank, size)
            assert part.n_structures == len(rows)
            assert part.bond_offsets[-1] == part.n_bonds and part.bond_offsets[0] == 0
            for row, values in zip(rows, rows_of(part), strict=True):
                assert_same(values, whole[row])
            seen += rows.tolist()
    assert sorted(seen) == list(range(len(data)))


def test_shards_do_not_depend_on_the_ranks_and_are_balanced(tmp_path):
    data = make_data(tmp_path, 200)
    write_store(tmp_path / "store.h5", data, potential())
    with Store(tmp_path / "store.h5") as store:
        one = store.rows(0, 1).tolist()
        for size in (2, 3, 5):
            assert [r for rank in range(size) for r in store.rows(rank, size).tolist()] == one
        assert store.n_shards == 16  # data.n_atoms is 2558: the least number for small data, a power of two
        atoms = np.diff(store.read_shard(0, 1).atom_offsets)
        for k in range(store.n_shards):
            first, last = store.shard_bounds(0, 1)[k : k + 2]
            assert atoms[first:last].sum() > shards.FEW_ATOMS
            assert one[first:last] == sorted(one[first:last])
        # the prediction is the imbalance of bonds + c atoms counted here
        loads = []
        for rank in range(4):
            part = store.read_shard(rank, 4)
            loads.append(part.n_bonds + shards.ATOM_COST * part.n_atoms)
        assert store.balance(4) == pytest.approx(max(loads) / np.mean(loads) - 1, abs=1e-12)
        assert store.balance(1) == 0 and store.balance(4) < 0.1


def test_many_structures_are_balanced_to_a_percent():
    random = np.random.default_rng(1)
    n_atoms = random.integers(1, 200, 20_000)
    cost = n_atoms * random.uniform(20, 120, 20_000)
    order, bounds = shards.virtual_shards(cost, n_atoms)
    assert sorted(order.tolist()) == list(range(20_000)) and 2048 < len(bounds) <= 3072  # 2.0 million atoms
    loads = np.add.reduceat(cost[order], bounds[:-1])
    assert loads.max() * 2048 / loads.sum() < 1.01
    for size in (2, 3, 4, 7, 16, 64, 1024):
        assert shards.imbalance(loads, size) < 0.02


@pytest.mark.parametrize("n_structures", [600, 3000])
def test_mixed_structures_are_balanced_on_any_few_ranks(n_structures):
    """Molecules, surfaces and bulk of few and of many neighbours, whatever the number of ranks divides."""
    random = np.random.default_rng(2)
    kind = random.choice(4, n_structures, p=[0.5, 0.25, 0.2, 0.05])
    n_atoms = np.choose(kind, [random.integers(2, 14, n_structures), 24, 16, 108])
    cost = n_atoms * (25.0 + np.choose(kind, [n_atoms - 1, 95, 210, 135]))
    order, bounds = shards.virtual_shards(cost, n_atoms)
    loads = np.add.reduceat(cost[order], bounds[:-1])
    for size in range(2, 8):
        assert shards.imbalance(loads, size) < 0.02
        ranks = bounds[shards.rank_bounds(loads, size)]
        for wrong in range(4):  # every rank has its part of each kind: an error of the model for one of them cancels
            true = np.add.reduceat(np.where(kind == wrong, 1.1, 1.0)[order] * cost[order], ranks[:-1])
            assert true.max() / true.mean() - 1 < 0.02


def test_number_of_shards_grows_with_the_data_alone():
    small = {(1, 500): 1, (100, 63): 1, (100, 640): 16, (100, 2558): 16, (300, 12_300): 64, (2000, 100_000): 256}
    large = {(20_000, 190_000): 256, (50_000, 10**6): 1024, (10**6, 10**7): 4096, (10**7, 10**8): 4096}
    for (n_structures, n_atoms), expected in (small | large).items():
        ends, uncut = shards.shard_ends(n_structures, n_atoms)
        assert uncut == expected and (np.diff(ends) > 0).all() and ends[0] == 0 and ends[-1] == 1
        assert uncut <= len(ends) - 1 <= min(1.5 * uncut, shards.MAX_SHARDS)
    assert shards.shard_ends(300, 10**7)[1] == 256  # no more than structures
    assert shards.MAX_SHARDS <= fixed_point.MAX_TERMS


def test_bytes_read_and_memory_fall_with_the_ranks(tmp_path):
    if not os.path.exists("/proc/self/io"):
        pytest.skip("counts bytes in /proc")
    for compiler in list(compile._ahead.values()):  # what the compilers of earlier tests read would count
        compiler.join()
    data = make_data(tmp_path, 200).subset(np.tile(np.arange(200), 40))
    write_store(tmp_path / "store.h5", data, potential(rcut=6.5, mixed=6.5))
    file_size = (tmp_path / "store.h5").stat().st_size

    def cost_of(rank, size):
        before = int(Path("/proc/self/io").read_text().split()[1])
        tracemalloc.start()
        with Store(tmp_path / "store.h5") as store:
            store.read_shard(rank, size)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return int(Path("/proc/self/io").read_text().split()[1]) - before, peak

    constant = 16 * 2**16  # HDF5 reads up to 64 KiB ahead in each data set
    cost_of(0, 1)
    read_1, memory_1 = cost_of(0, 1)
    assert read_1 > 0.9 * file_size > 20 * constant
    for size in (2, 4, 8):
        for rank in (0, size - 1):
            read, memory = cost_of(rank, size)
            assert read < 1.15 * read_1 / size + constant, (size, rank, read / read_1)
            assert memory < 1.25 * memory_1 / size + 200_000, (size, rank, memory / memory_1)


def test_more_ranks_than_structures(tmp_path):
    data = make_data(tmp_path, 2)
    write_store(tmp_path / "store.h5", data, potential())
    with Store(tmp_path / "store.h5") as store:
        parts = [store.read_shard(rank, 5) for rank in range(5)]
    assert sum(p.n_structures for p in parts) == 2
    empty = next(p for p in parts if p.n_structures == 0)
    assert empty.bond_offsets.tolist() == [0] and empty.bond_vector.shape == (0, 3) and empty.forces.shape == (0, 3)


def test_a_larger_stored_cutoff_serves_smaller_ones(tmp_path):
    data = make_data(tmp_path)
    write_store(tmp_path / "store.h5", data, 5.0)
    small = potential(("Al", "Cu", "Ni"), 3.9, 3.1)
    with Store(tmp_path / "store.h5", small) as store:
        part, rows = store.read_shard(1, 3), store.rows(1, 3)
    expected = list(rows_of(data.structures(small, rows)))
    for got, want in zip(rows_of(part), expected, strict=True):
        assert_same(got, want)
    with pytest.raises(PacehpcError, match="shorter than"):
        Store(tmp_path / "store.h5", potential(rcut=5.1))
    with pytest.raises(PacehpcError, match="shorter than"):
        Store(tmp_path / "store.h5", potential(("Al",)))


def test_atoms_that_strayed_far(tmp_path):
    """As after a long run without wrapping: the same bonds in memory and in the store, or an error."""
    near = Atoms("Al4", [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]], cell=np.eye(3) * 4.0, pbc=True)

    def load(cells):
        far = near.copy()
        far.positions[0] += cells * far.cell[0]
        frame = pd.DataFrame({"ase_atoms": [near, far], "energy_corrected": 0.0, "forces": [np.zeros((4, 3))] * 2})
        frame.index = ["near", "far"]
        write_frame(frame, tmp_path / "far.pckl.gzip")
        return load_dataset(tmp_path / "far.pckl.gzip")

    data = load(-30000)
    write_store(tmp_path / "store.h5", data, potential())
    with Store(tmp_path / "store.h5") as store:
        for structures in (data.structures(potential()), store.read_shard(0, 1)):
            bonds = np.diff(structures.bond_offsets[structures.atom_offsets])
            assert bonds[0] == bonds[1] > 0
    with pytest.raises(PacehpcError, match="row far: neighbours are more than 32767 cells apart"):
        write_store(tmp_path / "store.h5", load(40000), potential())


def test_everything_else_comes_back_in_the_original_order(tmp_path):
    data = make_data(tmp_path)
    write_store(tmp_path / "store.h5", data, potential(), inputs="abc")
    with Store(tmp_path / "store.h5") as store:
        back = store.dataset()
        assert store.inputs == "abc"
    assert data.info[3] == {"tag": "t3", "number": pytest.approx(0.3), "sure": True} and len(data.sha256) == 1
    for field in dataclasses.fields(Dataset):
        a, b = getattr(data, field.name), getattr(back, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=field.name)
            assert a.dtype == b.dtype, field.name
        elif field.name != "extra":
            assert a == b, field.name


def test_a_folder_whose_name_is_not_utf8(tmp_path, caplog):
    caplog.set_level(logging.CRITICAL, "pacehpc")  # pytest-xdist cannot pass such a name on
    folder = Path(os.fsdecode(os.fsencode(tmp_path / "donn") + b"\xe9es"))
    folder.mkdir()
    write_store(folder / "store.h5", make_data(folder), potential())
    with Store(folder / "store.h5") as store:
        assert store.dataset().sources == [str(folder / "data.pckl.gzip")]


def test_the_hash_follows_content_and_options(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    files = [tmp_path / "a", tmp_path / "b"]
    hashes = {input_hash(files, {"x": 1}), input_hash(files, {"x": 2}), input_hash(files[:1], {"x": 1})}
    assert len(hashes) == 3 and input_hash(files, {"x": 1}) in hashes
    (tmp_path / "b").write_text("3")
    assert input_hash(files, {"x": 1}) not in hashes


def test_half_written_and_foreign_files(tmp_path, monkeypatch):
    data = make_data(tmp_path)
    target = tmp_path / "store.h5"
    write_store(target, data, potential())
    good = target.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("pacehpc.dataset.store_writing._write_bonds", fail)
        with pytest.raises(PacehpcError, match="disk full"):
            write_store(target, data, potential())
    assert target.read_bytes() == good and sorted(p.name for p in tmp_path.iterdir()) == ["data.pckl.gzip", "store.h5"]
    target.write_bytes(good[: len(good) // 2])
    with pytest.raises(PacehpcError):
        Store(target).read_shard(0, 1)
    with h5py.File(target, "w") as file:
        file["x"] = 1
    with pytest.raises(PacehpcError, match="not prepared data"):
        Store(target)
    with pytest.raises(PacehpcError, match="no readable"):
        Store(tmp_path / "absent.h5")


@pytest.mark.parametrize("name, value", [("bonds/atom", 99), ("atoms/n_bonds", -1), ("structures/atom_offsets", 7)])
def test_inconsistent_numbers_are_found(tmp_path, name, value):
    write_store(tmp_path / "store.h5", make_data(tmp_path), potential())
    with h5py.File(tmp_path / "store.h5", "r+") as file:
        file[name][1] = value
    with pytest.raises(PacehpcError, match="damaged"), Store(tmp_path / "store.h5") as store:
        store.read_shard(0, 1)


def test_total_energies_alone_are_no_damage(tmp_path):
    """A converted file may have no E^ref; only one value that is missing is damage."""
    data = make_data(tmp_path)
    known = data.energy_corrected.copy()
    data.energy_corrected = np.full(len(data), np.nan)
    write_store(tmp_path / "store.h5", data, potential())
    reads = (lambda s: s.read_shard(0, 2), lambda s: s.read_without_bonds(1, 2), lambda s: list(s.read_pieces(0, 1, 9)))
    with Store(tmp_path / "store.h5") as store:
        np.testing.assert_array_equal(store.dataset().energy, data.energy)
        for read in reads:
            with pytest.raises(PacehpcError, match=r"store\.h5: .*total energies only.*set data\.reference_energy"):
                read(store)
    data.energy_corrected = np.where(np.arange(len(data)) == 1, np.nan, known)
    write_store(tmp_path / "store.h5", data, potential())
    with Store(tmp_path / "store.h5") as store, pytest.raises(PacehpcError, match=r"damaged .*contain NaN"):
        store.read_shard(0, 1)


def test_a_dataset_in_memory_is_cut_alike(tmp_path):
    data = make_data(tmp_path)
    rows = [data.shard_rows(rank, 4) for rank in range(4)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(data)))
    parts = [data.subset(r) for r in rows]
    assert sum(p.w_energy.sum() for p in parts) == pytest.approx(1.0)
    atoms = [p.n_atoms for p in parts]
    assert max(atoms) < 1.35 * min(atoms)


def test_more_labels_than_hdf5_keeps_as_strings(tmp_path):
    """HDF5 damages data sets of more than 65,536 strings of varying length."""
    data = make_data(tmp_path, 4, largest=2).subset(np.arange(70_000) % 4)
    data.index = [f"label {k}" if k % 2 else k for k in range(len(data))]
    data.names = [f"näme {k}" for k in range(len(data))]
    write_store(tmp_path / "store.h5", data, 0.0)
    with Store(tmp_path / "store.h5") as store:
        back = store.dataset()
    assert back.index == data.index and back.names == data.names
