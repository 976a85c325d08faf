"""The CUDA kernels of a potential as one text, which needs no include path, and the layout of their structures."""

from __future__ import annotations

import re

import numpy as np

from pacehpc.backends.compile import kernel_folder
from pacehpc.errors import PacehpcError

LANES = 32
SOURCE = "evaluate.cu"

_KINDS = {"index_t": np.int64, "int": np.int32, "double": np.float64}


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


def record(struct: str) -> np.dtype:
    """Structured dtype of a struct of the kernels, read from their source so that the two cannot differ."""
    for name in ("problem.h", SOURCE):
        text = re.sub(r"//[^\n]*", "", (kernel_folder() / name).read_text(encoding="utf-8"))
        match = re.search(rf"struct {struct} \{{(.*?)\}};", text, re.S)
        if match:
            break
    else:
        raise PacehpcError(f"the kernel sources are damaged (no struct {struct}): install pacehpc again.")
    fields = []
    for declaration in filter(None, (part.strip() for part in match[1].split(";"))):
        parsed = re.fullmatch(r"((?:const\s+)?\w+\*?)\s+(.*)", declaration, re.S)
        kind, names = parsed.groups()
        dtype = np.uint64 if kind.endswith("*") else _KINDS[kind]
        fields += [(field.strip(), dtype) for field in names.split(",")]
    return np.dtype(fields, align=True)
