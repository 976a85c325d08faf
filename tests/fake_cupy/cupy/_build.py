"""CUDA sources compiled by the host's compiler, and their kernels called with checked arguments."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy

from . import _checks, cuda

FOLDER = Path(__file__).resolve().parents[1]
PRELUDE, DECLARATIONS = FOLDER / "cuda_on_host.h", FOLDER / "emulation.h"
RUNTIME = (FOLDER / "blocks.cpp", FOLDER / "checks.cpp")
FLAGS = ["-std=c++17", "-O1", "-g1", "-w", "-fPIC", "-fno-stack-protector", "-U_FORTIFY_SOURCE"]
# a product and a sum become one operation, as CUDA makes them, where the processor has it
FUSED = ["-fexpensive-optimizations", *(["-mfma"] if "fma" in Path("/proc/cpuinfo").read_text().split() else [])]
# g++: threads that take other paths to a barrier have to find one copy of it, and loads stay where the source has them
GNU = ["-fno-thread-jumps", "-fno-tree-dominator-opts", "-fno-tree-loop-im"]
CLANG = ["-fno-sanitize=local-bounds"]  # ends the process instead of the launch
CHECKS = ["-fsanitize=thread", "-fno-sanitize-recover=all"]
CHECKS += ["-fsanitize=bounds,signed-integer-overflow,shift,integer-divide-by-zero,float-cast-overflow"]
UNSET = "-ftrivial-auto-var-init=pattern"  # local variables that nobody set are no zeros; compilers since 2022 have it
KINDS = {"double": numpy.float64, "int": numpy.int32, "long long": numpy.int64}
KERNEL = re.compile(
    r'extern "C"\s+__attribute__\(\(noinline\)\)\s+void\s+'
    r"(?:__attribute__\(\(launch_bounds\((\d+)[^)]*\)\)\)\s+)?(\w+)\s*\(([^)]*)\)"
)
MOST_SHARED, MOST_ARGUMENTS = 48 << 10, 4 << 10  # bytes that every device gives a block, and a launch

order = SimpleNamespace(threads="ascending")
launches: list[str] = []  # names of the kernels launched


class RawModule:
    def __init__(self, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        assert backend == "nvrtc" and isinstance(options, tuple)
        self._checked = _checks.on()
        self._path, self._kernels = _build(code, self._checked)
        self._library = ctypes.CDLL(str(self._path))

    def get_function(self, name: str) -> _Kernel:
        return _Kernel(name, self._kernels[name], self._library[f"launch_{name}"], self._path, self._checked)


class _Launch(ctypes.Structure):
    """As in emulation.h."""

    _fields_ = (
        ("grid", ctypes.c_uint),
        ("block", ctypes.c_uint),
        ("order", ctypes.c_int),
        ("device", ctypes.c_int),
        ("checked", ctypes.c_int),
        ("arguments", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("n_arguments", ctypes.c_long),
        ("shared", ctypes.c_void_p),
        ("n_shared", ctypes.c_long),
    )


class _Kernel:
    """properties: types and names of its parameters, the most threads of a block (or 0), its shared arrays."""

    def __init__(self, name: str, properties: dict, function: Callable, library: Path, checked: bool) -> None:
        self.name, self.properties, self.function = name, properties, function
        self.library, self.checked = library, checked

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[object, ...]) -> None:
        import cupy

        assert cuda._current.stream is not None, "launched into the default stream"
        assert block[0] % 32 == 0 and 0 < block[0] <= (self.properties["most_threads"] or 1024), "threads of a block"
        assert 0 < grid[0] < 2**31, "blocks"
        assert sum(size for _, size in self.properties["shared"]) <= MOST_SHARED, f"{self.name}: too much shared memory"
        parameters = self.properties["parameters"]
        if len(arguments) != len(parameters):
            raise TypeError(f"{self.name} takes {len(parameters)} arguments, {len(arguments)} given")
        buffers, names = [], {}
        for (kind, name), argument in zip(parameters, arguments, strict=True):
            if kind.endswith("*"):
                wanted = KINDS[kind.removesuffix("*").removeprefix("const ").strip()]
                assert isinstance(argument, cupy.ndarray), f"{self.name}: {kind} given {type(argument)}"
                assert argument.dtype == wanted, f"{self.name}: {kind} given {argument.dtype}"
                assert argument.device == cuda._current.device, f"{self.name}: an array of another device"
                buffers.append(numpy.array([argument.data.ptr], numpy.uint64))
                names[argument.data.ptr] = name
            elif kind in KINDS:
                assert isinstance(argument, numpy.generic), f"{self.name}: {kind} given {type(argument)}"
                assert argument.dtype == KINDS[kind], f"{self.name}: {kind} given {argument.dtype}"
                buffers.append(numpy.array([argument]))
            else:  # a struct: CuPy passes NumPy arrays of size one by value
                assert isinstance(argument, numpy.ndarray) and argument.size == 1, f"{self.name}: {kind}"
                buffers.append(argument.copy())
                pointers = (key for key, (dtype, _) in argument.dtype.fields.items() if dtype == numpy.uint64)
                names |= {int(argument[key].item()): key for key in pointers}
        assert sum(b.nbytes for b in buffers) <= MOST_ARGUMENTS, f"{self.name}: too many bytes of arguments"
        cuda.submit(lambda: self._run(grid[0], block[0], buffers, names))

    def _run(self, grid: int, block: int, buffers: list[numpy.ndarray], names: dict[int, str]) -> None:
        addresses = (ctypes.c_void_p * len(buffers))(*(b.ctypes.data for b in buffers))
        sizes = (ctypes.c_long * len(buffers))(*(b.nbytes for b in buffers))
        shared = [number for array in self.properties["shared"] for number in array]
        places = (ctypes.c_long * len(shared))(*shared)
        which = ("ascending", "descending", "shuffled").index(order.threads)
        status = self.function(
            ctypes.byref(
                _Launch(
                    grid, block, which, cuda._current.device, self.checked,
                    ctypes.addressof(addresses), ctypes.addressof(sizes), len(buffers),
                    ctypes.addressof(places), len(shared) // 2,
                )
            )
        )  # fmt: skip
        launches.append(self.name)
        if status == 2:
            raise TypeError(f"{self.name}: arguments of {list(sizes)} bytes do not fit {self.properties['parameters']}")
        if status:
            raise RuntimeError(_checks.explain(self.name, self.library, block, names))


@functools.cache
def runtime() -> Path:
    """The library that runs the threads of blocks and checks them."""
    sources = {path.name: path.read_text() for path in (DECLARATIONS, *RUNTIME)}

    def make(folder: Path) -> None:
        for name, text in sources.items():
            (folder / name).write_text(text)
        _compile([*FLAGS, "-shared", "-o", "library.so", *(path.name for path in RUNTIME)], folder)

    return _cached([*FLAGS, *sources.values()], make) / "library.so"


def _build(code: str, checked: bool) -> tuple[Path, dict[str, dict]]:
    """A library of a source's kernels, and the properties of each (see _Kernel)."""
    source = f'#include "{PRELUDE}"\n{code}'
    flags = FLAGS + FUSED + (CHECKS if checked else []) + (CLANG if "clang" in _compiler() else GNU)

    def make(folder: Path) -> None:
        path = folder / "kernels.cpp"
        path.write_text(source)
        kernels = KERNEL.findall(_compile(["-std=c++17", "-w", "-E", "-P", "kernels.cpp"], folder))
        path.write_text(source + "".join(f"\nLAUNCHER({name})" for _, name, _ in kernels) + "\n")
        unset = [UNSET] if _run([UNSET, "-E", "-x", "c++", "/dev/null"], folder).returncode == 0 else []
        _compile([*flags, *unset, "-c", "-o", "kernels.o", "kernels.cpp"], folder)
        _compile(["-shared", "-o", "library.so", "kernels.o", str(runtime())], folder)
        shared = _shared_arrays(folder / "library.so")
        properties = {}
        for most, name, parameters in kernels:
            split = [re.fullmatch(r"(.*?)\s*(\w+)", " ".join(p.split())).groups() for p in parameters.split(",")]
            kinds = [(kind if kind.endswith("*") else kind.removeprefix("const "), name) for kind, name in split]
            properties[name] = {"parameters": kinds, "most_threads": int(most or 0), "shared": shared.get(name, [])}
        (folder / "properties.json").write_text(json.dumps(properties))

    made = _cached([*flags, UNSET, source, PRELUDE.read_text(), str(runtime())], make)
    return made / "library.so", json.loads((made / "properties.json").read_text())


