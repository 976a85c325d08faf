"""Builds the plugin: kernels for the potential, the pair style for a LAMMPS, and tables, linked into one file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pacehpc.backends.compile import (
    architecture,
    build_folder,
    cache_folder,
    compile_library,
    compiler,
    first_errors,
    has_vector_math,
    is_sound,
    kernel_folder,
    macros,
    run_compiler,
    seal,
    unsealed,
)
from pacehpc.backends.program import potential_tables
from pacehpc.errors import PacehpcError
from pacehpc.lammps.target import INTEGERS, Target
from pacehpc.potential import Potential
from pacehpc.replacing import replace_file

FLAGS = ("-std=c++17", "-O2", "-fPIC")
"""Of the pair style, which any processor runs; the kernels have flags of their own."""
FEATURES = {
    "avx": "__AVX__", "avx2": "__AVX2__", "fma": "__FMA__", "bmi2": "__BMI2__", "avx512f": "__AVX512F__",
    "avx512dq": "__AVX512DQ__", "avx512bw": "__AVX512BW__", "avx512vl": "__AVX512VL__", "avx512cd": "__AVX512CD__",
    "avx512ifma": "__AVX512IFMA__", "avx512vbmi": "__AVX512VBMI__", "avx512vbmi2": "__AVX512VBMI2__",
    "avx512vnni": "__AVX512VNNI__", "avx512bitalg": "__AVX512BITALG__", "avx512vpopcntdq": "__AVX512VPOPCNTDQ__",
}  # fmt: skip
"""What a processor may lack, as __builtin_cpu_supports calls it, and the macro of a compiler that uses it."""
TABLES = """    .section .rodata
    .balign 64
    .globl pacehpc_tables
pacehpc_tables:
    .incbin "tables.bin"
    .section .note.GNU-stack,"",%progbits
"""


def build_plugin(potential: Potential, name: str, output: Path, target: Target, grades: dict | None = None) -> None:
    """Write the plugin of a potential for a LAMMPS.

    Args:
        potential: what the plugin evaluates.
        name: what the plugin calls the potential, its file.
        output: file to write; replaced as a whole.
        target: the LAMMPS that will load it.
        grades: inverse of the active set of each element, for extrapolation grades.

    Raises:
        PacehpcError: the compiler or the linker failed.
    """
    shape, tables = potential_tables(potential, grades)
    kernels, _ = compile_library(shape.header(stress=False), "object")
    pair_style = _compile_pair_style(target)
    with build_folder(cache_folder()) as folder:
        build = Path(folder)
        (build / "kernels.o").write_bytes(unsealed(kernels))
        (build / "pair_style.o").write_bytes(unsealed(pair_style))
        (build / "tables.bin").write_bytes(tables)
        (build / "tables.s").write_text(TABLES)
        (build / "built_for.h").write_text(_built_for(name, target))
        (build / "exports").write_text("{ global: lammpsplugin_init; local: *; };\n")
        _run(
            [
                compiler(),
                *_options(target),
                "-I.",
                "-c",
                str(kernel_folder() / "lammps" / "plugin.cpp"),
                "-o",
                "plugin.o",
            ],
            build,
        )
        _run([compiler(), "-c", "tables.s", "-o", "tables.o"], build)
        link = [compiler(), "-shared", "-o", "plugin.so", "kernels.o", "pair_style.o", "plugin.o", "tables.o"]
        _run(
            [*link, "-Wl,--version-script=exports", *(["-lmvec"] if has_vector_math() else []), "-pthread", "-lm"],
            build,
        )
        try:
            replace_file(output, (build / "plugin.so").read_bytes())
            output.chmod(0o755)
        except OSError as error:
            raise PacehpcError(f"-o {output} cannot be written ({error.strerror}): name another file.") from None


def _compile_pair_style(target: Target) -> Path:
    """The pair style's object file in the cache, compiled unless it is there."""
    sources = [
        path for folder in (kernel_folder(), kernel_folder() / "lammps") for path in sorted(folder.glob("*pa*.*"))
    ]
    parts = [
        path.read_bytes() for path in [*sources, *sorted(target.headers.glob("*.h")), target.mpi_headers / "mpi.h"]
    ]
    parts += [repr((_options(target), compiler())).encode()]
    path = cache_folder() / f"pair_pacehpc-{hashlib.sha256(b''.join(parts)).hexdigest()[:40]}.o"
    if not is_sound(path):
        with build_folder(cache_folder()) as folder:
            command = [
                compiler(),
                *_options(target),
                "-c",
                str(kernel_folder() / "lammps" / "pair_pacehpc.cpp"),
                "-o",
                "pair.o",
            ]
            _run(command, Path(folder))
            seal(Path(folder) / "pair.o", path)
    return path


def _options(target: Target) -> list[str]:
    folders = [f"-I{kernel_folder()}", f"-isystem{target.headers}", f"-isystem{target.mpi_headers}"]
    return [*FLAGS, *target.macros, *folders]


def _built_for(name: str, target: Target) -> str:
    """What the guard of the plugin compares with the LAMMPS and the processor that it meets."""
    used = macros(compiler(), architecture())
    features = [feature for feature, macro in FEATURES.items() if re.search(rf"#define {macro}\b", used)]
    quoted = re.sub(r'["\\%]', "_", name)
    lines = {
        "POTENTIAL": f'"{quoted}"',
        "VERSION": target.version,
        "VERSION_NAME": f'"{target.version_name}"',
        "MPI": f'"{target.mpi}"',
        "MARCH": f'"{architecture()}"',
        "FEATURES(X)": " ".join(f'X("{feature}")' for feature in features),
    }
    lines |= {integer.upper(): target.sizes[integer] for integer in INTEGERS}
    return "".join(f"#define BUILT_FOR_{key} {value}\n" for key, value in lines.items())


def _run(command: list[str], folder: Path) -> None:
    done = run_compiler(command, folder)
    if done.returncode:
        raise PacehpcError(
            f"{command[0]} could not build the plugin:\n{first_errors(done.stderr) or f'exit code {done.returncode}'}\n"
            "Choose another compiler with CXX, or check that the headers are those of this LAMMPS."
        )
