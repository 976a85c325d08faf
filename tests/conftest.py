"""What tests of several rooms share: golden values, data outside the checkout, an independent neighbour search."""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from environments import cannot_run

from pacehpc.structures import Structures
from pacehpc.walltime import SIGNALS

BACKENDS = ["reference", "cpu"]

GOLDEN = Path(__file__).parent / "golden"
POTENTIALS = sorted(path.stem for path in (GOLDEN / "potentials").glob("*.extxyz"))
SHARED = Path(__file__).parents[2] / "shared"
# Tests that start several ranks run one after the other, so that two jobs never share the cores.
RANKS = (
    "lammps/",
    "mpi/",
    "nodes/",
    "checkpoint/test_resume_matrix.py",
    "uncertainty/test_uncertainty_of_fits.py",
    "uncertainty/test_uq_command.py",
    "backends/test_cuda_program.py",
    "checkpoint/test_other_kernels.py",
    "test_examples.py",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`backend`: every backend that runs here; `golden_name`: every potential under golden/potentials."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", BACKENDS)
    if "golden_name" in metafunc.fixturenames:
        metafunc.parametrize("golden_name", POTENTIALS)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under `pytest -n 3 --dist loadgroup`, keep the tests of a file in one worker, where they share their fixtures.

    All tests that start ranks go to one worker; so do those of callers, which share an environment, and those in Slurm,
    which wait more than they compute. Long groups come first, so that none is left for the end.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    group, slow = {}, set()
    for item in items:
        name = item.path.relative_to(Path(__file__).parent).as_posix()
        room = name.split("/")[0]
        group[item] = room if room in ("slurm", "callers") else "ranks" if name.startswith(RANKS) else name
        item.add_marker(pytest.mark.xdist_group(group[item]))
        if item.get_closest_marker("slow"):
            slow.add(group[item])
    if config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        items.sort(key=lambda item: (group[item] not in ("ranks", "slurm"), group[item] not in slow))


@pytest.fixture(autouse=True)
def level_of_log() -> Iterator[None]:
    """What a program under test sets of the logger ends with the test."""
    log = logging.getLogger("pacehpc")
    level, propagate = log.level, log.propagate
    yield
    log.setLevel(level)
    log.propagate = propagate


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """What a program under test does with signals ends with the test: its last step ignores them."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference values."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of a file in the folder beside the checkout that holds large data; without it a test is skipped."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            cannot_run(f"needs {name} in {SHARED}")
        return path

    return find


@pytest.fixture(scope="session")
def brute_force() -> Callable[..., Structures]:
    """Structures of a list of atoms by trying all images: nothing of the package's neighbour search is used."""
    return _brute_force


def _brute_force(potential, frames) -> Structures:
    elements = list(potential.elements)
    species, vectors, partners, counts, volumes = [], [], [], [], []
    start = 0
    for atoms in frames:
        symbols = atoms.get_chemical_symbols()
        species += [elements.index(symbol) for symbol in symbols]
        images = [range(-n, n + 1) for n in _images(atoms, potential.cutoff)]
        shifts = np.array(list(itertools.product(*images))) @ atoms.cell.array
        for i, symbol in enumerate(symbols):
            d = atoms.positions[None, :, :] + shifts[:, None, :] - atoms.positions[i]
            r = np.linalg.norm(d, axis=2)
            rcut = np.array([potential.bonds[symbol, other].rcut for other in symbols])
            image, j = np.nonzero((r > 0) & (r < rcut))
            vectors.append(d[image, j])
            partners.append(j + start)
            counts.append(len(j))
        start += len(atoms)
        volumes.append(atoms.get_volume() if atoms.pbc.all() else 0.0)
    return Structures(
        atom_offsets=np.cumsum([0] + [len(atoms) for atoms in frames]),
        species=np.array(species, dtype=np.int32),
        bond_offsets=np.cumsum([0, *counts]),
        bond_atom=np.concatenate(partners).astype(np.int32),
        bond_vector=np.concatenate(vectors),
        volumes=np.array(volumes),
    )


def _images(atoms, cutoff: float) -> list[int]:
    """Images to try along each cell vector: those within the cutoff plus the structure's own extent."""
    if not atoms.pbc.any():
        return [0, 0, 0]
    reach = cutoff + np.linalg.norm(np.ptp(atoms.positions, axis=0))
    heights = 1.0 / np.linalg.norm(np.linalg.pinv(atoms.cell.array), axis=0)
    return [int(np.ceil(reach / h)) if periodic else 0 for h, periodic in zip(heights, atoms.pbc, strict=True)]
