"""Kernels compiled at run time by the host's C++ compiler, kept in a cache of the user's own.

The name of a library tells what it depends on by hashes: the kernels' source, the potential's shape and the flags; the
instruction set, for `native` the processor; the compiler. A machine without a compiler uses what another one, of the
same processor or with the same PACEHPC_MARCH, left in the cache. A library is loaded only if it belongs to the user,
nobody else may write it, and it ends with the hash of its contents that was appended when it was made.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

from pacehpc.errors import PacehpcError
from pacehpc.machine import UNSTOPPED

log = logging.getLogger("pacehpc")

FLAGS = (
    "-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC",
)  # fmt: skip
NEEDED_FLAGS = {
    "x86-64-v3": {"avx2", "bmi2", "fma"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}
"""Flags of /proc/cpuinfo without which a library for an instruction set would crash."""
_ahead: dict[tuple[str, str], threading.Thread] = {}
"""Compilers at work in the background. Of the process, as their cache is: who needs a library waits for its compiler
without knowing who started it."""
DIGEST_SIZE = hashlib.sha256().digest_size


def kernel_folder() -> Path:
    """Folder of the kernel sources: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / "device.h").is_file():
            return folder
    raise PacehpcError(f"the kernel sources are missing beside {package}: install pacehpc again.")


def compiler() -> str:
    """Path of the host's C++17 compiler: $CXX, else c++, g++, clang++.

    Raises PacehpcError if there is none.
    """
    path = _find_compiler()
    if path is not None:
        return path
    chosen = os.environ.get("CXX")
    wanted = f"CXX={chosen} is not a program on PATH" if chosen else "no C++ compiler (c++, g++, clang++) on PATH"
    raise PacehpcError(
        f"{wanted}: the cpu backend compiles its kernels for your potential. Install one (Debian: apt-get install g++; "
        "cluster: module load gcc; conda: conda install cxx-compiler), or fill the kernel cache where there is one: "
        "`pacehpc compile`, with PACEHPC_MARCH set here and there if the processors differ."
    )


def _find_compiler() -> str | None:
    chosen = os.environ.get("CXX")
    found = (shutil.which(name) for name in ([chosen] if chosen else ["c++", "g++", "clang++"]))
    return next((str(Path(path).absolute()) for path in found if path), None)


def architecture() -> str:
    """Instruction set that kernels are compiled for: $PACEHPC_MARCH, else that of this processor."""
    return os.environ.get("PACEHPC_MARCH") or "native"


@cache
def _identity(compiler_path: str) -> str:
    command = [compiler_path, "--version"]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, stdin=subprocess.DEVNULL
    ).stdout


