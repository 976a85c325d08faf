"""Devices, streams, events and memory pools of the stand-in."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import ClassVar

import numpy

GUARD = 1 << 16  # bytes around an array that belong to none, so that a step beyond it does not end up in another

_current = SimpleNamespace(device=0, stream=None, allocator=None)
_held: dict[int, int] = {}  # bytes by device
_contexts: set[int] = set()  # devices on which this process has a context


def _set_device(index: int) -> None:
    """As cudaSetDevice from CUDA 12 on, which makes the device's context at once."""
    _current.device = index
    _contexts.add(index)


class _Block:
    """Memory of a device."""

    def __init__(self, size: int, device: int) -> None:
        self.size, self.device = size, device
        self.bytes = numpy.empty(GUARD + size + GUARD, numpy.uint8)[GUARD : GUARD + size]


class MemoryPointer:
    def __init__(self, block: _Block, ptr: int, /) -> None:
        self.block, self.ptr = block, ptr


class _OutOfMemoryError(MemoryError):
    pass


memory = SimpleNamespace(OutOfMemoryError=_OutOfMemoryError)


class _OneDevice:
    """What a pool has of one device: limit, bytes in use, bytes that are free but kept."""

    def __init__(self, device: int) -> None:
        self.device, self.limit, self.used, self.free, self.closed = device, 0, 0, 0, False

    def release(self, size: int) -> None:
        self.used -= size
        self.free += size
        if self.closed:
            self.give_back()

    def give_back(self) -> None:
        _held[self.device] = _held.get(self.device, 0) - self.free
        self.free = 0

    def close(self) -> None:
        """The pool is gone: what its arrays still hold goes back to the device with them."""
        self.closed = True
        self.give_back()


