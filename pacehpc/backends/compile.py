"""Kernels compiled at run time by the host's C++ compiler, kept in a cache of the user's own.

A library is named by the hash of everything that it depends on: the kernels' source, the potential's shape, the flags, the
compiler's version and the processor. A library is loaded only if it belongs to the user and its contents have the hash
that was recorded when it was made.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")

FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC")


def kernel_folder() -> Path:
    """Folder of the kernel sources: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "device.h").is_file():
            return folder
    raise PacehpcError(f"the kernel sources are missing beside {package}: install pacehpc again.")


@cache
def compiler() -> str:
    """Path of the host's C++17 compiler: $CXX, else c++, g++, clang++.

    Raises PacehpcError if there is none.
    """
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else ["c++", "g++", "clang++"]:
        path = shutil.which(name)
        if path:
            return path
    wanted = f"CXX={chosen} is not a program on PATH" if chosen else "no C++ compiler (c++, g++, clang++) on PATH"
    raise PacehpcError(
        f"{wanted}: the cpu backend compiles its kernels for your potential. Install one (Debian: apt-get install g++; "
        "cluster: module load gcc; conda: conda install cxx-compiler), or fill the kernel cache on the login node."
    )


@cache
def architecture() -> str:
    """Instruction set that kernels are compiled for: $PACEHPC_MARCH, else that of this processor."""
    return os.environ.get("PACEHPC_MARCH", "native")


@cache
def _compiler_identity() -> str:
    version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return version.stdout


@cache
def _processor() -> str:
    """What distinguishes processors that `native` would treat differently."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        import platform

        return platform.processor() + platform.machine()
    fields = re.findall(r"^(vendor_id|cpu family|model|model name|flags|Features)\s*:\s*(.*)$", text.split("\n\n")[0], re.M)
    return repr(fields)


@cache
def lanes() -> int:
    """Atoms in a tile: 8 with 512-bit vectors, else 4."""
    command = [compiler(), f"-march={architecture()}", "-dM", "-E", "-x", "c++", os.devnull]
    macros = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if macros.returncode:
        raise PacehpcError(
            f"{compiler()} does not know the instruction set '{architecture()}': set PACEHPC_MARCH to a value of its "
            f"-march option, such as native or x86-64-v3.\n{macros.stderr.strip()}"
        )
    return 8 if "__AVX512F__" in macros.stdout else 4


def cache_folder() -> Path:
    """$PACEHPC_CACHE, else ~/.cache/pacehpc: made for the user alone.

    Raises PacehpcError if it belongs to, or can be written by, somebody else.
    """
    folder = Path(os.environ.get("PACEHPC_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "pacehpc")
    folder = folder.expanduser() / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError as error:
        raise PacehpcError(
            f"the kernel cache {folder} cannot be used ({error.strerror}): set PACEHPC_CACHE to a folder of your own."
        ) from None
    if info.st_uid != os.getuid():
        raise PacehpcError(f"the kernel cache {folder} belongs to another user: set PACEHPC_CACHE to a folder of your own.")
    if stat.S_IMODE(info.st_mode) & 0o022:
        raise PacehpcError(f"others may write to the kernel cache {folder}: chmod 700 it, or set PACEHPC_CACHE.")
    return folder


def library_path(header: str) -> Path:
    """Where the library of a shape is kept, whether it exists or not."""
    folder = kernel_folder()
    sources = [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.h")) + sorted(folder.glob("*.cpp"))]
    native = _processor() if architecture() == "native" else ""
    parts = [header, repr(sources), repr(FLAGS), architecture(), native, compiler(), _compiler_identity(), str(lanes())]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]
    return cache_folder() / f"evaluate-{digest}.so"


def compile_library(header: str) -> tuple[Path, float]:
    """Compile the kernels for a shape unless the cache has them; returns the library and the seconds it took.

    Several processes may do this at once: each writes beside and renames.
    Raises PacehpcError if the compiler fails.
    """
    path = library_path(header)
    if _is_sound(path):
        return path, 0.0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as build:
        shape, library = Path(build) / "shape.h", Path(build) / "kernels.so"
        shape.write_text(f"#define LANES {lanes()}\n{header}")
        source = kernel_folder() / "evaluate.cpp"
        command = [compiler(), *FLAGS, f"-march={architecture()}", "-include", str(shape), "-o", str(library), str(source)]
        if _has_vector_math():
            command.append("-lmvec")
        result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if result.returncode:
            raise PacehpcError(
                f"the kernels could not be compiled by {shlex.join(command)}:\n{result.stderr.strip()[:4000]}\n"
                "Choose another compiler with CXX, or instruction set with PACEHPC_MARCH."
            )
        record = path.with_suffix(".sha256")
        digest = Path(build) / "digest"
        digest.write_text(hashlib.sha256(library.read_bytes()).hexdigest())
        os.replace(digest, record)
        os.replace(library, path)
    seconds = time.perf_counter() - start
    log.debug("compiled %s in %.1f s", path, seconds)
    return path, seconds


def load_library(header: str) -> ctypes.CDLL:
    """The library of a shape, compiled if the cache lacks it."""
    path, _ = compile_library(header)
    return ctypes.CDLL(str(path))


@cache
def _has_vector_math() -> bool:
    """glibc's libmvec, whose vector exp and cos the kernels use."""
    return "__GLIBC__" in _macros() and "__x86_64__" in _macros() and lanes() == 8


@cache
def _macros() -> str:
    command = [compiler(), "-dM", "-E", "-x", "c++", "-include", "stdint.h", os.devnull]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout


def _is_sound(path: Path) -> bool:
    """Whether a cached library is the user's own and what was written."""
    record = path.with_suffix(".sha256")
    try:
        if path.stat().st_uid != os.getuid() or record.stat().st_uid != os.getuid():
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest() == record.read_text()
    except OSError:
        return False
