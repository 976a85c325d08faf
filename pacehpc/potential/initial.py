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


def merge_initial(sources: Source | Sequence[Source], conflict: str | None = None) -> InitialParts:
    """Merge the parts of one or several potentials.

    Metadata are kept where no other file says something else.

    Args:
        sources: potentials or files.
        conflict: "first" or "last": whose values count where several hold the same bond, embedding or block with
            different ones, such as an element that two alloys share; None: that is an error. A block or bond is taken
            whole from one of them.

    Raises:
        PacehpcError: contradictions, with both values; sources that are no potentials.
    """
    if isinstance(sources, (Potential, str, os.PathLike)):
        sources = [sources]
    if not isinstance(sources, (list, tuple)) or not all(isinstance(s, (Potential, str, os.PathLike)) for s in sources):
        raise PacehpcError(f"potential.initial_potential: expected a file or a list of files, got {sources!r}")
    if conflict not in (None, "first", "last"):
        raise PacehpcError(f"potential.initial_conflict: expected first or last, got {conflict!r}")
    parts = InitialParts()
    disputed: set[str] = set()
    names: dict[object, str] = {}  # who gave a part first
    numbered = list(enumerate(sources, start=1))
    for number, source in reversed(numbered) if conflict == "last" else numbered:
        name = f"initial potential {number}" if isinstance(source, Potential) else str(source)
        potential = source if isinstance(source, Potential) else load_potential(source)
        settled = _settled(parts, potential) if conflict else set()
        for element, embedding in potential.embeddings.items():
            where = f"embedding of {element}"
            if where not in settled:
                _agree(where, embedding, parts.embeddings.setdefault(element, embedding), name, names)
                names.setdefault(where, name)
        for pair in potential.pairs:
            where = f"bond {' '.join(pair)}"
            if where in settled:
                continue
            _agree(where, potential.bonds[pair], parts.bonds.setdefault(pair, potential.bonds[pair]), name, names)
            known = parts.radcoefficients.get(pair, np.zeros((0, 1, 0)))
            parts.radcoefficients[pair] = _merge_radial(where, potential.radcoefficients[pair], known, name, names)
            names.setdefault(where, name)
        for block in potential.blocks:
            if block.elements in settled:
                continue
            rows = parts.functions.setdefault(block.elements, {})
            for function, c in coefficients_by_function(block).items():
                first = rows.setdefault(function, c.copy())
                if not np.array_equal(first, c):
                    raise PacehpcError(
                        f"{name} and {names[block.elements]} contradict each other: block {block.name}, function"
                        f" nr {list(function.ns)}, nl {list(function.ls)}, lint {list(function.LS)}:"
                        f" c is {c.tolist()} and {first.tolist()}; {_CHOOSE}"
                    )
            names.setdefault(block.elements, name)
        for key, value in potential.metadata.items():
            if parts.metadata.setdefault(key, value) != value:
                disputed.add(key)
    for key in disputed:
        del parts.metadata[key]
    return parts


def _settled(parts: InitialParts, potential: Potential) -> set[object]:
    """What a file that came before has already: the embedding, bond and block of each element and pair that both have.

    The two parts of a pair belong together: functions are fitted with their radial coefficients.
    """
    return {
        *(f"embedding of {element}" for element in potential.embeddings if element in parts.embeddings),
        *(f"bond {' '.join(pair)}" for pair in potential.pairs if pair in parts.bonds),
        *(block.elements for block in potential.blocks if block.elements in parts.functions),
    }


_CHOOSE = "say which file counts with potential.initial_conflict: first or last"


def _agree(where: str, part: Embedding | Bond, first: Embedding | Bond, name: str, names: dict) -> None:
    for key in (f.name for f in fields(part) if f.name not in SIZES):
        value, other = getattr(part, key), getattr(first, key)
        if value != other:
            raise PacehpcError(
                f"{name} and {names[where]} contradict each other: {where}: {key} is {value} and {other}; {_CHOOSE}, "
                "leave one of the files out, or make them agree"
            )


def _merge_radial(where: str, c: np.ndarray, known: np.ndarray, name: str, names: dict) -> np.ndarray:
    """The larger of two coefficient arrays, which must be equal where both have values."""
    common = tuple(slice(min(sizes)) for sizes in zip(c.shape, known.shape, strict=True))
    if not np.array_equal(c[common], known[common]):
        n, l, k = np.argwhere(c[common] != known[common])[0]
        raise PacehpcError(
            f"{name} and {names[where]} contradict each other: {where}: radcoefficients n={n + 1}, l={l}, k={k + 1}"
            f" are {c[n, l, k]:.17g} and {known[n, l, k]:.17g}; {_CHOOSE}, or leave one of the files out"
        )
    nradmax, angular, nradbase = (max(sizes) for sizes in zip(c.shape, known.shape, strict=True))
    merged = identity_coefficients(nradmax, angular - 1, nradbase)
    for values in (known, c):
        merged[tuple(slice(size) for size in values.shape)] = values
    return merged
