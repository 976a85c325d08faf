"""Pickled pandas frames, read without running code of theirs.

A pickle is a program. Here every name in it stands for an inert class (`pickle_names`): no code of pandas, ASE or
any other package runs while a file is read. The frame is assembled from the pieces afterwards, so the versions of
pandas and numpy that wrote the file do not matter, nor what columns hold that no fit uses.

Threat model: files come from other people, by mail or from the web. Such a file must not run code, nor take more
memory than a frame of its size needs (`_limited_memory`). A file that was built to crash the interpreter, by nesting
tuples hundreds of thousands deep, ends this process and does no other harm.
"""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacehpc.dataset.arrow import arrow_values
from pacehpc.dataset.pickle_classes import (
    ArrowExtension,
    Block,
    Categorical,
    CategoricalType,
    Extension,
    FrameState,
    IndexClass,
    IndexState,
    Manager,
    MaskedExtension,
    Placement,
    RangeIndexClass,
    Refused,
    Stub,
)
from pacehpc.dataset.pickle_names import class_for
from pacehpc.errors import PacehpcError

try:
    import resource
except ImportError:  # Windows
    resource = None

log = logging.getLogger("pacehpc")

_SPARE, _RATIO = 2**30, 64  # bytes that reading may take: so many, and so many times the size of the pickle


@dataclass
class Frame:
    """The pieces of a data frame.

    Attributes:
        columns: by name; arrays for plain numbers, lists of inert objects otherwise.
        labels: of the rows.
        unread: why a column is not among `columns`, by name.
    """

    columns: dict[str, list[Any] | np.ndarray]
    labels: list[Any]
    unread: dict[str, str]


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._classes: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        key = (str(module), str(name))
        if key not in self._classes:
            self._classes[key] = class_for(*key)
        return self._classes[key]


@contextmanager
def _limited_memory(size: int) -> Iterator[None]:
    """Let the block allocate what a pickle of `size` bytes may need; beyond that, MemoryError.

    Python allocates what a length in the file says before it looks whether the bytes are there.
    """
    try:
        with open("/proc/self/statm", "rb") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, AttributeError):  # no Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = used + _SPARE + _RATIO * size
    if soft != resource.RLIM_INFINITY:
        wanted = min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _array(value: Any) -> np.ndarray:
    """The numpy array in a block or index, whatever wraps it.

    Raises:
        Refused: arrays of a kind that is not known.
    """
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    state = getattr(value, "state", None)
    if isinstance(value, ArrowExtension) and isinstance(state, dict):
        return arrow_values(state.get("_pa_array", state.get("_data")))
    if isinstance(value, MaskedExtension) and isinstance(state, dict):
        values, mask = (np.asarray(state.get(key)) for key in ("_data", "_mask"))
        if values.dtype.kind in "biuf" and mask.dtype == bool and mask.shape == values.shape:
            return np.where(mask, np.nan, values.astype(float)) if mask.any() else values
    if isinstance(value, Categorical):
        codes, names = _codes(value)
        return np.array([*names, None], object)[np.where((codes >= 0) & (codes < len(names)), codes, len(names))]
    if isinstance(value, Extension):
        arrays = [part for part in _parts(value) if isinstance(part, np.ndarray)]
        if arrays:
            return arrays[0].view(np.ndarray)
    raise Refused("a column of unknown form")


def _parts(value: Any) -> list[Any]:
    """What the state and the arguments of a record hold, one level deep."""
    state = value.state
    parts = list(state.values()) if isinstance(state, dict) else [*(state or ()), *value.args]
    return parts + [inner for part in parts if isinstance(part, dict) for inner in part.values()]


def _codes(value: Categorical) -> tuple[np.ndarray, list[Any]]:
    """Codes of the rows, and what they stand for."""
    for kind in _parts(value):
        if isinstance(kind, CategoricalType):
            known = kind.state.get("categories") if isinstance(kind.state, dict) else None
            names = known if known is not None else next(iter(kind.args), None)
            for codes in _parts(value):
                if isinstance(codes, np.ndarray) and codes.dtype.kind in "iu" and codes.ndim == 1:
                    return codes.view(np.ndarray).astype(int), _labels(names, "categories")
    raise Refused("a column of unknown form")


def _labels(index: Any, what: str) -> list[Any]:
    """The labels in an index; of one with several levels, the texts of the levels with a blank between them.

    Raises:
        Refused: an index of another kind.
    """
    if isinstance(index, np.ndarray):
        return index.view(np.ndarray).ravel().tolist()
    if not isinstance(index, IndexState) or len(index.args) != 2 or not isinstance(index.args[1], dict):
        raise Refused(f"{what} of unknown form")
    cls, fields = index.args
    if cls is RangeIndexClass or ("start" in fields and "stop" in fields):
        start, stop, step = (fields.get(key, 0 if key == "start" else 1) for key in ("start", "stop", "step"))
        if any(type(v) is not int for v in (start, stop, step)) or step == 0 or len(range(start, stop, step)) > 2**31:
            raise Refused(f"{what} of unknown form")
        return list(range(start, stop, step))
    if isinstance(fields.get("levels"), list) and isinstance(fields.get("codes", fields.get("labels")), list):
        rows = []
        for level, codes in zip(fields["levels"], fields.get("codes", fields.get("labels")), strict=True):
            names, codes = _labels(level, what), _array(codes).astype(int).tolist()
            rows.append([str(names[k]) if 0 <= k < len(names) else "" for k in codes])
        return [" ".join(part for part in parts if part) for parts in zip(*rows, strict=True)]
    if not (isinstance(cls, type) and issubclass(cls, IndexClass)):
        raise Refused(f"{what} of unknown form")
    return list(_array(fields.get("data")).ravel().tolist())


