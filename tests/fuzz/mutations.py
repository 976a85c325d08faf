"""Damage to files: random bytes and words, and the values that programs stumble over. All from a given generator."""

from __future__ import annotations

import re

import numpy as np

VALUES = [
    "nan", ".nan", ".inf", "-.inf", "-1", "0", "1e308", "1e400", "-1e-320", "99999999999999999999", "1000000000",
    "2147483648", "1.5", "text", "''", "[]", "{}", "[1, 2]", "{a: 1}", "null", "true", "No", "Al", "Xx", "*a", "&a",
    "!!python/object:os.system", "<<", "'", '"', "[[[[", "}", "|", ":", "- ", "\t", "\0", "é", "🙂", "1_000",
    "0x7fffffff", "--5", "5e-", "[Al, Al]", "../../etc/passwd", "$(touch x)", "/dev/zero", "a: b: c", "1,5", "None",
]  # fmt: skip
_WORD = re.compile(r"[^\s,\[\]{}:]+")


def text(source: str, random: np.random.Generator) -> bytes:
    """One to three mutations of a text file."""
    damaged = source
    for _ in range(random.integers(1, 4)):
        damaged = _MUTATIONS[random.integers(0, len(_MUTATIONS))](damaged, random)
    data = damaged.encode("utf-8", "surrogateescape")
    return binary(data, random) if random.random() < 0.1 else data


def binary(data: bytes, random: np.random.Generator) -> bytes:
    """Cut off, changed, lost, repeated or moved bytes."""
    damaged = bytearray(data)
    kind = random.integers(0, 5)
    if len(damaged) < 2:
        return bytes(damaged)
    a, b = np.sort(random.integers(0, len(damaged), 2))
    if kind == 0:
        del damaged[a:]
    elif kind == 1:
        for k in random.integers(0, len(damaged), random.integers(1, 8)):
            damaged[k] = random.integers(0, 256)
    elif kind == 2:
        del damaged[a : min(b, a + random.integers(1, 60))]
    elif kind == 3:
        damaged[a:a] = damaged[b : b + random.integers(1, 60)]
    else:
        extreme = [b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\x7f", b"\0\0\0\0\0\0\xf8\x7f", b"\0\0\0\0\0\0\xf0\x7f"]
        piece = extreme[random.integers(0, len(extreme))]
        damaged[a : a + len(piece)] = piece
    return bytes(damaged)


def _replaced_word(source: str, random: np.random.Generator) -> str:
    words = list(_WORD.finditer(source))
    if not words:
        return source
    word = words[random.integers(0, len(words))]
    return source[: word.start()] + VALUES[random.integers(0, len(VALUES))] + source[word.end() :]


def _replaced_number(source: str, random: np.random.Generator) -> str:
    numbers = list(re.finditer(r"(?<![\w.])-?\d+\.?\d*(e-?\d+)?", source))
    if not numbers:
        return source
    number = numbers[random.integers(0, len(numbers))]
    values = ["-1", "0", "nan", ".inf", "1e300", "1e-300", "3", "1000000", "10000000000", "2.5", "x", "[1]", "null", ""]
    return source[: number.start()] + values[random.integers(0, len(values))] + source[number.end() :]


def _replaced_value(source: str, random: np.random.Generator) -> str:
    """All that stands after a colon."""
    places = list(re.finditer(r": [^\n]*", source))
    if not places:
        return source
    place = places[random.integers(0, len(places))]
    return source[: place.start() + 2] + VALUES[random.integers(0, len(VALUES))] + source[place.end() :]


def _lines(source: str, random: np.random.Generator) -> str:
    lines = source.split("\n")
    a, b = random.integers(0, len(lines), 2)
    kind = random.integers(0, 4)
    if kind == 0:
        del lines[a]
    elif kind == 1:
        lines.insert(b, lines[a])
    elif kind == 2:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        lines[a] = "  " * random.integers(0, 3) + lines[a].lstrip()
    return "\n".join(lines)


def _cut(source: str, random: np.random.Generator) -> str:
    return source[: random.integers(0, len(source) + 1)]


def _letter(source: str, random: np.random.Generator) -> str:
    if not source:
        return source
    letters = "aZ0 .,:[]{}-\n\"'#&*!|>%@`"
    k = random.integers(0, len(source))
    return source[:k] + letters[random.integers(0, len(letters))] + source[k + random.integers(0, 2) :]


def _nested(source: str, random: np.random.Generator) -> str:
    k = random.integers(0, len(source) + 1)
    return source[:k] + "[{("[random.integers(0, 3)] * int(random.integers(1, 3000)) + source[k:]


_MUTATIONS = [
    _replaced_word,
    _replaced_number,
    _replaced_number,
    _replaced_value,
    _lines,
    _lines,
    _cut,
    _letter,
    _nested,
]
