"""Keys of the sections `embeddings`, `bonds` and `functions`: ALL, UNARY, BINARY, ... and explicit elements."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pacehpc.errors import PacehpcError

KEYWORDS = ("ALL", "UNARY", "BINARY", "TERNARY", "QUATERNARY", "QUINARY")
"""From weak to strong; the position is the number of different elements meant. Explicit elements are stronger still."""


def element_names(key: Any, elements: Iterable[str], where: str) -> tuple[str, ...]:
    """The elements that a key names: "AlNi", "Al Ni", "(Al, Ni)" or ("Al", "Ni") give ("Al", "Ni").


    Raises:
        PacehpcError: anything that is not made of `elements`.
    """
    elements = tuple(elements)
    words = list(key) if isinstance(key, (tuple, list)) else re.split(r"[\s,()\[\]]+", str(key))
    names: list[str] = []
    for word in words:
        if word in elements:
            names.append(word)
            continue
        parts = re.findall(r"[A-Z][a-z]?", str(word))
        if "".join(parts) != str(word):
            raise PacehpcError(
                f"{where}: '{key}' is neither a keyword ({', '.join(KEYWORDS)}) nor made of elements ({list(elements)})"
            )
        names += parts
    unknown = [name for name in names if name not in elements]
    if unknown or not names:
        raise PacehpcError(
            f"{where}: '{key}' names {unknown or 'no element'}, but the potential's elements are {list(elements)}"
        )
    return tuple(names)


def block_name(names: Sequence[str]) -> tuple[str, ...]:
    """The block that elements name: (centre, *sorted others)."""
    return names[0], *sorted(set(names) - {names[0]})


def resolve(
    section: Mapping[Any, Any], targets: Iterable[tuple[str, ...]], elements: Iterable[str], kind: str, where: str
) -> dict[tuple[str, ...], dict[str, Any]]:
    """The settings of every target: keywords from weak to strong, later ones override key by key.

    Args:
        section: keyword or elements -> mapping of settings
        targets: `kind` "elements": (A,); "bonds": ordered pairs; "blocks": (centre, *sorted others)
        where: the section's name in messages

    Returns:
        one dict for each target; empty where nothing in the section applies to it.
    """
    targets, elements = list(targets), tuple(elements)
    resolved: dict[tuple[str, ...], dict[str, Any]] = {target: {} for target in targets}
    largest = {"elements": 1, "bonds": 2, "blocks": len(KEYWORDS)}[kind]
    seen: dict[tuple[str, ...], Any] = {}
    chosen: list[tuple[int, list[tuple[str, ...]], Mapping[str, Any]]] = []
    for key, settings in section.items():
        if not isinstance(settings, Mapping):
            raise PacehpcError(f"{where}.{key}: expected a mapping of settings, got {settings!r}")
        if key in KEYWORDS:
            strength = KEYWORDS.index(key)
            if strength > largest:
                raise PacehpcError(f"{where}.{key}: {where} belong to at most {largest} elements; use ALL or UNARY")
            hits = [target for target in targets if strength in (0, len(set(target)))]
        else:
            strength = len(KEYWORDS)
            hits = [_target(key, elements, kind, where)]
            if hits[0] in seen:
                raise PacehpcError(f"{where}: '{seen[hits[0]]}' and '{key}' name the same; keep one of them")
            seen[hits[0]] = key
            if kind == "bonds" and hits[0][0] != hits[0][1]:
                hits.append(hits[0][::-1])
        chosen.append((strength, hits, settings))
    for _, hits, settings in sorted(chosen, key=lambda item: item[0]):
        for target in hits:
            if target in resolved:
                resolved[target].update(settings)
    return resolved


def _target(key: Any, elements: tuple[str, ...], kind: str, where: str) -> tuple[str, ...]:
    """The one target that explicit elements name; of a bond the pair in alphabetical order."""
    names = element_names(key, elements, where)
    if kind == "blocks":
        return block_name(names)
    if kind == "bonds" and len(names) <= 2:
        return tuple(sorted((names[0], names[-1])))
    if kind == "elements" and len(set(names)) == 1 and len(names) <= 2:
        return names[:1]
    size = "one element" if kind == "elements" else "one or two elements"
    raise PacehpcError(f"{where}: '{key}' names {len(names)} elements, but {where} belong to {size}")
