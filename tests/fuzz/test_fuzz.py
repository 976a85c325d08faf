"""Thousands of damaged files of every kind: each ends in success or a PacehpcError, soon and within bounded memory.

PACEHPC_FUZZ=10 takes ten times as many cases. A failure names kind and number of the case: `bad_file(kind, number)`
writes that file again.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import mutations
import numpy as np
import pandas as pd
import pytest
from ase import Atoms

from pacehpc.config import load_settings
from pacehpc.dataset import Store, load_dataset, write_store
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential, build_potential, export_yace

SECONDS, LONG, MEMORY = 5, 120, 3 * 2**30
TIMERS = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}
CASES = {"input": 3000, "bbasis": 2200, "yace": 1000, "frame": 1600, "extxyz": 1500, "store": 900, "asedb": 300}
MORE = int(os.environ.get("PACEHPC_FUZZ", "1"))

INPUT = """\
cutoff: 5
seed: 1
metadata: {origin: here}
data:
  filename: data.pckl.gzip
  test_size: 0.1
  reference_energy: {Al: -1.5, Ni: -2, shift: 0}
potential:
  deltaSplineBins: 0.001
  elements: [Al, Ni]
  embeddings:
    ALL: {npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}
  bonds:
    ALL: {radbase: SBessel, radparameters: [5.25], rcut: 5, dcut: 0.01, r_in: 0.5, delta_in: 0.1}
    (Al, Ni): {rcut: 4.5}
  functions:
    number_of_functions_per_element: 20
    UNARY: {nradmax_by_orders: [3, 2, 1], lmax_by_orders: [0, 1, 1]}
    BINARY: {nradmax_by_orders: [2, 1], lmax_by_orders: [0, 1]}
fit:
  loss: {kappa: 0.3, L1_coeffs: 1e-8, w0_rad: 1e-8}
  weighting: {type: EnergyBasedWeightingPolicy, DElow: 1.0, nfit: 100}
  optimizer: BFGS
  options: {gtol: 1e-8}
  maxiter: 10
  ladder_step: [5, 0.1]
  trainable_parameters: {AlNi: [func, radial]}