def _positions(placement: Any, n_columns: int) -> list[int]:
    if isinstance(placement, Placement):
        placement = placement.args[0] if placement.args else None
    if isinstance(placement, slice):
        found = list(range(n_columns))[placement]
    elif type(placement) is int:
        found = [placement]
    elif isinstance(placement, np.ndarray) and placement.dtype.kind in "iu":
        found = placement.ravel().tolist()
    else:
        raise Refused("columns of unknown form")
    if any(not 0 <= p < n_columns for p in found):
        raise Refused("columns of unknown form")
    return found


def _manager_parts(manager: Any) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Axes and (values, placement) of the blocks, from any of the forms that pandas has used."""
    if not isinstance(manager, Manager):
        raise Refused("a frame of unknown form")
    state = manager.state
    if isinstance(state, tuple) and len(state) >= 4 and isinstance(state[3], dict) and "0.14.1" in state[3]:
        inner = state[3]["0.14.1"]
        if isinstance(inner, dict) and isinstance(inner.get("blocks"), list):
            blocks = [b for b in inner["blocks"] if isinstance(b, dict)]
            return list(inner.get("axes") or ()), [(b.get("values"), b.get("mgr_locs")) for b in blocks]
    if len(manager.args) == 2 and all(isinstance(a, (tuple, list)) for a in manager.args):
        blocks = [b.args for b in manager.args[0] if isinstance(b, Block) and len(b.args) >= 2]
        if len(blocks) == len(manager.args[0]):
            return list(manager.args[1]), [(b[0], b[1]) for b in blocks]
    raise Refused("a frame of unknown form")


def _frame(frame: Any) -> Frame:
    if not isinstance(frame, FrameState):
        raise Refused(_kind(frame) + " where a data frame is expected")
    state = frame.state if isinstance(frame.state, dict) else {}
    axes, blocks = _manager_parts(state.get("_mgr", state.get("_data", frame.args[0] if frame.args else None)))
    if len(axes) != 2:
        raise Refused("a frame of unknown form")
    names = [str(name) for name in _labels(axes[0], "column names")]
    found = Frame({}, [], {})
    try:
        labels: list[Any] | None = _labels(axes[1], "an index")
    except Refused:
        labels = None  # of dates, intervals, ...: rows are numbered
    for values, placement in blocks:
        places = _positions(placement, len(names))
        try:
            values = _array(values)
        except Refused as problem:
            found.unread |= {names[place]: str(problem) for place in places}
            continue
        rows = values.reshape(1, -1) if values.ndim == 1 else values
        labels = list(range(rows.shape[-1])) if labels is None else labels
        if rows.shape != (len(places), len(labels)):
            raise Refused("columns whose length is not that of the index")
        for place, row in zip(places, rows, strict=True):
            found.columns[names[place]] = row.tolist() if row.dtype.kind == "O" else row.copy()
    if len(found.columns) + len(found.unread) != len(names):
        raise Refused("columns with equal or missing names")
    found.labels = labels or []
    return found


def _kind(value: Any) -> str:
    """What an object in a pickle is, for messages."""
    name = getattr(value, "full_name", "")
    return f"the class {name}" if name else f"a {type(value).__name__}"


def unpickle_frame(data: bytes, where: str) -> Frame:
    """Columns and row labels of a pickled data frame.

    Args:
        data: the uncompressed pickle.
        where: the file's name, for messages.

    Raises:
        PacehpcError: the file is damaged, is no frame, or asks for what no frame of structures needs.
    """
    frame = _taken(data, where, _frame)
    left = [name for name, values in frame.columns.items() if _holds_stub(values)]
    for name in left:
        del frame.columns[name]
    if left:
        log.info("%s: columns left by another program are dropped: %s", where, ", ".join(left))
    return frame


def frame_attrs(data: bytes, where: str) -> dict[str, Any]:
    """What stands in `attrs` of a pickled data frame; arguments and errors as of `unpickle_frame`."""
    return _taken(data, where, _attrs)


def _attrs(frame: Any) -> dict[str, Any]:
    state = frame.state if isinstance(frame, FrameState) and isinstance(frame.state, dict) else {}
    return dict(state.get("attrs") or {})


def _taken(data: bytes, where: str, part: Callable[[Any], Any]) -> Any:
    """A part of the frame in a pickle."""
    try:
        with _limited_memory(len(data)):
            return part(_Unpickler(data).load())
    except Refused as problem:
        raise PacehpcError(
            f"{where}: refused, the pickle asks for {problem}. Only data frames of ASE atoms and numbers are read; "
            "write the file again with pandas from the columns ase_atoms, energy, forces."
        ) from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as problem:
        raise PacehpcError(f"{where}: damaged pickle ({type(problem).__name__}: {str(problem)[:200]}).") from None


def _holds_stub(values: Any) -> bool:
    if not isinstance(values, list) or not values:
        return False
    first = values[0]
    parts = first.values() if isinstance(first, dict) else first if isinstance(first, (list, tuple)) else (first,)
    return any(isinstance(part, Stub) for part in parts)
