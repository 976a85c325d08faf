"""Pickled pandas frames read without trusting them.

A pickle is a program. Here it can name only what ``_CLASSES`` lists, pair by pair, and each name stands for an inert
class of this module: no code of pandas, ASE or any other package runs while a file is read. The frame is put together
from the pieces afterwards, so the versions of pandas and numpy that wrote the file do not matter.
"""

from __future__ import annotations

import io
import logging
import math
import pickle
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pacehpc.errors import PacehpcError

logger = logging.getLogger("pacehpc")

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


class Reconstructor(Inert):
    """``copyreg._reconstructor`` of protocols 0 and 1, and pandas' ``__pyx_unpickle_NDArrayBacked``."""

    __slots__ = ()

    def __new__(cls, target: Any = None, *rest: Any) -> Any:
        if not (isinstance(target, type) and issubclass(target, (Inert, Mapping))):
            raise Refused("the reconstruction of an object that is not in the list")
        return target()


class Partial(Inert):
    """``functools.partial`` as pandas 1 and 2 use it for ``new_block``, nothing else."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Block:
        if not (isinstance(self.state, tuple) and self.state and self.state[0] is Block):
            raise Refused("functools.partial of something else than new_block")
        return Block(*args)


class Getattr(Inert):
    """``getattr(calculator, '_deprecated_get_spin_polarized')``, which ASE's calculators leave in a pickle."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
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
    """``_codecs.encode(text, 'latin1')``: bytes in protocol 2."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ("latin1", "latin-1"):
            raise Refused("_codecs.encode with another codec than latin1")
        return args[0].encode("latin1")


class Bytes(Inert):
    """``bytes()`` of protocol 2, always empty."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if args:
            raise Refused("bytes with arguments")
        return b""


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


class Reconstruct(Inert):
    """``numpy.core.multiarray._reconstruct``."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if not args or args[0] is not ArrayClass:
            raise Refused("an array of a subclass of ndarray")
        return np.ndarray.__new__(Array, (0,), np.int8)


class FromBuffer(Inert):
    """``numpy.core.numeric._frombuffer`` of protocol 5."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if len(args) != 4:
            raise Refused("an array of unknown form")
        data, dtype, shape, order = args
        array = np.ndarray.__new__(Array, (0,), np.int8)
        array.__setstate__((shape, dtype, order == "F", data))
        return array


class Scalar(Inert):
    """``numpy.core.multiarray.scalar``."""

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


