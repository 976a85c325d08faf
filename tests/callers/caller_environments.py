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


# What the programs below import, each with the version it was tried with. Their own lists of requirements bring several
# times as much, and finding versions for these takes longer than all tests of callers.
PACKAGES = (
    "pyiron-potentialfit==0.3.15", "pyiron-base==0.15.18", "pyiron-atomistics==0.8.12", "pyiron-dataclasses==0.0.14",
    "pyiron-snippets==1.5.1", "assyst==1.0.0", "cloudpickle==3.1.3", "defusedxml==0.7.1", "flexcache==0.3",
    "flexparser==0.4", "h5io==0.2.5", "h5io-browser==0.2.18", "monty==2026.10.21", "networkx==3.6.1", "numpy==2.4.6",
    "orjson==3.13.0", "pint==0.25.3", "platformdirs==4.14.8", "psutil==7.2.2", "pyfileindex==0.2.3",
    "pymatgen==2026.10.24", "pymatgen-core==2026.10.16", "pysqa==1.1.1", "pyxtal==1.1.5", "ruamel.yaml==0.19.1",
    "seaborn==0.13.2", "seekpath==2.2.2", "structuretoolkit==0.1.0", "tabulate==0.10.0", "traitlets==5.16.1",
    "vaspparser==0.1.1",
    "autoplex==0.3.2", "atomate2==0.1.5", "f90wrap==0.3.0", "hiphive==1.5", "joblib==1.6.0", "llvmlite==0.50.0",
    "mpmath==1.4.1", "numba==0.68.1", "pydantic-settings==2.16.3", "python-dotenv==1.2.4", "quippy-ase==0.10.3",
    "scikit-learn==1.9.1", "sympy==1.14.0",
)  # fmt: skip
# With TorchSim; sympy, networkx and others are above.
TORCHSIM = (
    "torch==2.13.0", "torch-sim-atomistic==0.3.0", "vesin-torch==0.6.2", "blosc2==4.14.1", "filelock==4.3.1",
    "fsspec==2026.9.0", "msgpack==1.2.4", "ndindex==1.10.1", "numexpr==2.14.2", "py-cpuinfo==9.0.0", "tables==3.11.1",
)  # fmt: skip


def bare(folder: Path) -> Path:
    """The Python of a new environment that finds this one's dependencies, but no package in editable form."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(own, "dependencies.pth").write_text("\n".join(dependencies))
    return folder / "bin" / "python"


def pip(python: Path, *words: object) -> list[object]:
    """A command of pip for an environment without one."""
    options = ["--quiet", "--retries=10", "--disable-pip-version-check"]
    return [sys.executable, "-m", "pip", "--python", python, *options, *words]


def install(python: Path, *packages: str) -> None:
    """Install packages of the index, without what they ask for. Without an index the test cannot run."""
    # without compiling: little of what is installed is ever imported
    command = pip(python, "install", "--no-deps", "--ignore-installed", "--no-compile", *packages)
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        cannot_run(f"cannot install programs from the package index: {done.stderr[-500:]}")


def with_package(folder: Path) -> Path:
    """The folder `bin` of a new environment with pacehpc and the package, and this one's dependencies."""
    python = bare(folder)
    words = ("--no-deps", "--no-build-isolation", "--no-compile", "--no-index", "--ignore-installed")
    call(*pip(python, "install", *words, ROOT, SHIM), cwd=folder)
    return python.parent
