"""CUDA sources compiled by the host's compiler, and their kernels called with checked arguments."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy

from . import cuda

PRELUDE = Path(__file__).resolve().parents[1] / "cuda_on_host.h"
FLAGS = ("-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-fno-stack-protector", "-U_FORTIFY_SOURCE")
KINDS = {"double": numpy.float64, "int": numpy.int32, "long long": numpy.int64}

order = SimpleNamespace(threads="ascending")
launches: list[str] = []  # names of the kernels launched


class RawModule:
    def __init__(self, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        assert backend == "nvrtc" and isinstance(options, tuple)
        library, self._signatures = _build(code)
        self._library = ctypes.CDLL(str(library))

    def get_function(self, name: str) -> _Kernel:
        return _Kernel(name, self._signatures[name], self._library[f"launch_{name}"])


class _Kernel:
    def __init__(self, name: str, parameters: list[str], function: object) -> None:
        self.name, self.parameters, self.function = name, parameters, function

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[object, ...]) -> None:
        import cupy

        assert cuda._current.stream is not None, "launched into the default stream"
        assert block[0] % 32 == 0 and 0 < block[0] <= 1024 and grid[0] > 0
        if len(arguments) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, {len(arguments)} given")
        buffers = []
        for kind, argument in zip(self.parameters, arguments, strict=True):
            if kind.endswith("*"):
                wanted = KINDS[kind.removesuffix("*").removeprefix("const ").strip()]
                assert isinstance(argument, cupy.ndarray), f"{self.name}: {kind} given {type(argument)}"
                assert argument.dtype == wanted, f"{self.name}: {kind} given {argument.dtype}"
                assert argument.device == cuda._current.device, f"{self.name}: an array of another device"
                buffers.append(numpy.array([argument.data.ptr], numpy.uint64))
            elif kind in KINDS:
                assert isinstance(argument, numpy.generic), f"{self.name}: {kind} given {type(argument)}"
                assert argument.dtype == KINDS[kind], f"{self.name}: {kind} given {argument.dtype}"
                buffers.append(numpy.array([argument]))
            else:  # a struct: CuPy passes NumPy arrays of size one by value
                assert isinstance(argument, numpy.ndarray) and argument.size == 1, f"{self.name}: {kind}"
                buffers.append(argument.copy())
        cuda.submit(lambda: self._run(grid[0], block[0], buffers))

    def _run(self, grid: int, block: int, buffers: list[numpy.ndarray]) -> None:
        addresses = (ctypes.c_void_p * len(buffers))(*(b.ctypes.data for b in buffers))
        sizes = (ctypes.c_long * len(buffers))(*(b.nbytes for b in buffers))
        which = ("ascending", "descending", "shuffled").index(order.threads)
        status = self.function(grid, block, which, addresses, sizes, ctypes.c_long(len(buffers)))
        launches.append(self.name)
        if status == 2:
            raise TypeError(f"{self.name}: arguments of {list(sizes)} bytes do not fit {self.parameters}")
        if status:
            raise RuntimeError(f"{self.name}: threads of a block wait for others that never come")


def _build(code: str) -> tuple[Path, dict[str, list[str]]]:
    folder = Path(tempfile.gettempdir()) / f"pacehpc-fake-cupy-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    compiler = os.environ.get("CXX", "g++")
    source = f'#include "{PRELUDE}"\n{code}'
    digest = hashlib.sha256("\0".join([source, PRELUDE.read_text(), repr(FLAGS)]).encode()).hexdigest()[:32]
    library, text = folder / f"{digest}.so", folder / f"{digest}.txt"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as build:
            path = Path(build) / "kernels.cpp"
            path.write_text(source)
            expand = [compiler, "-std=c++17", "-w", "-E", "-P", str(path)]
            plain = subprocess.run(expand, capture_output=True, text=True, check=True)
            found = re.findall(r'extern "C"\s+void\s+(\w+)\s*\(([^)]*)\)', plain.stdout)
            path.write_text(source + "".join(f"\nLAUNCHER({name})" for name, _ in found) + "\n")
            result = subprocess.run(
                [compiler, *FLAGS, "-o", f"{build}/kernels.so", str(path)], capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr[:4000]
            (Path(build) / "signatures").write_text("\n".join(f"{name}|{parameters}" for name, parameters in found))
            os.replace(Path(build) / "signatures", text)
            os.replace(Path(build) / "kernels.so", library)
    signatures = {}
    for line in text.read_text().splitlines():
        name, parameters = line.split("|")
        kinds = [re.sub(r"\s*\w+$", "", " ".join(p.split())) for p in parameters.split(",")]
        signatures[name] = [kind if kind.endswith("*") else kind.removeprefix("const ").strip() for kind in kinds]
    return library, signatures
