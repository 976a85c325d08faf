"""Files of data: search, compression and format, the last two recognised from the content."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import zlib
from pathlib import Path
from typing import Any

from pacehpc.errors import PacehpcError
from pacehpc.machine import total_memory

_SMALL = 256 * 2**20  # what any file may unpack to
_RATIO = 200  # frames pack 3 to 50 times


def find_file(
    name: str | os.PathLike[str], datapath: str | os.PathLike[str] | None = None, key: str | None = None
) -> Path:
    """The file `name`: as it is, else in `datapath`, else in $PACEMAKERDATAPATH; key: of the input file that gives it.

    Raises:
        PacehpcError: it is in none of them; the message lists where was looked.
    """
    name = Path(name).expanduser()
    places = [name]
    if not name.is_absolute():
        for folder in (datapath, os.environ.get("PACEMAKERDATAPATH")):
            if folder:
                places.append(Path(folder).expanduser() / name)
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(f"{place} (a folder)" if place.is_dir() else str(place) for place in places)
    cure = f"Check {key} and data.datapath." if key else "Check its name and folder."
    raise PacehpcError(f"Data file not found: {looked}. {cure}")


def file_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Path) -> bytes:
    """The file's content, unpacked if it is gzip, bzip2 or xz.

    Raises:
        PacehpcError: unreadable, damaged, or unpacking to far more than any data set does.
    """
    size = path.stat().st_size
    limit = min(max(_SMALL, _RATIO * size), total_memory() // 2)
    with open(path, "rb") as file:
        head = file.read(6)
        file.seek(0)
        if head[:2] == b"\x1f\x8b":
            stream: Any = gzip.GzipFile(fileobj=file)
        elif head[:3] == b"BZh":
            stream = bz2.BZ2File(file)
        elif head == b"\xfd7zXZ\0":
            stream = lzma.LZMAFile(file)  # noqa: SIM115
        else:
            stream = file
        chunks, total = [], 0
        try:
            while chunk := stream.read(2**22):
                total += len(chunk)
                if total > limit:
                    raise PacehpcError(f"{path}: unpacks to more than {limit / 2**20:.0f} MiB; this is no data set.")
                chunks.append(chunk)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as problem:
            raise PacehpcError(f"{path}: damaged file ({problem}).") from None
    return b"".join(chunks)


def file_format(head: bytes) -> str:
    """'pickle', 'extxyz', 'asedb', 'traj', 'hdf5' or '' from the first bytes of the unpacked content."""
    if head.startswith(b"- of Ulm"):
        return "traj"
    if head.startswith(b"SQLite format 3\0"):
        return "asedb"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        return "pickle"
    first = head.split(b"\n", 1)[0].strip()
    if first.isdigit():
        return "extxyz"
    if head[:1] in (b"(", b"c"):  # protocols 0 and 1
        return "pickle"
    return ""


def text_stream(data: bytes, source: str) -> io.StringIO:
    try:
        return io.StringIO(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise PacehpcError(f"{source}: not a text file in UTF-8.") from None
