"""All kernels for the golden shapes through NVIDIA's own compiler, for every architecture, without a GPU.

A compilation takes four to ten seconds, so the tests take every shape with every compiler, for one architecture in
turn, and the shapes with most couplings and most elements for every architecture. `python tests/backends/test_nvrtc.py`
takes every shape for every architecture: seven minutes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nvrtc
import pytest
from environments import cannot_run

from pacehpc import Potential
from pacehpc.backends.shape import make_shape
from pacehpc.backends.source import cuda_source, kernel_names

GOLDEN = Path(__file__).parents[1] / "golden"
TARGETS = {12: ("sm_70", "sm_80", "sm_90", "sm_100"), 13: ("sm_80", "sm_90", "sm_100")}
PACKAGES = {12: "nvidia-cuda-nvrtc-cu12==12.9.*", 13: "nvidia-cuda-nvrtc"}
HARDEST = ("cu_chebpow_dcut", "cuozr_zbl")
SLOWEST = "sm_100"  # to compile for
STACK = 256  # bytes


def sources() -> dict[str, str]:
    """CUDA text of every golden shape, with virials."""
    paths = sorted((GOLDEN / "potentials").glob("*.yaml")) + sorted((GOLDEN / "loss").glob("*.yaml"))
    return {path.stem: cuda_source(make_shape(Potential.load(path), stress=True).header) for path in paths}


def log_of(library: nvrtc.Nvrtc, source: str, arch: str) -> str:
    """The compiler's log, kept between runs of the tests under the hash of what it depends on."""
    folder = Path(tempfile.gettempdir()) / f"pacehpc-nvrtc-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    digest = hashlib.sha256(f"{library.version} {arch} {source}".encode()).hexdigest()[:32]
    path = folder / f"{digest}.log"
    if not path.exists():
        log = library.compile(source, arch)
        beside = path.with_suffix(f".{os.getpid()}.{arch}")
        beside.write_text(log)
        beside.replace(path)
    return path.read_text()


def pairs(major: int, names: Iterable[str]) -> list[tuple[str, str]]:
    """(shape, architecture) that are compiled in the tests."""
    turns = itertools.cycle(arch for arch in TARGETS[major] if arch != SLOWEST)
    return [
        (name, arch)
        for name, turn in zip(names, turns, strict=False)
        for arch in (TARGETS[major] if name in HARDEST else [turn])
    ]


@pytest.mark.parametrize("major", [12, 13])
def test_every_shape_and_every_architecture_are_compiled(major):
    found = pairs(major, sources())
    assert {name for name, _ in found} == set(sources()) >= set(HARDEST)
    assert {arch for _, arch in found} == set(TARGETS[major])


@pytest.mark.slow
@pytest.mark.parametrize("major", [12, 13])
def test_kernels_compile_without_spills(major):
    library = nvrtc.find(major)
    if library is None:
        cannot_run(f"needs pip install '{PACKAGES[major]}'")
    if major == 12:
        assert library.version == (12, 9)
    faults = faults_of(library, pairs(major, sources()))
    assert not faults, "\n".join(map(str, faults))


def faults_of(library: nvrtc.Nvrtc, jobs: list[tuple[str, str]]) -> list[tuple]:
    """Warnings, and kernels that spill registers or need much stack."""
    texts, faults = sources(), []
    with ThreadPoolExecutor(2) as pool:
        logs = list(pool.map(lambda job: log_of(library, texts[job[0]], job[1]), jobs))
    for (name, arch), log in zip(jobs, logs, strict=True):
        kernels, warnings = nvrtc.report(log)
        assert set(kernels) == set(kernel_names()), (name, arch)
        faults += [(name, arch, line) for line in warnings if "deprecated" not in line]
        faults += [
            (name, arch, kernel, found)
            for kernel, found in kernels.items()
            if found.spill_stores or found.spill_loads or found.stack > STACK
        ]
    return faults


def test_report_is_read():
    """Numbers of the report, in the form that the assembler writes it."""
    log = (
        "ptxas info    : Compiling entry function 'couple' for 'sm_90'\n"
        "ptxas info    : Function properties for couple\n"
        "    40 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n"
        "ptxas info    : Used 88 registers, used 1 barriers\n"
        "kernels/x.h(3): warning #177-D: variable was declared but never referenced\n"
    )
    kernels, warnings = nvrtc.report(log)
    assert kernels == {"couple": nvrtc.Kernel(88, 40, 12, 16)} and len(warnings) == 1


if __name__ == "__main__":
    for release, targets in TARGETS.items():
        every = [(name, arch) for name in sources() for arch in targets]
        print(release, "\n".join(map(str, faults_of(nvrtc.find(release), every))) or "no spills, no warnings")