class MemoryPool:
    """Keeps count of its bytes device by device, in units of 512; a block is free again when nothing refers to it.

    All methods are about the current device.
    """

    def __init__(self) -> None:
        self._devices: dict[int, _OneDevice] = {}

    def _here(self) -> _OneDevice:
        if _current.device not in self._devices:
            self._devices[_current.device] = here = _OneDevice(_current.device)
            weakref.finalize(self, here.close)
        return self._devices[_current.device]

    def set_limit(self, size: int) -> None:
        self._here().limit = size

    def malloc(self, size: int, /) -> MemoryPointer:
        size, device, here = -(-max(size, 1) // 512) * 512, _current.device, self._here()
        held = _held.get(device, 0)
        if (here.limit and here.used + here.free + size > here.limit) or held + size > _total_memory():
            raise _OutOfMemoryError(f"Out of memory allocating {size} bytes")
        block = _Block(size, device)
        here.used += size
        _held[device] = held + size
        weakref.finalize(block, here.release, size)
        return MemoryPointer(block, block.bytes.ctypes.data)

    def free_all_blocks(self) -> None:
        self._here().give_back()

    def total_bytes(self) -> int:
        here = self._here()
        return here.used + here.free


_default_pool = MemoryPool()


def _allocate(size: int) -> MemoryPointer:
    refuse_while_recording("allocation")
    return (_current.allocator or _default_pool.malloc)(size)


def _total_memory() -> int:
    return int(os.environ.get("FAKE_CUPY_MEMORY", 2 << 30))


@contextmanager
def using_allocator(allocator):
    before, _current.allocator = _current.allocator, allocator
    try:
        yield
    finally:
        _current.allocator = before


class Device:
    def __init__(self, index: int, /) -> None:
        if not 0 <= index < runtime.getDeviceCount():
            raise runtime.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id = index
        self._before: list[int] = []

    def __enter__(self) -> Device:
        self._before.append(_current.device)
        _set_device(self.id)
        return self

    def __exit__(self, *error: object) -> None:
        _set_device(self._before.pop())

    def use(self) -> None:
        _set_device(self.id)

    @property
    def compute_capability(self) -> str:
        return os.environ.get("FAKE_CUPY_CAPABILITY", "90")

    @property
    def mem_info(self) -> tuple[int, int]:
        with self:
            return _total_memory() - _held.get(self.id, 0), _total_memory()


class Stream:
    def __init__(self, non_blocking: bool = False) -> None:
        self.device, self.synchronizations = _current.device, 0
        self.recorded: list[Callable[[], None]] | None = None

    def __enter__(self) -> Stream:
        assert self.device == _current.device, "a stream of another device"
        self._before, _current.stream = _current.stream, self
        return self

    def __exit__(self, *error: object) -> None:
        _current.stream = self._before

    def synchronize(self) -> None:
        refuse_while_recording("synchronize")
        self.synchronizations += 1

    def begin_capture(self, mode: int | None = None) -> None:
        if os.environ.get("FAKE_CUPY_NO_CAPTURE"):
            raise _Runtime.CUDARuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted")
        assert self.recorded is None
        self.recorded = []

    def end_capture(self) -> Graph:
        graph, self.recorded = Graph(self.recorded), None
        return graph


class Graph:
    """Calls that were recorded, with the arguments they had then."""

    launches = 0

    def __init__(self, calls: list[Callable[[], None]], /) -> None:
        self.calls = calls

    def launch(self, stream: Stream | None = None) -> None:
        assert (stream or _current.stream) is not None
        Graph.launches += 1
        for call in self.calls:
            call()


def submit(call: Callable[[], None]) -> None:
    """Run it, or record it if the current stream is being captured."""
    if _current.stream is not None and _current.stream.recorded is not None:
        _current.stream.recorded.append(call)
    else:
        call()


def refuse_while_recording(what: str) -> None:
    if _current.stream is not None and _current.stream.recorded is not None:
        raise _Runtime.CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is captured")


class Event:
    def record(self, stream: Stream) -> None:
        refuse_while_recording("an event")
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        pass


def get_elapsed_time(begin: Event, end: Event, /) -> float:
    return 1000 * (end.time - begin.time)


def _uuid(machine_index: int) -> bytes:
    return bytes(range(1, 16)) + bytes([machine_index])


def _visible() -> list[int]:
    """The machine's devices that CUDA_VISIBLE_DEVICES leaves, in its order; what is no device ends the list."""
    machine = range(int(os.environ.get("FAKE_CUPY_DEVICES", "1")))
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return list(machine)
    found: list[int] = []
    for entry in asked.split(","):
        entry = entry.strip()
        if entry.startswith("GPU-"):  # as much of a UUID as is unambiguous
            digits = entry.removeprefix("GPU-").replace("-", "")
            fitting = [k for k in machine if digits and _uuid(k).hex().startswith(digits)]
        else:
            fitting = [int(entry)] if entry.isdigit() and int(entry) in machine else []
        if len(fitting) != 1:
            break
        if fitting[0] in found:
            return []
        found += fitting
    return found


class _Runtime:
    class CUDARuntimeError(RuntimeError):
        pass

    @staticmethod
    def getDeviceCount() -> int:
        if os.environ.get("FAKE_CUPY_ERROR"):
            raise _Runtime.CUDARuntimeError(os.environ["FAKE_CUPY_ERROR"])
        count = len(_visible())
        if not count:
            raise _Runtime.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return count

    @staticmethod
    def getDeviceProperties(index: int, /) -> dict[str, object]:
        return {
            "name": b"Emulated device",
            "uuid": _uuid(_visible()[index]).split(b"\0")[0],  # CuPy takes the array of 16 char for a string
            "multiProcessorCount": 1,
            "totalGlobalMem": _total_memory(),
        }

    @staticmethod
    def deviceGetPCIBusId(index: int, /) -> str:
        return f"0000:{_visible()[index] + 1:02X}:00.0"

    @staticmethod
    def driverGetVersion() -> int:
        return 12090

    @staticmethod
    def runtimeGetVersion() -> int:
        return 12090


class _Nvrtc:
    @staticmethod
    def getVersion() -> tuple[int, int]:
        if os.environ.get("FAKE_CUPY_NO_NVRTC"):
            raise RuntimeError("CuPy failed to load libnvrtc.so.12: cannot open shared object file")
        return 12, 9


class _Nvtx:
    ranges: ClassVar[list[str]] = []

    @staticmethod
    def RangePush(name: str, /) -> None:
        _Nvtx.ranges.append(name)

    @staticmethod
    def RangePop() -> None:
        pass


runtime, nvrtc, nvtx = _Runtime, _Nvrtc, _Nvtx
