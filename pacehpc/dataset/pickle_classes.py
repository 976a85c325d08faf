"""Inert stand-ins for the classes that pickled frames name; `pickle_names` says which stands for which."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

MAX_ELEMENTS = 2**33  # of one array: 64 GiB of float64


class Refused(Exception):
    """What a pickle asks for that no data frame needs."""


class Inert:
    """Keeps what a pickle gives to a class, and does nothing with it."""

    __slots__ = ("args", "kwargs", "state")

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        record = object.__new__(cls)
        record.args, record.kwargs, record.state = args, kwargs, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Stub(Inert):
    """A neighbour list or environment that another program left in a frame: dropped."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class Mapping(dict):
    """A class derived from dict."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return dict.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        if args and isinstance(args[0], list):
            self.update(args[0])  # OrderedDict of old protocols: a list of pairs

    def __setstate__(self, state: Any) -> None:
        pass


class Foreign(Inert):
    """A class that is not in the table: kept by name, in case that something else than its absence is needed."""

    __slots__ = ()
    full_name = ""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class AtomsState(Inert):
    __slots__ = ()


class CellState(Inert):
    __slots__ = ()


class CalculatorState(Inert):
    __slots__ = ()


class FrameState(Inert):
    __slots__ = ()


class Manager(Inert):
    __slots__ = ()


class IndexClass(Inert):
    __slots__ = ()


class RangeIndexClass(IndexClass):
    __slots__ = ()


class IndexState(Inert):
    __slots__ = ()


class Block(Inert):
    __slots__ = ()


class Placement(Inert):
    __slots__ = ()


class Extension(Inert):
    """An array of strings of pandas 1 to 3: its state holds a numpy array."""

    __slots__ = ()


class MaskedExtension(Inert):
    """An array of numbers with a mask (`Int64`, `Float64`, `boolean` of pandas); its state holds both."""

    __slots__ = ()


class Categorical(Inert):
    """Codes, and a type that holds what they stand for."""

    __slots__ = ()


class CategoricalType(Inert):
    __slots__ = ()


class ArrowExtension(Inert):
    """An array of pandas around an Arrow array."""

    __slots__ = ()


class ArrowType(Inert):
    """`pyarrow.lib.type_for_alias(name)`."""

    __slots__ = ()


class ArrowBuffer(Inert):
    """`pyarrow.lib.py_buffer(bytes)`."""

    __slots__ = ()


class ArrowArray(Inert):
    """`pyarrow.lib._restore_array(data)`."""

    __slots__ = ()


class ArrowChunks(Inert):
    """`pyarrow.lib.chunked_array(arrays, type)`."""

    __slots__ = ()


class Reconstructor(Inert):
    """`copyreg._reconstructor` of protocols 0 and 1, and pandas' `__pyx_unpickle_NDArrayBacked`."""

    __slots__ = ()

    def __new__(cls, target: Any = None, *rest: Any) -> Any:
        if not (isinstance(target, type) and issubclass(target, (Inert, Mapping))):
            raise Refused("the reconstruction of an object that is not in the list")
        return target()


class Partial(Inert):
    """`functools.partial` as pandas 1 and 2 use it for `new_block`, nothing else."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Block:
        if not (isinstance(self.state, tuple) and self.state and self.state[0] is Block):
            raise Refused("functools.partial of something else than new_block")
        return Block(*args)


class Getattr(Inert):
    """`getattr(calculator, '_deprecated_get_spin_polarized')`, which ASE's calculators leave in a pickle."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], Foreign):
            return Stub()
        if len(args) != 2 or not isinstance(args[0], CalculatorState) or args[1] != "_deprecated_get_spin_polarized":
            raise Refused(f"the class builtins.getattr with {args[1:2]!r}")
        return Stub()


class Slice(Inert):
    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if not 1 <= len(args) <= 3 or any(not (a is None or type(a) is int) for a in args):
            raise Refused("a slice of something else than integers")
        return slice(*args)


class Encode(Inert):
    """`_codecs.encode(text, 'latin1')`: bytes in protocol 2."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ("latin1", "latin-1"):
            raise Refused("_codecs.encode with another codec than latin1")
        return args[0].encode("latin1")


class Bytes(Inert):
    """`bytes()` of protocol 2, always empty."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if args:
            raise Refused("bytes with arguments")
        return b""