@cache
def _cpuinfo() -> dict[str, str]:
    """What distinguishes processors that `native` would treat differently."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {"machine": platform.processor() + platform.machine()}
    fields = r"^(vendor_id|cpu family|model|model name|flags|CPU implementer|CPU part|Features)\s*:\s*(.*)$"
    return dict(re.findall(fields, text.split("\n\n")[0], re.M))


@cache
def macros(compiler_path: str, march: str) -> str:
    """Macros that the compiler defines for an instruction set."""
    command = [compiler_path, f"-march={march}", "-dM", "-E", "-x", "c++", "-include", "stdint.h", os.devnull]
    result = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False, stdin=subprocess.DEVNULL
    )
    if result.returncode:
        raise PacehpcError(
            f"{compiler_path} does not work, or does not know the instruction set '{march}': see `{compiler_path} "
            "--version`, choose another compiler with CXX, or set PACEHPC_MARCH to a value of its -march option, such "
            f"as native or x86-64-v3.\n{first_errors(result.stderr)}"
        )
    return result.stdout


def lanes() -> int:
    """Atoms in a tile: 8 with 512-bit vectors, else 4.

    Raises PacehpcError without a compiler, unless the cache has libraries for this instruction set.
    """
    return _lanes(_settings())


def _settings() -> tuple[str | None, ...]:
    """What a process that changes its environment may have changed."""
    names = ("CXX", "PACEHPC_MARCH", "PACEHPC_CACHE", "XDG_CACHE_HOME", "HOME", "PATH")
    return tuple(os.environ.get(name) for name in names)


@cache
def _lanes(settings: tuple[str | None, ...]) -> int:
    path = _find_compiler()
    if path is not None:
        return 8 if "__AVX512F__" in macros(path, architecture()) else 4
    for library in cache_folder().glob(f"*-*-*x{_target()}-*.so"):
        return int(library.name.split("-")[2].split("x")[0])
    compiler()
    raise AssertionError


def _target() -> str:
    march = architecture()
    return _hash(march, repr(_cpuinfo()) if march == "native" else "")[:16]


def cache_folder() -> Path:
    """$PACEHPC_CACHE, else ~/.cache/pacehpc: made for the user alone.

    Raises PacehpcError if it belongs to, or can be written by, somebody else.
    """
    folder = Path(os.environ.get("PACEHPC_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pacehpc")
    folder = folder.expanduser().absolute() / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError as error:
        raise PacehpcError(
            f"the kernel cache {folder} cannot be used ({error.strerror}): set PACEHPC_CACHE to a folder of your own."
        ) from None
    if info.st_uid != os.getuid():
        raise PacehpcError(
            f"the kernel cache {folder} belongs to another user: set PACEHPC_CACHE to a folder of your own."
        )
    if stat.S_IMODE(info.st_mode) & 0o022:
        raise PacehpcError(f"others may write to the kernel cache {folder}: chmod 700 it, or set PACEHPC_CACHE.")
    return folder


def made_with() -> str:
    """What the bits of kernels depend on beside the potential: instruction set, lanes, and a hash of these, sources,
    flags and compiler.

    Without a compiler: that of the libraries in the cache. Raises PacehpcError where there are none.
    """
    width, path = lanes(), _find_compiler()
    if path is not None:
        compilers = {_hash(path, _identity(path))[:8]}
    else:
        compilers = {
            library.stem.rsplit("-", 1)[1] for library in cache_folder().glob(f"evaluate-*-{width}x{_target()}-*.so")
        }
    found = _hash(repr(_sources()), repr(FLAGS), f"{width}x{_target()}", *sorted(compilers))[:8]
    return f"{architecture()}, {width} lanes, {found}"


def _sources() -> list[tuple[str, bytes]]:
    folder = kernel_folder()
    return [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.h")) + sorted(folder.glob("*.cpp"))]


def library_path(header: str, program: str = "evaluate") -> Path:
    """Where the library of a shape is kept, whether it exists or not.

    Without a compiler: one that another compiler made of the same source; PacehpcError if there is none.
    """
    flags = _flags(program)
    stem = f"{program}-{_hash(header, repr(_sources()), repr(flags))[:40]}-{lanes()}x{_target()}"
    suffix = ".o" if program == "object" else ".so"
    made_by = _find_compiler()
    if made_by is not None:
        return cache_folder() / f"{stem}-{_hash(made_by, _identity(made_by))[:8]}{suffix}"
    for path in sorted(cache_folder().glob(f"{stem}-*{suffix}")):
        if is_sound(path):
            return path
    return cache_folder() / f"{stem}-{_hash(compiler())[:8]}{suffix}"


def _flags(program: str) -> tuple[str, ...]:
    if program not in ("program", "object"):
        return FLAGS
    kept = tuple(flag for flag in FLAGS if flag not in ("-fopenmp", "-shared"))  # LAMMPS may bring another OpenMP
    return (*kept, "-c" if program == "object" else "-shared")


def compile_library(header: str, program: str = "evaluate") -> tuple[Path, float]:
    """Compile the kernels for a shape unless the cache has them; returns the library and the seconds it took.

    program: the source kernels/{program}.cpp; "object": the object file of program.cpp, of which LAMMPS plugins are
    made as well.
    Several processes may do this at once: each writes beside and renames.
    Raises PacehpcError if the compiler fails.
    """
    ahead = _ahead.pop((header, program), None)
    if ahead is not None:
        ahead.join()
    return _compile(header, program)


def compile_ahead(header: str, program: str = "evaluate") -> None:
    """Start compiling the kernels for a shape in the background; `compile_library` waits for it, and shows errors."""
    if (header, program) not in _ahead:
        thread = _ahead[header, program] = threading.Thread(target=_compile_quietly, args=(header, program))
        thread.start()


def _compile_quietly(header: str, program: str) -> None:
    with contextlib.suppress(PacehpcError):
        _compile(header, program)


def _compile(header: str, program: str) -> tuple[Path, float]:
    path = library_path(header, program)
    if is_sound(path):
        return path, 0.0
    start = time.perf_counter()
    with build_folder(path.parent) as build:
        shape, library = Path(build) / "shape.h", Path(build) / "kernels.so"
        shape.write_text(f"#define LANES {lanes()}\n{header}", encoding="utf-8")
        command = [compiler(), *_flags(program), "-o", str(library)]
        if program == "program":
            command += [str(compile_library(header, "object")[0]), "-pthread"]
        else:
            source = kernel_folder() / ("program.cpp" if program == "object" else f"{program}.cpp")
            command += [f"-march={architecture()}", "-include", str(shape), str(source)]
        if has_vector_math() and program != "object":
            command.append("-lmvec")
        result = run_compiler(command)
        if result.returncode:
            log.debug("%s\n%s", shlex.join(command), result.stderr)
            openmp = re.search(r"omp\.h|-l[gi]?omp", result.stderr)
            hint = " clang++ needs its OpenMP library (Debian: libomp-dev)." if openmp else ""
            raise PacehpcError(
                f"{compiler()} could not compile the kernels for '{architecture()}':\n"
                f"{first_errors(result.stderr) or f'exit code {result.returncode}'}\n"
                f"Choose another compiler with CXX, or instruction set with PACEHPC_MARCH.{hint}"
            )
        seal(library, path)
    seconds = time.perf_counter() - start
    log.debug("compiled %s in %.1f s", path, seconds)
    return path, seconds


def seal(made: Path, path: Path) -> None:
    """Move a compiled file to its place in the cache, with the hash of its contents at its end."""
    with made.open("r+b") as file:
        file.write(hashlib.sha256(file.read()).digest())
    made.chmod(0o700)
    os.replace(made, path)


def unsealed(path: Path) -> bytes:
    """Contents of a file in the cache as the compiler wrote it."""
    return path.read_bytes()[:-DIGEST_SIZE]


def run_compiler(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a compiler, or what it calls, in a folder; its output is caught and nobody is asked."""
    command = [*UNSTOPPED, *command]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
    )