_NUMPY = {"_reconstruct": Reconstruct, "scalar": Scalar}
_CONSTRAINTS = {
    "external_force": "ExternalForce",
    "fix_atoms": "FixAtoms",
    "fix_bond_lengths": "FixBondLengths FixBondLength",
    "fix_cartesian": "FixCartesian",
    "fix_com": "FixCom FixSubsetCom",
    "fix_internals": "FixInternals",
    "fix_linear_triatomic": "FixLinearTriatomic",
    "fix_parametric_relations": "FixCartesianParametricRelations FixParametricRelations FixScaledParametricRelations",
    "fix_scaled": "FixScaled",
    "fix_symmetry": "FixSymmetry",
    "fixed_line": "FixedLine",
    "fixed_mode": "FixedMode",
    "fixed_plane": "FixedPlane",
    "hookean": "Hookean",
    "mirror_force": "MirrorForce",
    "mirror_torque": "MirrorTorque",
}
_CLASSES: dict[tuple[str, str], type] = {
    ("builtins", "slice"): Slice,
    ("__builtin__", "slice"): Slice,
    ("builtins", "getattr"): Getattr,
    ("__builtin__", "getattr"): Getattr,
    ("builtins", "object"): Inert,
    ("__builtin__", "object"): Inert,
    ("builtins", "dict"): Mapping,
    ("__builtin__", "dict"): Mapping,
    ("builtins", "bytes"): Bytes,
    ("__builtin__", "bytes"): Bytes,
    ("_codecs", "encode"): Encode,
    ("copyreg", "_reconstructor"): Reconstructor,
    ("copy_reg", "_reconstructor"): Reconstructor,
    ("collections", "OrderedDict"): Mapping,
    ("functools", "partial"): Partial,
    ("numpy", "ndarray"): ArrayClass,
    ("numpy", "dtype"): DType,
    **{(f"numpy.{core}.multiarray", name): cls for core in ("core", "_core") for name, cls in _NUMPY.items()},
    ("numpy.core.numeric", "_frombuffer"): FromBuffer,
    ("numpy._core.numeric", "_frombuffer"): FromBuffer,
    ("pandas", "DataFrame"): FrameState,
    ("pandas.core.frame", "DataFrame"): FrameState,
    ("pyace.preparedata", "DataFrameWithMetadata"): FrameState,
    ("pandas.core.internals", "BlockManager"): Manager,
    ("pandas.core.internals.managers", "BlockManager"): Manager,
    ("pandas.core.internals.blocks", "new_block"): Block,
    ("pandas._libs.internals", "_unpickle_block"): Block,
    ("pandas._libs.internals", "BlockPlacement"): Placement,
    ("pandas.core.indexes.base", "_new_Index"): IndexState,
    ("pandas.indexes.base", "_new_Index"): IndexState,
    ("pandas", "Index"): IndexClass,
    ("pandas.core.indexes.base", "Index"): IndexClass,
    ("pandas.indexes.base", "Index"): IndexClass,
    ("pandas", "RangeIndex"): RangeIndexClass,
    ("pandas.core.indexes.range", "RangeIndex"): RangeIndexClass,
    ("pandas.indexes.range", "RangeIndex"): RangeIndexClass,
    ("pandas.core.indexes.numeric", "Int64Index"): IndexClass,
    ("pandas.core.indexes.numeric", "UInt64Index"): IndexClass,
    ("pandas.core.indexes.numeric", "Float64Index"): IndexClass,
    ("pandas.indexes.numeric", "Int64Index"): IndexClass,
    ("pandas.indexes.numeric", "Float64Index"): IndexClass,
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): Reconstructor,
    ("pandas", "StringDtype"): Inert,
    ("pandas.core.arrays.string_", "StringDtype"): Inert,
    ("pandas.arrays", "StringArray"): Extension,
    ("pandas.core.arrays.string_", "StringArray"): Extension,
    ("pandas.core.arrays.string_", "StringArrayNumpySemantics"): Extension,
    ("pandas.core.arrays.numpy_", "PandasArray"): Extension,
    ("pandas.core.arrays.numpy_", "NumpyExtensionArray"): Extension,
    ("ase.atoms", "Atoms"): AtomsState,
    ("ase", "Atoms"): AtomsState,
    ("ase.cell", "Cell"): CellState,
    ("ase.calculators.singlepoint", "SinglePointCalculator"): CalculatorState,
    ("ase.calculators.singlepoint", "SinglePointDFTCalculator"): CalculatorState,
    ("ase.calculators.singlepoint", "SinglePointKPoint"): Inert,
    ("ase.calculators.calculator", "Parameters"): Mapping,
    ("ase.spacegroup.spacegroup", "Spacegroup"): Inert,
    **{
        (module, name): Inert
        for submodule, names in _CONSTRAINTS.items()
        for name in names.split()
        for module in ("ase.constraints", f"ase.constraints.{submodule}")
    },
    ("pyace.catomicenvironment", "ACEAtomicEnvironment"): Stub,
    ("pyace.atomicenvironment", "ACEAtomicEnvironment"): Stub,
    ("tensorpotential.utils.utilities", "TPAtomsDataContainer"): Stub,
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _CLASSES[module, name]
        except (KeyError, TypeError):
            raise Refused(f"the class {module}.{name}") from None


_SAFE_TUPLES, _BYTES_PER_TUPLE = 5_000, 128  # 64 bytes of stack for each tuple in a tuple were measured
_STACK_SIZE = threading.Lock()

