"""NVRTC through ctypes: compiles CUDA for any architecture on a machine without a GPU."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Kernel:
    """What the assembler reports of one kernel; bytes but for registers."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int


class Nvrtc:
    """One version of the library."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)

    def compile(self, source: str, arch: str) -> str:
        """Compile for `arch` (sm_90); returns the log with the assembler's report, raises RuntimeError with it."""
        lib, program = self._lib, ctypes.c_void_p()
        lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"evaluate.cu", 0, None, None)
        options = [f"-arch={arch}".encode(), b"-std=c++17", b"--ptxas-options=-v"]
        status = lib.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        size = ctypes.c_size_t()
        lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        lib.nvrtcGetProgramLog(program, log)
        cubin = ctypes.c_size_t()
        lib.nvrtcGetCUBINSize(program, ctypes.byref(cubin))
        lib.nvrtcDestroyProgram(ctypes.byref(program))
        text = log.value.decode(errors="replace")
        if status or not cubin.value:
            raise RuntimeError(f"NVRTC {self.version} for {arch}: status {status}\n{text}")
        return text


@functools.cache
def find(major: int) -> Nvrtc | None:
    """The library of a CUDA release as the packages nvidia-cuda-nvrtc and nvidia-cuda-nvrtc-cu12 install it."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else []:
        for path in sorted(Path(folder).glob(f"*/lib/libnvrtc.so.{major}")):
            return Nvrtc(path)
    return None


def report(log: str) -> tuple[dict[str, Kernel], list[str]]:
    """Kernels by name, and the warnings in a log."""
    kernels, name, stack = {}, "", (0, 0, 0)
    for line in log.splitlines():
        if match := re.search(r"Function properties for (\w+)|Compiling entry function '(\w+)'", line):
            name = match[1] or match[2]
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack = tuple(int(value) for value in match.groups())
        elif match := re.search(r"Used (\d+) registers", line):
            kernels[name] = Kernel(int(match[1]), *stack)
    return kernels, [line for line in log.splitlines() if "warning" in line.lower()]
