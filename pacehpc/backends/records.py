"""NumPy records with the layout of the kernels' structs, read from the sources so that the two cannot differ."""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from pacehpc.backends.compile import kernel_folder
from pacehpc.errors import PacehpcError

SOURCES = ("problem.h", "rows.h", "program_tables.h", "evaluate.cu")
_KINDS = {"index_t": np.int64, "int64_t": np.int64, "int": np.int32, "double": np.float64}


@cache
def record(struct: str) -> np.dtype:
    """The dtype of a struct of the kernels; pointers are uint64 addresses.

    Raises:
        PacehpcError: the installed sources have no such struct.
    """
    for name in SOURCES:
        text = re.sub(r"//[^\n]*", "", (kernel_folder() / name).read_text(encoding="utf-8"))
        match = re.search(rf"struct {struct} \{{(.*?)\}};", text, re.S)
        if match:
            break
    else:
        raise PacehpcError(f"the kernel sources are damaged (no struct {struct}): install pacehpc again.")
    kinds = _KINDS | dict.fromkeys(re.findall(r"enum class (\w+) : index_t", text), np.int64)
    fields = []
    for declaration in filter(None, (part.strip() for part in match[1].split(";"))):
        kind, names = re.fullmatch(r"((?:const\s+)?\w+\*?(?:\s+const\*)*)\s+(.*)", declaration, re.S).groups()
        dtype = np.uint64 if kind.endswith("*") else kinds[kind]
        fields += [(field.strip(), dtype) for field in names.split(",")]
    return np.dtype(fields, align=True)