backend: {evaluator: auto, display_step: 5, memory_limit: 2 GiB}
"""


def frame(n=3) -> pd.DataFrame:
    rows = []
    for k in range(n):
        atoms = Atoms("AlNi", [[0, 0, 0], [1.5 + 0.1 * k, 1.5, 1.5]], cell=[3, 3, 3 + k], pbc=True)
        rows.append([atoms, -5.0 - k, -1.0, np.full((2, 3), 0.1 * k), np.arange(6) * 0.01, f"name{k}", 0.5, np.ones(2)])
    names = ["ase_atoms", "energy", "energy_corrected", "forces", "stress", "name", "w_energy", "w_forces"]
    return pd.DataFrame(rows, columns=names)


BAD = [np.nan, np.inf, None, "x", [], [[1.0]], np.zeros((3, 3)), np.zeros(0), {}, 10**400, -1, True, b"x", 1 + 2j,
       np.array(["a"]), np.full((2, 3), np.nan), np.zeros((2, 3), complex), (1, 2), Atoms(), slice(3)]  # fmt: skip


def bad_frame(random: np.random.Generator) -> bytes:
    """A pickled frame with damaged bytes, or with a wrong value in a good pickle."""
    table = frame()
    if random.random() < 0.5:
        return mutations.binary(pickle.dumps(table, protocol=int(random.choice([2, 4, 5]))), random)
    values = {name: list(table[name]) for name in table}
    name = list(values)[random.integers(0, len(values))]
    kind = random.integers(0, 4)
    bad = BAD[random.integers(0, len(BAD))]
    if kind == 0:
        values[name][random.integers(0, 3)] = bad
    elif kind == 1:
        values[name] = [bad] * 3
    elif kind == 2:
        del values[name]
    else:
        atoms = values["ase_atoms"][random.integers(0, 3)]
        what = random.integers(0, 4)
        if what == 0:
            atoms.positions[random.integers(0, 2), random.integers(0, 3)] = random.choice(
                [np.nan, np.inf, 1e300, 1e5, 0.0]
            )
        elif what == 1:
            atoms.cell[random.integers(0, 3)] = random.choice([np.nan, 0.0, 1e300, 1e-8, -3.0], 3)
        elif what == 2:
            atoms.arrays["numbers"] = np.array(BAD[random.integers(0, len(BAD))], dtype=object)
        else:
            atoms.arrays["positions"] = BAD[random.integers(0, len(BAD))]
    table = pd.DataFrame(index=range(3))
    for name, entries in values.items():
        column = pd.Series([None] * 3, dtype=object)
        for row, entry in enumerate(entries):
            column.iat[row] = entry
        table[name] = column
    data = pickle.dumps(table, protocol=4)
    packed = gzip.compress(data, 1)
    return mutations.binary(packed, random) if random.random() < 0.1 else packed


def bad_store(good: bytes, random: np.random.Generator) -> bytes:
    """An HDF5 file with damaged bytes, or sound but with wrong contents."""
    if random.random() < 0.5:
        return mutations.binary(good, random)
    file = io.BytesIO(good)
    with h5py.File(file, "r+") as h5:
        names: list[str] = []
        h5.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for _ in range(random.integers(1, 3)):
            name = names[random.integers(0, len(names))]
            kind = random.integers(0, 6)
            if not isinstance(h5.get(name, getlink=True), h5py.HardLink) or not isinstance(h5[name], h5py.Dataset):
                continue  # changed before
            data = h5[name]
            if kind == 0:
                del h5[name]
            elif kind == 1 and data.dtype.kind in "iuf" and data.size:
                extremes = [-1, 0, 7, 127] if data.dtype.itemsize == 1 else [-1, 0, 2**31 - 1, 99, 2**15 - 1]
                flat = data[()].ravel()
                value = (
                    random.choice([np.nan, np.inf, 1e300, -1.0]) if data.dtype.kind == "f" else random.choice(extremes)
                )
                flat[random.integers(0, flat.size)] = np.array(value).astype(data.dtype)
                data[...] = flat.reshape(data.shape)
            elif kind == 2:
                del h5[name]
                h5.create_dataset(name, shape=(2**40,), dtype="f8", chunks=(1024,))  # eight TiB in no bytes
            elif kind == 3:
                values = data[()]
                del h5[name]
                h5[name] = np.asarray(values).ravel()[: random.integers(0, 5)] if data.dtype.kind != "O" else [b"x"]
            elif kind == 4:
                attribute = random.choice(list(h5.attrs))
                h5.attrs[attribute] = random.choice(np.array(["x", "[]", "{", "[1]", "9", "null"], dtype=object))
            else:
                del h5[name]
                h5[name] = random.choice([h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink("/" + name), 3, "text"])
    return file.getvalue()


def finite(*arrays: np.ndarray | None) -> None:
    for array in arrays:
        assert array is None or np.isfinite(array).all(), "NaN or infinite values came through"


def load_data(path: Path) -> None:
    data = load_dataset(path, reference_energy=0.0)
    # what is unknown has weight 0
    known_energies, known_forces = data.w_energy != 0, data.flat_w_forces != 0
    finite(data.positions, data.cells, data.w_energy, data.flat_w_forces)
    finite(data.energy_corrected[known_energies], data.flat_forces[known_forces])
    assert data.w_energy.sum() == pytest.approx(1) and len(data.numbers) == len(data.positions)
    data.structures(POTENTIAL)


def load_store(path: Path) -> None:
    with Store(path, POTENTIAL) as store:
        for rank in range(2):
            part = store.read_shard(rank, 2)
            finite(part.bond_vector, part.w_energy, part.w_forces)
            finite(part.energy[part.w_energy != 0], part.forces[part.w_forces != 0])
            assert part.n_bonds == 0 or part.bond_atom.max() < part.n_atoms
        store.dataset()
    load_data(path)


def load_input(path: Path) -> None:
    settings = load_settings(path, needs=("data", "potential"))
    settings.resolved_yaml()
    finite(build_potential(settings.potential).parameters)


def load_potential(path: Path) -> None:
    potential = Potential.load(path)
    finite(potential.parameters)
    assert potential.n_functions >= 0 and potential.cutoff > 0


POTENTIAL = build_potential(
    {
        "elements": ["Al", "Ni"],
        "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1], "ndensity": 1}},
        "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 3.5, "dcut": 0.01}},
        "functions": {"ALL": {"nradmax_by_orders": [2, 1], "lmax_by_orders": [0, 1]}},
    }
)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> dict[str, tuple[str, Callable, Callable]]:
    """Name of the file, maker of its damaged content, and what loads it, of each kind."""
    folder = tmp_path_factory.mktemp("good")
    frame().to_pickle(folder / "a.pkl")
    data = load_dataset(folder / "a.pkl")
    potential = POTENTIAL.copy()
    potential.parameters = np.random.default_rng(1).normal(size=potential.n_parameters)
    potential.save(folder / "a.yaml")
    export_yace(potential, folder / "a.yace")
    write_store(folder / "a.h5", data, POTENTIAL)

    from pacehpc.dataset.writing import write_data

    write_data(data, folder / "a.extxyz")
    write_data(data, folder / "a.db")
    bbasis, yace, extxyz = ((folder / f"a.{kind}").read_text() for kind in ("yaml", "yace", "extxyz"))
    store, database = (folder / "a.h5").read_bytes(), (folder / "a.db").read_bytes()
    (folder / "a.yaml").unlink()
    return {
        "input": ("input.yaml", lambda random: mutations.text(INPUT, random), load_input),
        "bbasis": ("p.yaml", lambda random: mutations.text(bbasis, random), load_potential),
        "yace": ("p.yace", lambda random: mutations.text(yace, random), load_potential),
        "frame": ("d.pckl.gzip", bad_frame, load_data),
        "extxyz": ("d.xyz", lambda random: mutations.text(extxyz, random), load_data),
        "store": ("d.h5", lambda random: bad_store(store, random), load_store),
        "asedb": ("d.db", lambda random: mutations.binary(database, random), load_data),
    }


class TooSlow(BaseException):
    """Passes through every `except Exception`."""


@contextmanager
def bounds() -> Iterator[None]:
    """No case may compute for more than SECONDS, wait for LONG, or take MEMORY more than the process has now."""

    def expired(signum, stack):
        raise TooSlow

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handlers = {number: signal.signal(number, expired) for number in TIMERS.values()}
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        for timer, number in TIMERS.items():
            signal.setitimer(timer, 0)
            signal.signal(number, handlers[number])
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("kind", CASES)
def test_damaged_files(kind, kinds, tmp_path, monkeypatch):
    name, make, load = kinds[kind]
    monkeypatch.chdir(tmp_path)
    outcomes, failures = {"read": 0, "refused": 0}, []
    with bounds(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(CASES[kind] * MORE):
            Path(name).write_bytes(make(np.random.default_rng([number, list(CASES).index(kind)])))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.setitimer(signal.ITIMER_REAL, LONG)
            try:
                load(Path(name))
                outcomes["read"] += 1
            except PacehpcError as error:
                outcomes["refused"] += 1
                if not str(error) or len(str(error)) > 5000:
                    failures.append((number, "message", str(error)[:200]))
            except (TooSlow, Exception) as error:
                failures.append((number, type(error).__name__, str(error)[:200]))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    assert not failures, f"{len(failures)} of {kind}: {failures[:10]}"
    assert [p.name for p in tmp_path.iterdir()] == [name]  # nothing in a file made another one
    assert outcomes["refused"] > 0.3 * CASES[kind] and outcomes["read"] > 0


def test_enough_cases():
    assert sum(CASES.values()) >= 10_000
