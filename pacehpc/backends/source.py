"""The CUDA kernels of a potential as one text, which needs no include path, and their compilation."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from pacehpc.backends.compile import kernel_folder
from pacehpc.backends.device import load_cupy, text_of
from pacehpc.backends.shape import make_shape
from pacehpc.potential import Potential

LANES = 32
SOURCE = "evaluate.cu"


def cuda_source(header: str) -> str:
    """kernels/evaluate.cu with the shape header of `pacehpc.backends.shape` and all it includes written in place.

    One text, because the cache of compiled kernels is keyed by it; lines keep their files' names in messages.
    """
    return "\n".join([f"#define LANES {LANES}", header, *_with_includes(SOURCE, set())]) + "\n"


def _with_includes(name: str, seen: set[str]) -> list[str]:
    if name in seen:
        return []
    seen.add(name)
    lines = [f'#line 1 "kernels/{name}"']
    for number, line in enumerate((kernel_folder() / name).read_text(encoding="utf-8").splitlines(), 1):
        include = re.fullmatch(r'#include "(.+)"', line)
        if include:
            lines += [*_with_includes(include[1], seen), f'#line {number + 1} "kernels/{name}"']
        elif line != "#pragma once":
            lines.append(line)
        else:
            lines.append("")
    return lines


def kernel_names() -> list[str]:
    """Names of the kernels in kernels/evaluate.cu, in order."""
    text = (kernel_folder() / SOURCE).read_text(encoding="utf-8")
    return re.findall(r'(?:^KERNEL\(\d+, \d+\)|^extern "C" __global__ void) (\w+)\(', text, re.M)


def made_with() -> str:
    """What the bits of kernels depend on beside the potential: devices, NVRTC, and a hash of the sources."""
    cupy = load_cupy()
    runtime = cupy.cuda.runtime
    devices = sorted({text_of(runtime.getDeviceProperties(k)["name"]) for k in range(runtime.getDeviceCount())})
    nvrtc = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    return f"{', '.join(devices)}, NVRTC {nvrtc}, {hashlib.sha256(cuda_source('').encode()).hexdigest()[:8]}"


def prepare(potential: Potential, stress: bool) -> None:
    """Compile the kernels of a potential for this process's device into CuPy's cache (CUPY_CACHE_DIR)."""
    module_of(load_cupy(), make_shape(potential).header(stress)).get_function("sizes")


def module_of(cupy: Any, header: str) -> Any:
    """The kernels of a shape, compiled when the first of them is asked for."""
    return cupy.RawModule(code=cuda_source(header), options=("-std=c++17",), backend="nvrtc")