def _cached(key: Iterable[str], make: Callable[[Path], None]) -> Path:
    """A folder with what `make` puts there, made once for a key."""
    everything = Path(tempfile.gettempdir()) / f"pacehpc-fake-cupy-{os.getuid()}"
    everything.mkdir(mode=0o700, exist_ok=True)
    folder = everything / hashlib.sha256("\0".join([_compiler(), *key]).encode()).hexdigest()[:32]
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=everything) as build:
            (Path(build) / "made").mkdir()
            make(Path(build) / "made")
            with contextlib.suppress(OSError):  # another process was first
                os.rename(Path(build) / "made", folder)
    return folder


def _compiler() -> str:
    return os.environ.get("CXX", "g++")


def _run(options: list[str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([_compiler(), *options], cwd=folder, capture_output=True, text=True, check=False)


def _compile(options: list[str], folder: Path) -> str:
    done = _run(options, folder)
    assert done.returncode == 0, done.stderr[:4000]
    return done.stdout


def _shared_arrays(library: Path) -> dict[str, list[tuple[int, int]]]:
    """Shared arrays by kernel: where they begin in their section, and their bytes."""
    done = subprocess.run(["nm", "-S", str(library)], capture_output=True, text=True, check=True)
    symbols = [line.split() for line in done.stdout.splitlines()]
    begin = next((int(s[0], 16) for s in symbols if s[-1] == "__start_cuda_shared" and len(s) > 2), 0)
    found: dict[str, list[tuple[int, int]]] = {}
    for symbol in symbols:
        local = re.match(r"_ZZ(\d+)", symbol[-1])  # a static variable in a function that C can call
        if local and len(symbol) == 4:
            kernel = symbol[-1][local.end() :][: int(local[1])]
            found.setdefault(kernel, []).append((int(symbol[0], 16) - begin, int(symbol[1], 16)))
    return found
