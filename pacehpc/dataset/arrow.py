"""Columns that pandas keeps as Arrow arrays, read from the buffers in their pickle; pyarrow is not needed.

Layout: the Arrow columnar format, https://arrow.apache.org/docs/format/Columnar.html. A pickled array is
(type, length, null count, offset, buffers, children, dictionary); its buffers are the bits of validity, then the
values, or for texts the offsets and the bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pacehpc.dataset.pickle_classes import ArrowArray, ArrowBuffer, ArrowChunks, ArrowType, Refused

_TEXTS = {"string": np.int32, "utf8": np.int32, "large_string": np.int64, "large_utf8": np.int64}
_NUMBERS = {"float": "f4", "double": "f8", "halffloat": "f2", **{f"int{n}": f"i{n // 8}" for n in (8, 16, 32, 64)}}
_NUMBERS |= {f"uint{n}": f"u{n // 8}" for n in (8, 16, 32, 64)}


def arrow_values(array: Any) -> np.ndarray:
    """Texts as an array of objects with None where one is missing; numbers as floats with NaN there.

    Raises:
        Refused: other types than texts and numbers, or buffers that do not fit.
    """
    if isinstance(array, ArrowChunks):
        chunks = array.args[0] if array.args and isinstance(array.args[0], (list, tuple)) else []
        parts = [arrow_values(chunk) for chunk in chunks]
        return np.concatenate(parts) if parts else np.empty(0, object)
    data = array.args[0] if isinstance(array, ArrowArray) and len(array.args) == 1 else None
    if not isinstance(data, tuple) or len(data) < 5 or not isinstance(data[0], ArrowType):
        raise Refused("an Arrow array of unknown form")
    kind = data[0].args[0] if data[0].args else None
    length, offset, buffers = data[1], data[3], data[4]
    if type(length) is not int or type(offset) is not int or min(length, offset) < 0 or not isinstance(buffers, list):
        raise Refused("an Arrow array of unknown form")
    valid = _bits(buffers[0], offset, length) if buffers and buffers[0] is not None else np.ones(length, bool)
    if kind in _TEXTS and len(buffers) == 3:
        return _texts(buffers, _TEXTS[kind], offset, length, valid)
    if kind in _NUMBERS and len(buffers) == 2:
        values = _numbers(buffers[1], _NUMBERS[kind], offset, length)
        return values if valid.all() else np.where(valid, values.astype(float), np.nan)
    if kind == "bool" and len(buffers) == 2:
        values = _bits(buffers[1], offset, length)
        return values if valid.all() else np.where(valid, values.astype(float), np.nan)
    raise Refused(f"an Arrow array of type {kind!r}")


def _bytes(buffer: Any) -> bytes:
    content = buffer.args[0] if isinstance(buffer, ArrowBuffer) and len(buffer.args) == 1 else None
    if content is None and buffer is None:
        return b""
    if not isinstance(content, (bytes, bytearray)):
        raise Refused("an Arrow array of unknown form")
    return bytes(content)


def _numbers(buffer: Any, dtype: Any, offset: int, length: int) -> np.ndarray:
    content, size = _bytes(buffer), np.dtype(dtype).itemsize
    if (offset + length) * size > len(content):
        raise Refused("an Arrow array whose buffers do not fit its length")
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"), length, offset * size)


def _bits(buffer: Any, offset: int, length: int) -> np.ndarray:
    packed = np.frombuffer(_bytes(buffer), np.uint8)
    if offset + length > 8 * len(packed):
        raise Refused("an Arrow array whose buffers do not fit its length")
    return np.unpackbits(packed, bitorder="little")[offset : offset + length].astype(bool)


def _texts(buffers: list[Any], dtype: Any, offset: int, length: int, valid: np.ndarray) -> np.ndarray:
    found = np.full(length, None, object)
    if length == 0:
        return found
    ends, content = _numbers(buffers[1], dtype, offset, length + 1), _bytes(buffers[2])
    if (np.diff(ends) < 0).any() or ends[0] < 0 or ends[-1] > len(content):
        raise Refused("an Arrow array whose buffers do not fit its length")
    for row in np.nonzero(valid)[0]:
        found[row] = content[ends[row] : ends[row + 1]].decode("utf-8", "replace")
    return found
