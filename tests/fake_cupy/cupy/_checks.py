"""Checks of every access of a kernel to memory (FAKE_CUPY_CHECKS=1): races, stray accesses, what nobody has written.

checks.cpp finds them; here it is told of arrays, and what it found is put into words.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import subprocess
import weakref
from pathlib import Path

import numpy

from . import cuda

KINDS = ("race", "unwritten", "outside", "misaligned", "other device", "apart", "waiting", "bad exchange")
KINDS += ("index", "overflow")
REPORT = numpy.dtype(
    [(name, numpy.int32) for name in ("kind", "access", "other_access")]
    + [(name, numpy.uint32) for name in ("thread", "other", "from", "other_from", "size")]
    + [("at", numpy.uint64), ("array", numpy.uint64)],
    align=True,
)

_arrays: dict[int, tuple[numpy.dtype, int]] = {}  # element types and bytes by address


def on() -> bool:
    return bool(os.environ.get("FAKE_CUPY_CHECKS"))


@functools.cache
def _runtime() -> ctypes.CDLL:
    from ._build import runtime

    library = ctypes.CDLL(str(runtime()))
    library.emulation_track.argtypes = [ctypes.c_size_t] * 3 + [ctypes.c_int] * 2
    library.emulation_forget.argtypes = [ctypes.c_size_t]
    library.emulation_mark.argtypes = [ctypes.c_size_t] * 2 + [ctypes.c_int]
    library.emulation_reports.argtypes = [ctypes.c_void_p, ctypes.c_long]
    library.emulation_reports.restype = ctypes.c_long
    return library


def track(block: cuda._Block, values: numpy.ndarray, written: bool) -> None:
    """An array that kernels may use until its memory is given back."""
    address, item = values.ctypes.data, values.itemsize if values.itemsize in (4, 8) else 8
    _arrays[address] = values.dtype, values.nbytes
    _runtime().emulation_track(address, values.nbytes, item, block.device, written)
    weakref.finalize(block, _forget, address)


def _forget(address: int) -> None:
    _arrays.pop(address, None)
    _runtime().emulation_forget(address)


def mark(values: numpy.ndarray, written: bool) -> None:
    """Whether these elements count as written."""
    if on():
        _runtime().emulation_mark(values.ctypes.data, values.nbytes, written)


def forget_contents(*arrays: object) -> None:
    """From now on nobody has written these arrays; they hold NaN."""
    for array in arrays:
        array._values.view(numpy.uint8)[:] = 0xFF
        mark(array._values, False)


def explain(kernel: str, library: Path, block: int, names: dict[int, str]) -> str:
    """What was found in a launch with blocks of `block` threads; names: of arrays by address."""
    reports = numpy.zeros(20, REPORT)
    found = _runtime().emulation_reports(reports.ctypes.data, len(reports))
    return "\n".join(f"{kernel}: {_sentence(r, library, block, names)}" for r in reports[:found])


def _sentence(r: numpy.void, library: Path, block: int, names: dict[int, str]) -> str:
    def who(role: str, place: str) -> str:
        return f"thread {r[role] % block} of block {r[role] // block}{_line(library, r[place])}"

    def does(access: str) -> str:
        return ("reads", "writes", "adds to")[r[access]]

    me, other = who("thread", "from"), who("other", "other_from")
    what = _element(int(r["at"]), int(r["array"]), names)
    match KINDS[r["kind"]]:
        case "race":
            return f"race: {me} {does('access')} {what}, {other} {does('other_access')} it, and nothing orders the two"
        case "unwritten":
            return f"unwritten: {me} reads {what}, which nobody has written"
        case "outside":
            return f"outside: {me} {does('access')} {r['size']} bytes {_outside(int(r['at']), names)}"
        case "misaligned":
            return f"misaligned: {me} {does('access')} {r['size']} bytes at address {int(r['at']):#x}"
        case "other device":
            return f"other device: {me} {does('access')} {what} of another device"
        case "apart":
            return f"apart: {me} and {other} wait for each other at two places"
        case "waiting":
            return f"waiting: threads of a block wait for others that never come: {me} for {other}"
        case "bad exchange":
            return f"bad exchange: {me} exchanges with a part of its warp"
        case "index":
            return f"index: {me} goes beyond an array whose length it knows"
        case _:
            return f"overflow: {me} makes an integer that its type does not hold, or divides by zero"


def _element(at: int, array: int, names: dict[int, str]) -> str:
    if array not in _arrays:
        return f"shared memory at byte {at - array}"
    dtype, _ = _arrays[array]
    return f"{names.get(array, f'an array of {dtype}')}[{(at - array) // dtype.itemsize}]"


def _outside(at: int, names: dict[int, str]) -> str:
    gaps = {begin: max(begin - at, at - begin - size) for begin, (_, size) in _arrays.items()}
    nearest = min(gaps, key=gaps.get, default=0)
    if gaps.get(nearest, cuda.GUARD) >= cuda.GUARD:
        return f"at address {at:#x}, far from every array"
    return f"outside every array: {_element(at, nearest, names)}, of {_arrays[nearest][1]} bytes, is the nearest"


def _line(library: Path, place: int) -> str:
    """File and line of the code before the address where a thread goes on."""
    if not place:
        return ""
    command = ["addr2line", "-e", str(library), hex(int(place) - 1)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = re.search(r"(kernels/)?[^/ ]*:\S+", found)[0]
    return f" ({line})"