def load_library(header: str, program: str = "evaluate") -> ctypes.CDLL:
    """The library of a shape, compiled if the cache lacks it; kept in this process.

    Raises PacehpcError if this processor cannot run it.
    """
    return _load_library(header, program, _settings())


@cache
def _load_library(header: str, program: str, settings: tuple[str | None, ...]) -> ctypes.CDLL:
    march, flags = architecture(), _cpuinfo().get("flags")
    needed = NEEDED_FLAGS.get(march, set()) | ({"avx512f"} if lanes() == 8 else set())
    lacking = needed - set(flags.split()) if flags else set()
    if lacking:
        raise PacehpcError(
            f"PACEHPC_MARCH={march} needs a processor with {', '.join(sorted(lacking))}, which this one lacks: "
            "unset it, or choose x86-64-v3 (or x86-64), which older processors know."
        )
    path, _ = compile_library(header, program)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise PacehpcError(
            f"the compiled kernels cannot be loaded ({error}): set PACEHPC_CACHE to a folder on a file system that "
            "allows programs, or choose another compiler with CXX."
        ) from None


def build_folder(parent: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(dir=parent, prefix="build-")
    except OSError as error:
        raise PacehpcError(
            f"the kernel cache {parent} cannot be written ({error.strerror}): set PACEHPC_CACHE to another folder."
        ) from None


def has_vector_math() -> bool:
    """glibc's libmvec, whose vector exp and cos the kernels use."""
    known = macros(compiler(), architecture())
    return "__GLIBC__" in known and "__x86_64__" in known and lanes() == 8


def first_errors(output: str, count: int = 3) -> str:
    """The first lines of a compiler's output that tell what is wrong."""
    lines = output.strip().splitlines()
    errors = [line for line in lines if "error" in line.lower()] or lines
    return "\n".join("  " + line.strip()[:200] for line in errors[:count])


def is_sound(path: Path) -> bool:
    """Whether a cached library is the user's own and what was written."""
    try:
        info = path.stat()
        if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o022:
            return False
        contents = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(contents[:-DIGEST_SIZE]).digest() == contents[-DIGEST_SIZE:]


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
