"""Types of single values, each with the words that the reference page and the messages use for it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real as RealNumber
from typing import Annotated, Any

import numpy as np
from ase.data import chemical_symbols
from pydantic import PlainValidator

ELEMENTS = frozenset(chemical_symbols[1:])
_BYTES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KB": 10**3, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@dataclass(frozen=True)
class Kind:
    """What the user may write, in words."""

    text: str


class KeyedError(ValueError):
    """A wrong value at a place below the one that is being validated."""

    def __init__(self, path: tuple, message: str) -> None:
        super().__init__(message)
        self.path = path


def kind(text: str, check: Callable[[Any], Any], python_type: Any = Any) -> Any:
    """An annotation whose values pass `check` (which raises ValueError with the whole message)."""
    return Annotated[python_type, PlainValidator(check), Kind(text)]


def checker(annotation: Any) -> Callable[[Any], Any]:
    """The function that checks values of an annotation made by `kind`."""
    return next(m for m in annotation.__metadata__ if isinstance(m, PlainValidator)).func


def shown(value: Any) -> str:
    """A user's value in a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value[:60]}'"
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if len(value) > 4 else f"[{', '.join(map(shown, value))}]"
    return str(value)


def nearest(name: Any, known: Any, cutoff: float = 0.6) -> str | None:
    """The known name that `name` probably means."""
    lower = {str(k).lower(): str(k) for k in known}
    found = get_close_matches(str(name).lower(), list(lower), n=1, cutoff=cutoff)
    return lower[found[0]] if found else None


def suggestion(name: Any, known: Any) -> str:
    """`did you mean ...?`, or all that is known."""
    known = [str(k) for k in known]
    close = nearest(name, known)
    return f"did you mean `{close}`?" if close else f"known: {', '.join(known)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, RealNumber) and not isinstance(value, bool)


def _quoted_number(value: Any) -> str:
    """Advice where a text looks like a number."""
    if isinstance(value, str):
        if re.fullmatch(r"\s*[-+]?\d+,\d+\s*", value):
            return "; write a decimal point"
        try:
            float(value.replace("d", "e").replace("D", "e"))
        except ValueError:
            return ""
        return "; remove the quotes"
    return ""


def number(text: str, low: float = -math.inf, high: float = math.inf, open_low: bool = False) -> Any:
    """A finite real number in [low, high], or (low, high]."""

    def check(value: Any) -> float:
        if not _is_number(value):
            raise ValueError(f"must be a {text}, not {shown(value)}{_quoted_number(value)}")
        if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
            raise ValueError(f"must be a {text}, not {value}")
        return float(value)

    return kind(text, check, float)


def integer(text: str, low: int | None = None, high: int | None = None) -> Any:
    """A whole number from `low` to `high`; 1e3 counts as one."""

    def check(value: Any) -> int:
        if not _is_number(value) or value != value or abs(value) == math.inf or value != int(value):
            raise ValueError(f"must be a {text}, not {shown(value)}{_quoted_number(value)}")
        if low is not None and value < low:
            raise ValueError(f"must be a {text}, not {value}")
        if high is not None and value > high:
            raise ValueError(f"must be at most {high:,}, not {value}")
        return int(value)

    return kind(text, check, int)


def choice(*names: str, same: Mapping[str, str] | None = None) -> Any:
    """One of some words; `same` maps further words to them."""
    meanings = {name: name for name in names} | dict(same or {})
    text = " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be {text}, not {shown(value)}")
        if value not in meanings:
            close = nearest(value, meanings, 0.7)
            raise ValueError(f"must be {text}, not '{value}'" + (f"; did you mean `{close}`?" if close else ""))
        return meanings[value]

    return kind(text, check, str)


def list_of(item: Any, text: str, shortest: int = 1, length: int | None = None, single: bool = False) -> Any:
    """A list whose items are of one kind; `single`: one item alone counts as a list of one."""
    check_item = checker(item)

    def check(value: Any) -> list:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if single and not isinstance(value, list | tuple):
            value = [value]
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be a {text}, not {shown(value)}; write [ ] around it")
        if len(value) < shortest or (length is not None and len(value) != length):
            raise ValueError(f"must be a {text}, not {shown(list(value))}")
        checked = []
        for number_, item_ in enumerate(value):
            try:
                checked.append(check_item(item_))
            except ValueError as error:
                raise KeyedError((number_,), str(error)) from None
        return checked

    return kind(text, check, list)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be a text, not {shown(value)}" + ("; put it in quotes" if _is_number(value) else ""))
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {shown(value)}")
    return value


def _memory(value: Any) -> int:
    if _is_number(value) and value > 0 and math.isfinite(value):
        return int(value)
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    if match is None or match[2] not in _BYTES or float(match[1]) == 0:
        raise ValueError(f"must be a size such as 8 GiB or 500 MB, not {shown(value)}")
    return int(float(match[1]) * _BYTES[match[2]])


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"must hold names and texts, not {shown(value)}")
    for key, text in value.items():
        if isinstance(text, dict | list):
            raise KeyedError((key,), f"must be a text or a number, not {shown(text)}")
    return {str(key): "" if text is None else str(text) for key, text in value.items()}


def _element(value: Any) -> str:
    if not isinstance(value, str) or value not in ELEMENTS:
        parts = split_elements(value) or ()
        close = nearest(value, ELEMENTS) if isinstance(value, str) else None
        hint = f"; write [{', '.join(parts)}]" if len(parts) > 1 else f"; did you mean {close}?" if close else ""
        raise ValueError(f"must be the symbol of an element, not {shown(value)}{hint}")
    return value


def split_elements(name: Any) -> tuple[str, ...] | None:
    """("Al", "Ni") of AlNi, `Al Ni`, `(Al, Ni)`, [Al, Ni]; None where that is no combination of elements."""
    if isinstance(name, str):
        parts = re.findall(r"[A-Z][a-z]?", name)
        if re.sub(r"[\s,()\[\]'\"-]", "", name) != "".join(parts):
            return None
    elif isinstance(name, tuple | list):
        parts = list(name)
    else:
        return None
    return tuple(parts) if parts and all(part in ELEMENTS for part in parts) else None


Text = kind("text", _text, str)
FileName = kind("file name", _text, str)
Flag = kind("true or false", _flag, bool)
MemorySize = kind("size, such as 8 GiB", _memory, int)
Element = kind("element", _element, str)
Real = number("number")
NotNegative = number("number, 0 or larger", low=0)
Positive = number("number above 0", low=0, open_low=True)
Fraction = number("number above 0, at most 1", low=0, high=1, open_low=True)
Count = integer("whole number, 1 or larger", low=1)
CountOrZero = integer("whole number, 0 or larger", low=0)
FileNames = list_of(FileName, "file name or a list of them", single=True)
Metadata = kind("mapping", _metadata, dict)