class ByteArray(Inert):
    """`bytearray(bytes)`, or `bytearray(text, 'latin-1')` of old protocols."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if args and isinstance(args[0], str):
            return Encode(*args)
        if len(args) > 1 or not isinstance(args[0] if args else b"", (bytes, bytearray)):
            raise Refused("bytearray of something else than bytes")
        return bytes(args[0]) if args else b""


class ArrayClass(Inert):
    __slots__ = ()


class DType(Inert):
    """A numpy dtype without fields; made only when an array has been checked against it."""

    __slots__ = ("resolved",)

    def __setstate__(self, state: Any) -> None:
        self.state = state
        self.resolved = None

    def resolve(self) -> np.dtype:
        known = getattr(self, "resolved", None)
        if known is None:
            known = self.resolved = self._resolve()
        return known

    def _resolve(self) -> np.dtype:
        name = self.args[0] if self.args else None
        if not isinstance(name, str) or len(name) > 12 or name.lstrip("<>=|")[:1] not in set("biufcOUSmM"):
            raise Refused(f"an array of dtype {name!r}")
        try:
            dtype = np.dtype(name)
        except TypeError:
            raise Refused(f"an array of dtype {name!r}") from None
        if self.state is not None:
            if not isinstance(self.state, tuple) or len(self.state) < 5 or any(x is not None for x in self.state[2:5]):
                raise Refused("an array with fields")
            order = self.state[1]
            if order not in ("<", ">", "|", "="):
                raise Refused("an array of unknown byte order")
            if order in "<>" and dtype.kind != "O":
                dtype = dtype.newbyteorder(order)
        if dtype.kind == "V" or dtype.names:
            raise Refused(f"an array of dtype {name!r}")
        return dtype


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > 8:
        raise Refused("an array of impossible shape")
    for n in shape:
        if type(n) is not int or n < 0:
            raise Refused("an array of impossible shape")
    if math.prod(shape) > MAX_ELEMENTS:
        raise Refused(f"an array of {math.prod(shape)} elements")
    return shape


class Array(np.ndarray):
    """An array whose shape, type and data are compared before numpy sees them."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Refused("an array of unknown form")
        shape, dtype, fortran, data = state[-4:]
        shape = _checked_shape(shape)
        if not isinstance(dtype, DType):
            raise Refused("an array of unknown type")
        dtype = dtype.resolve()
        count = math.prod(shape)
        if dtype.kind == "O":
            if not isinstance(data, list) or len(data) != count:
                raise Refused("an array whose data do not fit its shape")
        else:
            if isinstance(data, str):
                data = data.encode("latin1")
            if not isinstance(data, (bytes, bytearray)) or len(data) != count * dtype.itemsize:
                raise Refused("an array whose data do not fit its shape")
            data = bytes(data)
        super().__setstate__((1, shape, dtype, bool(fortran), data))


class MaskedArray(Array):
    """`numpy.ma.MaskedArray`: NaN where it is masked."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 7 or not isinstance(state[5], (bytes, str)):
            raise Refused("a masked array of unknown form")
        super().__setstate__(state[:5])
        mask = state[5].encode("latin1") if isinstance(state[5], str) else state[5]
        if any(mask):
            if self.dtype.kind != "f" or len(mask) != self.size:
                raise Refused("a masked array of other numbers than floats")
            where = np.frombuffer(mask, bool).reshape(self.shape, order="F" if state[3] else "C")
            self.setflags(write=True)
            np.copyto(self, np.nan, where=where)


class MaskedReconstruct(Inert):
    """`numpy.ma.core._mareconstruct`."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        return np.ndarray.__new__(MaskedArray, (0,), np.int8)


class Reconstruct(Inert):
    """`numpy.core.multiarray._reconstruct`."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if not args or args[0] is not ArrayClass:
            raise Refused("an array of a subclass of ndarray")
        return np.ndarray.__new__(Array, (0,), np.int8)


class FromBuffer(Inert):
    """`numpy.core.numeric._frombuffer` of protocol 5."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if len(args) != 4:
            raise Refused("an array of unknown form")
        data, dtype, shape, order = args
        array = np.ndarray.__new__(Array, (0,), np.int8)
        array.__setstate__((shape, dtype, order == "F", data))
        return array


class Scalar(Inert):
    """`numpy.core.multiarray.scalar`."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if len(args) != 2 or not isinstance(args[0], DType):
            raise Refused("a number of unknown type")
        dtype, data = args[0].resolve(), args[1]
        if isinstance(data, str):
            data = data.encode("latin1")
        if dtype.kind == "O" or not isinstance(data, bytes) or len(data) != dtype.itemsize:
            raise Refused("a number whose data do not fit its type")
        return np.frombuffer(data, dtype)[0]
