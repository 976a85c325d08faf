"""Pickled pandas frames, read without running code of theirs.

A pickle is a program. Here it can name only what `pickle_classes.CLASSES` lists, pair by pair, and each name stands
for an inert class: no code of pandas, ASE or any other package runs while a file is read. The frame is assembled from
the pieces afterwards, so the versions of pandas and numpy that wrote the file do not matter.

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
from typing import Any

import numpy as np

from pacehpc.dataset.pickle_classes import (
    CLASSES,
    Block,
    Extension,
    FrameState,
    IndexClass,
    IndexState,
    Manager,
    Placement,
    RangeIndexClass,
    Refused,
    Stub,
)  # fmt: skip
from pacehpc.errors import PacehpcError

try:
    import resource
except ImportError:  # Windows
    resource = None

log = logging.getLogger("pacehpc")

_SPARE, _RATIO = 2**30, 64  # bytes that reading may take: so many, and so many times the size of the pickle


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return CLASSES[module, name]
        except (KeyError, TypeError):
            raise Refused(f"the class {module}.{name}") from None


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
    """The numpy array in a block or index, whatever wraps it."""
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if isinstance(value, Extension):
        state = value.state
        parts = list(state.values()) if isinstance(state, dict) else list(state or ()) + list(value.args)
        for part in parts:
            if isinstance(part, dict):
                parts.extend(part.values())
            elif isinstance(part, np.ndarray):
                return part.view(np.ndarray)
    raise Refused("a column of unknown form")


def _labels(index: Any, what: str) -> list[Any]:
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


def _columns(frame: Any) -> tuple[dict[str, list[Any] | np.ndarray], list[Any]]:
    if not isinstance(frame, FrameState):
        raise Refused(f"a {type(frame).__name__} where a data frame is expected")
    state = frame.state if isinstance(frame.state, dict) else {}
    axes, blocks = _manager_parts(state.get("_mgr", state.get("_data", frame.args[0] if frame.args else None)))
    if len(axes) != 2:
        raise Refused("a frame of unknown form")
    names, labels = _labels(axes[0], "column names"), _labels(axes[1], "an index")
    columns: dict[str, list[Any] | np.ndarray] = {}
    for values, placement in blocks:
        values = _array(values)
        places = _positions(placement, len(names))
        rows = values.reshape(1, -1) if values.ndim == 1 else values
        if rows.shape != (len(places), len(labels)):
            raise Refused("columns whose length is not that of the index")
        for place, row in zip(places, rows, strict=True):
            columns[str(names[place])] = row.tolist() if row.dtype.kind == "O" else row.copy()
    if len(columns) != len(names):
        raise Refused("columns with equal or missing names")
    return columns, labels


def unpickle_frame(data: bytes, where: str) -> tuple[dict[str, list[Any] | np.ndarray], list[Any]]:
    """Columns and row labels of a pickled data frame.

    Args:
        data: the uncompressed pickle.
        where: the file's name, for messages.

    Returns:
        Columns by name (arrays for plain numbers, lists of inert objects otherwise) and the labels of the rows.

    Raises:
        PacehpcError: the file is damaged, is no frame, or names a class that no frame of structures needs.
    """
    columns, labels = _taken(data, where, _columns)
    stubs = [name for name, values in columns.items() if _holds_stub(values)]
    for name in stubs:
        del columns[name]
    if stubs:
        log.info("%s: columns left by another program are dropped: %s", where, ", ".join(stubs))
    return columns, labels


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
            return part(_Unpickler(io.BytesIO(data), encoding="latin1").load())
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
