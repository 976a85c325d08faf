"""The compiler and its cache. Kernels of a few lines stand in for the real ones, except at the end."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pacehpc import Potential
from pacehpc.backends import compile as building
from pacehpc.backends.interface import LossWeights
from pacehpc.errors import PacehpcError

KERNEL = 'extern "C" long answer() { return 100 * LANES + NUMBER; }\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a cache that is not there yet, for kernels that compile at once."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "device.h").write_text("")
    (sources / "evaluate.cpp").write_text(KERNEL)
    monkeypatch.setattr(building, "kernel_folder", lambda: sources)
    monkeypatch.setenv("PACEHPC_CACHE", str(tmp_path / "cache"))
    for name in ("PACEHPC_MARCH", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "kernels"


def header(number: int) -> str:
    return f"#define NUMBER {number}\n"


def answer(path: Path) -> int:
    return ctypes.CDLL(str(path)).answer() % 100


def program(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def compiler_of(path: Path, log: Path) -> Path:
    """A compiler that notes its calls."""
    return program(path, f'echo "$@" >> {log}\nexec {shutil.which("g++") or shutil.which("c++")} "$@"')


def compilations(log: Path) -> int:
    return log.read_text().count("-shared") if log.exists() else 0


def test_second_time_from_the_cache(folder):
    path, seconds = building.compile_library(header(7))
    assert answer(path) == 7
    assert seconds > 0
    made = path.stat().st_mtime_ns
    assert building.compile_library(header(7)) == (path, 0.0)
    assert path.stat().st_mtime_ns == made
    assert os.listdir(folder) == [path.name]


def test_cache_is_the_users_alone(folder):
    before = os.umask(0)
    try:
        path, _ = building.compile_library(header(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not stat.S_IMODE(path.stat().st_mode) & 0o077


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_folder_that_others_may_write(folder, mode):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.raises(PacehpcError, match="others may write"):
        building.compile_library(header(1))


def test_folder_of_somebody_else(folder, monkeypatch):
    folder.mkdir(parents=True)
    monkeypatch.setattr(building.os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(PacehpcError, match="belongs to another user"):
        building.cache_folder()


def test_library_of_somebody_else_is_not_loaded(folder, monkeypatch):
    path, _ = building.compile_library(header(1))
    assert building.is_sound(path)
    monkeypatch.setattr(building.os, "getuid", lambda: path.stat().st_uid + 1)
    assert not building.is_sound(path)


def test_library_that_others_may_write_is_made_anew(folder):
    path, _ = building.compile_library(header(1))
    path.chmod(0o770)
    assert building.compile_library(header(1))[1] > 0
    assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_cache_that_is_a_file(folder):
    folder.parent.write_text("")
    with pytest.raises(PacehpcError, match=r"cannot be used.*PACEHPC_CACHE"):
        building.compile_library(header(1))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "exchange"])
def test_damaged_library_is_compiled_again(folder, damage):
    path, _ = building.compile_library(header(3))
    contents = bytearray(path.read_bytes())
    if damage == "flip":
        contents[len(contents) // 2] ^= 1
    elif damage == "cut":
        del contents[-100:]
    elif damage == "empty":
        contents.clear()
    else:  # another library's contents with this one's hash
        other, _ = building.compile_library(header(4))
        contents[:-32] = other.read_bytes()[:-32]
    path.unlink()
    path.write_bytes(contents)
    path.chmod(0o700)
    again, seconds = building.compile_library(header(3))
    assert again == path
    assert seconds > 0
    assert answer(path) == 3


def test_name_follows_what_the_library_depends_on(folder, tmp_path, monkeypatch):
    paths = {building.library_path(header(1)), building.library_path(header(2))}
    for march in ("x86-64-v3", "x86-64") if _macro("__x86_64__") else ():
        monkeypatch.setenv("PACEHPC_MARCH", march)
        paths.add(building.library_path(header(1)))
        monkeypatch.delenv("PACEHPC_MARCH")
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-g"))
    paths.add(building.library_path(header(1)))
    monkeypatch.setenv("CXX", str(compiler_of(tmp_path / "other-c++", tmp_path / "log")))
    paths.add(building.library_path(header(1)))
    (building.kernel_folder() / "evaluate.cpp").write_text(KERNEL + "// changed\n")
    paths.add(building.library_path(header(1)))
    monkeypatch.setattr(building, "_cpuinfo", lambda: {"model name": "another processor"})
    paths.add(building.library_path(header(1)))
    assert len(paths) == (8 if _macro("__x86_64__") else 6)


def test_another_processor_has_its_own_native_library(folder, monkeypatch):
    here = building.library_path(header(1))
    monkeypatch.setattr(building, "_cpuinfo", lambda: {"model name": "another processor"})
    assert building.library_path(header(1)) != here
    monkeypatch.setenv("PACEHPC_MARCH", "x86-64" if _macro("__x86_64__") else "armv8-a")
    named = building.library_path(header(1))
    monkeypatch.undo()
    assert named.name.split("-")[-2] != here.name.split("-")[-2]


def test_processes_that_compile_at_once(folder, tmp_path, monkeypatch):
    log = tmp_path / "log"
    met = tmp_path / "met"
    met.mkdir()
    both = f"touch {met}/$$; n=0; while [ $(ls {met} | wc -l) -lt 2 ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done"
    slow = program(
        tmp_path / "slow-c++",
        f'case "$*" in *-shared*) {both};; esac\nexec {compiler_of(tmp_path / "c++", log)} "$@"',
    )
    monkeypatch.setenv("CXX", str(slow))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = pool.map(building.compile_library, [header(5)] * 2, chunksize=1)
        pool.close()  # so that they end by themselves, whatever signals they were born to ignore
        pool.join()
    assert compilations(log) == 2
    assert len({path for path, _ in results}) == 1
    assert answer(results[0][0]) == 5
    assert building.compile_library(header(5))[1] == 0
    assert len(os.listdir(folder)) == 1


def test_cxx_chooses_the_compiler(folder, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("CXX", str(compiler_of(tmp_path / "my compiler; touch owned", log)))
    building.compile_library(header(1))
    assert compilations(log) == 1
    assert not (tmp_path / "owned").exists()
    assert not Path("owned").exists()


@pytest.mark.parametrize("name", ["no-such-compiler", "g++; touch {}", "$(touch {})", "g++ -wrapper touch,{}"])
def test_cxx_that_is_no_program(folder, tmp_path, monkeypatch, name):
    victim = tmp_path / "owned"
    monkeypatch.setenv("CXX", name.format(victim))
    with pytest.raises(PacehpcError, match="is not a program on PATH"):
        building.compile_library(header(1))
    assert not victim.exists()


@pytest.mark.parametrize(
    "march", ["native -wrapper touch,{}", "native;touch {}", "$(touch {})", "../../native", "nonsense"]
)
def test_instruction_set_that_is_none(folder, tmp_path, monkeypatch, march):
    victim = tmp_path / "owned"
    monkeypatch.setenv("PACEHPC_MARCH", march.format(victim))
    with pytest.raises(PacehpcError, match="does not know the instruction set") as error:
        building.compile_library(header(1))
    assert len(str(error.value)) < 1500
    assert not victim.exists()


@pytest.mark.parametrize("name", ["a cache", "$(touch owned)", "-rf", "@list", "a;touch owned", "a'\"`b"])
def test_cache_of_any_name(folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACEHPC_CACHE", name)
    path, _ = building.compile_library(header(6))
    assert path.parent == tmp_path / name / "kernels"
    assert answer(path) == 6
    assert not (tmp_path / "owned").exists()


def test_no_compiler(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PacehpcError, match=r"no C\+\+ compiler.*apt-get install g\+\+") as error:
        building.compile_library(header(1))
    assert "\n" not in str(error.value)


def test_no_compiler_but_a_cache(folder, tmp_path, monkeypatch):
    path, _ = building.compile_library(header(8))
    lanes = building.lanes()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert building.lanes() == lanes
    assert building.compile_library(header(8)) == (path, 0.0)
    with pytest.raises(PacehpcError, match="fill the kernel cache"):
        building.compile_library(header(9))
    path.write_bytes(b"damaged")
    with pytest.raises(PacehpcError, match="fill the kernel cache"):
        building.compile_library(header(8))


def test_kernels_that_do_not_compile(folder):
    sources = building.kernel_folder()
    (sources / "evaluate.cpp").write_text("".join(f"int f{i}() {{ return missing_{i}; }}\n" for i in range(500)))
    with pytest.raises(PacehpcError, match="could not compile the kernels") as error:
        building.compile_library(header(1))
    message = str(error.value)
    assert "missing_0" in message
    assert len(message.splitlines()) <= 6
    assert len(message) < 1500
    assert os.listdir(folder) == []


def test_compiler_that_dies(folder, tmp_path, monkeypatch):
    real = shutil.which("g++") or shutil.which("c++")
    monkeypatch.setenv(
        "CXX", str(program(tmp_path / "c++", f'case "$*" in *-shared*) kill -9 $$;; esac\nexec {real} "$@"'))
    )
    with pytest.raises(PacehpcError, match="exit code -9"):
        building.compile_library(header(1))


def test_instruction_set_that_this_processor_lacks(folder, monkeypatch):
    monkeypatch.setattr(building, "_cpuinfo", lambda: {"flags": "fpu sse sse2"})
    monkeypatch.setenv("PACEHPC_MARCH", "x86-64-v3")
    with pytest.raises(PacehpcError, match="needs a processor with avx2, bmi2, fma"):
        building.load_library(header(1))


def test_library_that_cannot_be_loaded(folder, tmp_path, monkeypatch):
    broken = 'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo nonsense > "$2"; shift; done'
    real = shutil.which("g++") or shutil.which("c++")
    text = f'case "$*" in *-shared*) {broken};; *) exec {real} "$@";; esac'
    monkeypatch.setenv("CXX", str(program(tmp_path / "c++", text)))
    with pytest.raises(PacehpcError, match="cannot be loaded"):
        building.load_library(header(1))


def test_library_is_loaded_once(folder):
    assert building.load_library(header(1)) is building.load_library(header(1))
    assert building.load_library(header(1)) is not building.load_library(header(2))


# the real kernels


@pytest.mark.parametrize("march", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_instruction_sets_give_the_golden_values(golden, march):
    """Energies, forces, stress and the loss gradient, in a process of its own."""
    skip_unless_runnable(march)
    tests = Path(__file__).parent / "test_backends_golden.py"
    chosen = "cpu and (alni_mixed or cuozr_zbl or cu_forces)"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests), "-k", chosen]
    run = subprocess.run(
        command, env=os.environ | {"PACEHPC_MARCH": march}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert "3 passed" in run.stdout


@pytest.mark.parametrize(("march", "lanes", "register"), [("x86-64-v3", 4, "ymm"), ("x86-64-v4", 8, "zmm")])
def test_products_are_vector_instructions(golden, monkeypatch, march, lanes, register):
    skip_unless_runnable(march)
    if shutil.which("objdump") is None:
        pytest.skip("needs objdump")
    from pacehpc.backends.shape import make_shape

    monkeypatch.setenv("PACEHPC_MARCH", march)
    assert building.lanes() == lanes
    potential = Potential.load(golden / "potentials" / "alni_mixed.yaml")
    path, _ = building.compile_library(make_shape(potential).header(stress=LossWeights().stress == 0))
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True)
    fused = [line for line in listing.stdout.splitlines() if "vfm" in line or "vfn" in line]
    assert len(fused) > 1000
    assert sum(register in line for line in fused) > 0.95 * len(fused)


def _macro(name: str) -> bool:
    return name in building.macros(building.compiler(), "native")


def skip_unless_runnable(march: str) -> None:
    """Skip what this processor has no instructions for."""
    if not _macro("__x86_64__"):
        pytest.skip("another kind of processor")
    lacking = building.NEEDED_FLAGS.get(march, set()) - set(building._cpuinfo()["flags"].split())
    if lacking:
        pytest.skip(f"this processor lacks {', '.join(sorted(lacking))}")
