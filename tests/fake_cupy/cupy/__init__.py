"""A stand-in for CuPy on machines without a GPU: as much of it as pacehpc.backends.cuda uses, and no more.

Parameters that can be named are CuPy's (test_cupy_names.py looks them up there); the others go by position.

Arrays live in host memory but do not mix with NumPy's; pools have limits; RawModule compiles CUDA by the host's
compiler (cuda_on_host.h). Environment: FAKE_CUPY_DEVICES (1; of these
CUDA_VISIBLE_DEVICES chooses), FAKE_CUPY_MEMORY (bytes of each device, 2 GiB), FAKE_CUPY_CAPABILITY (90),
FAKE_CUPY_CHECKS (1: of every access to memory, see _checks.py).
"""

from __future__ import annotations

import numpy
from numpy import float64, int32, uint64

from . import _checks, cuda
from ._build import RawModule, launches, order

__all__ = ["RawModule", "cuda", "empty", "launches", "ndarray", "order", "zeros"]
__all__ += ["float64", "int32", "uint64"]  # what vesin looks up as it is imported


class ndarray:
    """A flat array on the current device."""

    __array_priority__ = 100

    def __init__(self, memory: cuda.MemoryPointer, values: numpy.ndarray, /) -> None:
        self._memory, self._values = memory, values
        self.dtype, self.nbytes, self.size, self.shape = values.dtype, values.nbytes, values.size, values.shape

    @property
    def data(self) -> cuda.MemoryPointer:
        return cuda.MemoryPointer(self._memory.block, self._values.ctypes.data)

    @property
    def device(self) -> int:
        return self._memory.block.device

    def __array__(self, *args: object, **kwargs: object) -> numpy.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, item: slice) -> ndarray:
        if not isinstance(item, slice):
            raise TypeError("only slices")
        return ndarray(self._memory, self._values[item])

    def fill(self, value: float, /) -> None:
        assert value == 0 and self.size, "anything else takes a kernel of CuPy's own"
        cuda.submit(lambda: self._write(value))

    def get(self) -> numpy.ndarray:
        cuda.refuse_while_recording("a copy to the host")
        return self._values.copy()

    def set(self, values: numpy.ndarray, /, stream: cuda.Stream | None = None) -> None:
        if not isinstance(values, numpy.ndarray) or values.dtype != self.dtype or values.shape != self.shape:
            raise ValueError(f"{self.shape} {self.dtype} cannot be set from {type(values)} {numpy.shape(values)}")
        cuda.refuse_while_recording("a copy from the host")
        self._write(values)

    def _write(self, values: object) -> None:
        self._values[...] = values
        _checks.mark(self._values, True)


def _make(size: int, dtype: object, fill: object) -> ndarray:
    dtype = numpy.dtype(dtype)
    memory = cuda._allocate(int(size) * dtype.itemsize)
    values = memory.block.bytes[: int(size) * dtype.itemsize].view(dtype)
    if fill is None:
        memory.block.bytes[:] = 0xFF  # NaN, so that what nobody wrote shows
    else:
        values.fill(fill)
    if _checks.on():
        _checks.track(memory.block, values, fill is not None)
    return ndarray(memory, values)


def zeros(size: int, /, dtype: object) -> ndarray:
    return _make(size, dtype, 0)


def empty(size: int, /, dtype: object) -> ndarray:
    return _make(size, dtype, None)
