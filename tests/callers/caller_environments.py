"""Environments of programs that call pacemaker, and one where pacehpc answers to its name."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from environments import cannot_run

ROOT = Path(__file__).parents[2]
SHIM = ROOT / "packaging" / "pacemaker"


def environ() -> dict[str, str]:
    """This process's environment, with the MPI library of the tests."""
    libraries = os.pathsep.join(filter(None, [f"{sys.prefix}/lib", os.environ.get("LD_LIBRARY_PATH")]))
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"LD_LIBRARY_PATH": libraries}


def call(*words: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environ(), text=True, capture_output=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def from_index(folder: Path, *installs: tuple[str, ...]) -> Path:
    """The Python of a new environment with packages of the index; each of `installs`: arguments of one pip install.

    Without an index the test cannot run.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    for words in installs:
        # without compiling: little of what is installed is ever imported
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", *words]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode:
            cannot_run(f"cannot install {' '.join(words)} from the package index: {done.stderr[-500:]}")
    return python


def with_package(folder: Path) -> Path:
    """The folder `bin` of a new environment with pacehpc and the package, and this one's dependencies."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(own, "dependencies.pth").write_text("\n".join(dependencies))
    pip = [
        folder / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-compile",
    ]
    call(*pip, "--no-index", "--ignore-installed", ROOT, SHIM, cwd=folder)
    return folder / "bin"