# Arguments of the opcodes: how many bytes follow, or how the length is given.
_FIXED = {**{c: 0 for c in b"(.012NQR)]}aeblosud\x81\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"}}
_FIXED.update({ord("K"): 1, ord("M"): 2, ord("J"): 4, ord("G"): 8, ord("h"): 1, ord("j"): 4, ord("q"): 1, 0x80: 1})
_FIXED.update({0x82: 1, 0x83: 2, 0x84: 4})
_TUPLES = {ord("t"), 0x85, 0x86, 0x87}
_COUNTED = {ord("U"): 1, ord("C"): 1, 0x8C: 1, 0x8A: 1, ord("X"): 4, ord("B"): 4, ord("T"): 4, 0x8B: 4}
_COUNTED.update({0x8D: 8, 0x8E: 8, 0x96: 8})
_LINES = {ord("I"): 1, ord("L"): 1, ord("F"): 1, ord("S"): 1, ord("V"): 1, ord("g"): 1, ord("P"): 1, ord("c"): 2}
_LINES[ord("i")] = 2


def check_sizes(data: bytes) -> int:
    """Walk over the opcodes, so that no length or memo index in them exceeds what the file itself holds.

    Python's unpickler allocates what a length field says before it looks whether the bytes are there.

    Returns:
        The number of tuples made, which no nesting of tuples exceeds.

    Raises:
        Refused: a length, memo index, or opcode that no frame has.
    """
    size, position, n_tuples = len(data), 0, 0
    fixed, counted, lines, tuples = _FIXED, _COUNTED, _LINES, _TUPLES
    while position < size:
        op = data[position]
        position += 1
        if op in fixed:
            position += fixed[op]
            if op == 0x2E:  # STOP
                return n_tuples
        elif op in tuples:
            n_tuples += 1
        elif op in counted:
            width = counted[op]
            length = int.from_bytes(data[position : position + width], "little")
            position += width + length
            if position > size:
                raise Refused("more bytes than the file holds")
        elif op == 0x72:  # LONG_BINPUT
            if int.from_bytes(data[position : position + 4], "little") > size:
                raise Refused("more objects than the file holds")
            position += 4
        elif op == 0x95:  # FRAME
            if struct.unpack("<Q", data[position : position + 8].ljust(8, b"\0"))[0] > size:
                raise Refused("more bytes than the file holds")
            position += 8
        elif op == 0x70:  # PUT
            end = data.find(b"\n", position)
            if end < 0 or end - position > 12 or not data[position:end].isdigit() or int(data[position:end]) > size:
                raise Refused("more objects than the file holds")
            position = end + 1
        elif op in lines:
            for _ in range(lines[op]):
                end = data.find(b"\n", position)
                if end < 0:
                    raise Refused("more bytes than the file holds")
                position = end + 1
        else:
            raise Refused(f"the unknown code {op:#x}")
    raise Refused("more bytes than the file holds")


def _load(data: bytes, n_tuples: int) -> Any:
    """The pickled object. Hashing a tuple recurses as deep as tuples are nested, without a check of the stack in
    Python: so many tuples are loaded on a stack that holds them all inside each other.
    """

    def load() -> Any:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()

    if n_tuples <= _SAFE_TUPLES:
        return load()
    with _STACK_SIZE:
        before = threading.stack_size(2**21 + 2**12 * (n_tuples * _BYTES_PER_TUPLE // 2**12))
        try:
            pool = ThreadPoolExecutor(1)
            result = pool.submit(load)
        except RuntimeError:
            raise Refused(f"{n_tuples} tuples, more than this machine's memory can check") from None
        finally:
            threading.stack_size(before)
    with pool:
        return result.result()


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
        logger.info("%s: columns left by another program are dropped: %s", where, ", ".join(stubs))
    return columns, labels


def frame_attrs(data: bytes, where: str) -> dict[str, Any]:
    """What stands in ``attrs`` of a pickled data frame; arguments and errors as of `unpickle_frame`."""
    return _taken(data, where, _attrs)


def _attrs(frame: Any) -> dict[str, Any]:
    state = frame.state if isinstance(frame, FrameState) and isinstance(frame.state, dict) else {}
    return dict(state.get("attrs") or {})


def _taken(data: bytes, where: str, part: Callable[[Any], Any]) -> Any:
    """A part of the frame in a pickle."""
    try:
        return part(_load(data, check_sizes(data)))
    except Refused as problem:
        raise PacehpcError(
            f"{where}: refused, the pickle asks for {problem}. Only data frames of ASE atoms and numbers are read; "
            "write the file anew with pandas from the columns ase_atoms, energy, forces."
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
