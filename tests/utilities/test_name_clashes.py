"""pacehpc and python-ace in one environment: both bring pace_info and others; `pacehpc info` always works."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from environments import cannot_run

ROOT = Path(__file__).parents[2]
PYTHON_ACE = "python-ace==0.4.0rc1"
SHARED_NAMES = tuple(
    f"pace_{name}" for name in ("info", "timing", "yaml2yace", "collect", "activeset", "select", "augment", "corerep")
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return str(wheel)


class Environment:
    """A new environment that finds this one's dependencies, and pip for it."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        Path(own, "dependencies.pth").write_text("\n".join(dependencies))

    def run(self, *command: object) -> subprocess.CompletedProcess:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return subprocess.run(command, cwd=self.bin, env=variables, text=True, capture_output=True)

    def pip(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "pip", "--python", self.bin / "python", *arguments)

    def install(self, package: str) -> None:
        done = self.pip("install", "--no-deps", "--pre", "--ignore-installed", "--force-reinstall", package)
        if done.returncode and package == PYTHON_ACE:
            cannot_run(f"python-ace cannot be installed: {done.stderr[-500:]}")
        assert done.returncode == 0, done.stderr

    def uninstall(self, name: str) -> None:
        done = self.pip("uninstall", "--yes", name)
        assert done.returncode == 0, done.stderr

    def owner(self, name: str) -> str | None:
        """The package whose program stands under this name."""
        path = self.bin / name
        if not path.exists():
            return None
        return "pacehpc" if "pacehpc" in path.read_text().split("\n", 1)[1] else "python-ace"

    def subcommand_works(self, golden: Path) -> bool:
        potential = golden / "potentials" / "al_cheblinear.yaml"
        done = self.run(self.bin / "pacehpc", "info", potential)
        return done.returncode == 0 and "Functions:   40" in done.stdout


@pytest.mark.parametrize("first", ["python-ace", "pacehpc"])
def test_last_installed_owns_the_names(first, wheel, golden, tmp_path):
    environment = Environment(tmp_path / "environment")
    order = [PYTHON_ACE, wheel] if first == "python-ace" else [wheel, PYTHON_ACE]
    for package in order:
        environment.install(package)
    last = "pacehpc" if first == "python-ace" else "python-ace"
    assert {environment.owner(name) for name in SHARED_NAMES} == {last}
    assert environment.owner("pacehpc") == "pacehpc" and environment.owner("pacemaker") == "python-ace"
    assert environment.subcommand_works(golden)

    environment.uninstall("python-ace")
    assert environment.owner("pace_info") is None and environment.owner("pacemaker") is None
    assert environment.subcommand_works(golden)
    environment.install(wheel)  # the advice for getting the names back
    assert {environment.owner(name) for name in SHARED_NAMES} == {"pacehpc"}


def test_uninstalling_pacehpc_leaves_python_ace(wheel, tmp_path):
    environment = Environment(tmp_path / "environment")
    environment.install(PYTHON_ACE)
    before = {path.name for path in environment.bin.iterdir()}
    environment.install(wheel)
    environment.uninstall("pacehpc")
    after = {path.name for path in environment.bin.iterdir()}
    assert before - after == set(SHARED_NAMES) and "pacehpc" not in after
    environment.install(PYTHON_ACE)
    assert {path.name for path in environment.bin.iterdir()} == before
