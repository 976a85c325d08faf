"""Active sets (.asi files) as the kernels use them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from pacehpc.backends.program import Grades
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential


def read_active_set(path: str | os.PathLike[str], potential: Potential) -> dict[str, Grades]:
    """Inverse of the active set of each element, checked against the potential.

    Args:
        path: file with one array per element; a name that ends with `.nonlinear` holds full rows.
        potential: the potential that the set was made with.

    Raises:
        PacehpcError: the file cannot be read, or belongs to another potential.
    """
    path, full = Path(path), str(path).endswith(".nonlinear")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.array(file[name], float) for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise PacehpcError(f"{path} cannot be read as an active set: {error}. `pace_activeset` makes one.") from None
    grades = {}
    for element in potential.elements:
        n = sum(len(block.functions) for block in potential.blocks if block.elements[0] == element)
        n *= potential.embeddings[element].ndensity if full else 1
        found = arrays[element].shape if element in arrays else None
        if found != (n, n):
            raise PacehpcError(
                f"{path}: the active set of {element} {f'has shape {found}' if found else 'is missing'}, but the "
                f"potential needs {n} x {n}: make it again with `pace_activeset` for this potential."
            )
        grades[element] = Grades(arrays[element], full)
    return grades
