"""All kernels for the golden shapes through NVIDIA's own compiler, for every architecture, without a GPU."""

from __future__ import annotations

import hashlib
import os
import tempfile
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
STACK = 256  # bytes


def sources() -> dict[str, str]:
    """CUDA text of every golden shape, with virials."""
    paths = sorted((GOLDEN / "potentials").glob("*.yaml")) + sorted((GOLDEN / "loss").glob("*.yaml"))
    return {path.stem: cuda_source(make_shape(Potential.load(path)).header(stress=True)) for path in paths}


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


@pytest.mark.slow
@pytest.mark.parametrize("major", [12, 13])
def test_kernels_compile_without_spills(major):
    library = nvrtc.find(major)
    if library is None:
        cannot_run(f"needs pip install '{PACKAGES[major]}'")
    if major == 12:
        assert library.version == (12, 9)
    jobs = [(name, arch, source) for name, source in sources().items() for arch in TARGETS[major]]
    with ThreadPoolExecutor(2) as pool:
        logs = list(pool.map(lambda job: log_of(library, job[2], job[1]), jobs))
    faults = []
    for (name, arch, _), log in zip(jobs, logs, strict=True):
        kernels, warnings = nvrtc.report(log)
        assert set(kernels) == set(kernel_names()), (name, arch)
        faults += [(name, arch, line) for line in warnings if "deprecated" not in line]
        faults += [
            (name, arch, kernel, found)
            for kernel, found in kernels.items()
            if found.spill_stores or found.spill_loads or found.stack > STACK
        ]
    assert not faults, "\n".join(map(str, faults))


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
