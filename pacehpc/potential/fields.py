"""Values of a potential file as YAML gave them, checked one by one; messages say where in the file they stand."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from pacehpc.errors import PacehpcError
from pacehpc.physics.parameters import Bond

LARGEST = sys.float_info.max


class Fields:
    """Reads keys of mappings; `place` is where in the file the reader is."""

    def __init__(self, name: str) -> None:
        self.name = self.place = name

    def fail(self, message: str) -> NoReturn:
        raise PacehpcError(f"{self.place}: {message}")

    def mapping(self, data: Any, what: str, known: Sequence[str], required: Sequence[str] = ()) -> dict:
        what = f"{what}: " if what else ""
        if not isinstance(data, dict):
            self.fail(f"{what}expected a mapping with the keys {', '.join(known)}")
        for key in data:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
                self.fail(f"{what}unknown key '{key}'; {hint}")
        for key in required:
            if key not in data:
                self.fail(f"{what}{key} is missing")
        return data

    def number(self, entry: Mapping[str, Any], key: str, default: float | None = None) -> float:
        value = entry.get(key, default)
        if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:
            self.fail(f"{key}: expected a finite number, got {value!r}")
        return float(value)

    def integer(self, entry: Mapping[str, Any], key: str) -> int:
        return self.integers({key: [entry.get(key)]}, key)[0]

    def word(self, entry: Mapping[str, Any], key: str, default: str | None = None) -> str:
        value = entry.get(key, default)
        if not isinstance(value, str):
            self.fail(f"{key}: expected a text, got {value!r}")
        return value

    def numbers(self, entry: Mapping[str, Any], key: str, default: list | None = None) -> list[float]:
        values = entry.get(key, default)
        if not isinstance(values, list):
            self.fail(f"{key}: expected a list of numbers, got {values!r}")
        for value in values:
            if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:
                self.fail(f"{key}: {value!r} is not a finite number")
        return [float(value) for value in values]

    def integers(self, entry: Mapping[str, Any], key: str) -> list[int]:
        values = entry.get(key, [])
        if not isinstance(values, list):
            self.fail(f"{key}: expected a list of integers, got {values!r}")
        for value in values:
            if type(value) is not int or not 0 <= value <= 10_000:
                self.fail(f"{key}: {value!r} is not an integer from 0 to 10000")
        return values

    def radcoefficients(self, entry: dict, bond: Bond, keys: tuple[str, str, str]) -> np.ndarray:
        """c_nlk, (nradmax, lmax + 1, nradbase); an old flat list is ordered k, n, l with l fastest.

        keys: the file's names of nradmax, lmax and nradbase, for messages.
        """
        shape = bond.nradmax, bond.lmax + 1, bond.nradbase
        nradmax, lmax, nradbase = keys
        data = entry.get("radcoefficients")
        if not isinstance(data, list):
            self.fail(f"radcoefficients: expected a list [{nradmax}][{lmax} + 1][{nradbase}] of numbers")
        flat = [x for row in data for x in (row if isinstance(row, list) else [row])]
        flat = [x for row in flat for x in (row if isinstance(row, list) else [row])]
        for value in flat:
            if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:
                self.fail(f"radcoefficients: {value!r} is not a finite number")
        sizes = f"{nradmax} {shape[0]}, {lmax} {shape[1] - 1}, {nradbase} {shape[2]}"
        if data and not any(isinstance(row, list) for row in data):
            if len(data) != math.prod(shape):
                self.fail(f"radcoefficients: {sizes} need {math.prod(shape)} numbers, got {len(data)}")
            return self.array(data).reshape(shape[2], shape[0], shape[1]).transpose(1, 2, 0).copy()
        nested = len(data) == shape[0] and all(
            isinstance(rows, list)
            and len(rows) == shape[1]
            and all(isinstance(row, list) and len(row) == shape[2] for row in rows)
            for rows in data
        )
        if not nested and not (data == [] and math.prod(shape) == 0):
            self.fail(f"radcoefficients: the lists are not of shape [{shape[0]}][{shape[1]}][{shape[2]}] of {sizes}")
        return self.array(flat).reshape(shape)

    def array(self, values: list) -> np.ndarray:
        return np.array([float(value) for value in values], dtype=np.float64)
