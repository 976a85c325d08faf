"""What initial potentials hold, merged; files that contradict each other are errors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from pacehpc.basis import Function
from pacehpc.errors import PacehpcError
from pacehpc.physics.parameters import Bond, Embedding
from pacehpc.potential.assemble import coefficients_by_function, identity_coefficients
from pacehpc.potential.blocks import Pair
from pacehpc.potential.check import SIZES
from pacehpc.potential.io import load_potential
from pacehpc.potential.model import Potential

Source = Potential | str | os.PathLike


@dataclass
class InitialParts:
    """Merged contents; pairs of elements that no file contains together are absent from bonds (sorted pairs)."""

    embeddings: dict[str, Embedding] = field(default_factory=dict)
    bonds: dict[Pair, Bond] = field(default_factory=dict)
    radcoefficients: dict[Pair, np.ndarray] = field(default_factory=dict)
    functions: dict[tuple[str, ...], dict[Function, np.ndarray]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def merge_initial(sources: Source | Sequence[Source]) -> InitialParts:
    """The parts of one or several potentials (objects or files).

    Metadata are kept where no other file says something else.

    Raises:
        PacehpcError: two files give different values to the same embedding, bond or coefficient; both are named.
    """
    if isinstance(sources, (Potential, str, os.PathLike)):
        sources = [sources]
    if not isinstance(sources, (list, tuple)) or not all(isinstance(s, (Potential, str, os.PathLike)) for s in sources):
        raise PacehpcError(f"potential.initial_potential: expected a file or a list of files, got {sources!r}")
    parts = InitialParts()
    disputed: set[str] = set()
    names: dict[object, str] = {}  # who gave a part first
    for number, source in enumerate(sources, start=1):
        name = f"initial potential {number}" if isinstance(source, Potential) else str(source)
        potential = source if isinstance(source, Potential) else load_potential(source)
        for element, embedding in potential.embeddings.items():
            where = f"embedding of {element}"
            _agree(where, embedding, parts.embeddings.setdefault(element, embedding), name, names)
        for pair in potential.pairs:
            where = f"bond {' '.join(pair)}"
            _agree(where, potential.bonds[pair], parts.bonds.setdefault(pair, potential.bonds[pair]), name, names)
            known = parts.radcoefficients.get(pair, np.zeros((0, 1, 0)))
            parts.radcoefficients[pair] = _merge_radial(where, potential.radcoefficients[pair], known, name, names)
            names.setdefault(where, name)
        for block in potential.blocks:
            rows = parts.functions.setdefault(block.elements, {})
            for function, c in coefficients_by_function(block).items():
                first = rows.setdefault(function, c.copy())
                if not np.array_equal(first, c):
                    raise PacehpcError(
                        f"{name} and {names[block.elements]} contradict each other: block {block.name}, function"
                        f" nr {list(function.ns)}, nl {list(function.ls)}, lint {list(function.LS)}:"
                        f" c is {c.tolist()} and {first.tolist()}"
                    )
            names.setdefault(block.elements, name)
        for key, value in potential.metadata.items():
            if parts.metadata.setdefault(key, value) != value:
                disputed.add(key)
        for element in potential.elements:
            names.setdefault(f"embedding of {element}", name)
    for key in disputed:
        del parts.metadata[key]
    return parts


def _agree(where: str, part: Embedding | Bond, first: Embedding | Bond, name: str, names: dict) -> None:
    for key in (f.name for f in fields(part) if f.name not in SIZES):
        value, other = getattr(part, key), getattr(first, key)
        if value != other:
            raise PacehpcError(
                f"{name} and {names[where]} contradict each other: {where}: {key} is {value} and {other};"
                " leave one of the files out or make them agree"
            )


def _merge_radial(where: str, c: np.ndarray, known: np.ndarray, name: str, names: dict) -> np.ndarray:
    """The larger of two coefficient arrays, which must be equal where both have values."""
    common = tuple(slice(min(sizes)) for sizes in zip(c.shape, known.shape, strict=True))
    if not np.array_equal(c[common], known[common]):
        n, l, k = np.argwhere(c[common] != known[common])[0]
        raise PacehpcError(
            f"{name} and {names[where]} contradict each other: {where}: radcoefficients n={n + 1}, l={l}, k={k + 1}"
            f" are {c[n, l, k]:.17g} and {known[n, l, k]:.17g}; leave one of the files out"
        )
    nradmax, angular, nradbase = (max(sizes) for sizes in zip(c.shape, known.shape, strict=True))
    merged = identity_coefficients(nradmax, angular - 1, nradbase)
    for values in (known, c):
        merged[tuple(slice(size) for size in values.shape)] = values
    return merged
