"""Wheel and sdist, each installed into an environment of its own, fit outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

INPUT = """\
data:
  filename: al_ni.pckl.gzip
  reference_energy: {Al: 3.28, Ni: 4.44}
potential:
  elements: [Al, Ni]
  embeddings: {ALL: {npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1], ndensity: 1}}
  bonds: {ALL: {radbase: ChebExpCos, radparameters: [5.25], rcut: 4.0, dcut: 0.01}}
  functions: {ALL: {nradmax_by_orders: [3, 1], lmax_by_orders: [0, 1]}}
fit: {loss: {kappa: 0.3}, maxiter: 3}
backend: {evaluator: cpu}
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check = [sys.executable, "-m", "twine", "check", "--strict", wheel, sdist]
    done = subprocess.run(check, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {"wheel": wheel, "sdist": sdist}


def make_environment(folder: Path) -> Path:
    """A new environment that finds the dependencies of this one, but not what is installed here in editable form."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(own, "dependencies.pth").write_text("\n".join(dependencies))
    return folder / "bin" / "python"


def test_wheel_holds_one_package_with_the_kernels(packages):
    names = zipfile.ZipFile(packages["wheel"]).namelist()
    assert sorted({name.split("/")[0] for name in names if ".dist-info/" not in name}) == ["pacehpc"]
    kernels = [path for path in (ROOT / "kernels").rglob("*") if path.is_file()]
    sources = {f"pacehpc/kernels/{path.relative_to(ROOT / 'kernels').as_posix()}" for path in kernels}
    assert sources
    assert {name for name in names if name.startswith("pacehpc/kernels/")} == sources


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installed_package_fits_outside_the_checkout(packages, kind, tmp_path, tmp_path_factory):
    python = make_environment(tmp_path / "environment")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    subprocess.run([*pip, "--ignore-installed", packages[kind]], check=True, capture_output=True)

    # MPI comes from the environment of the tests; nothing else of the shell may help.
    libraries = os.pathsep.join(filter(None, [f"{sys.prefix}/lib", os.environ.get("LD_LIBRARY_PATH")]))
    cache = tmp_path_factory.getbasetemp() / "kernels"  # of both: the same sources give the same kernels
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PACEHPC"))}
    environment |= {"LD_LIBRARY_PATH": libraries, "XDG_CACHE_HOME": str(cache)}
    work = tmp_path / "work"
    work.mkdir()
    (work / "input.yaml").write_text(INPUT)
    (work / "al_ni.pckl.gzip").write_bytes((ROOT / "examples/al_ni/al_ni.pckl.gzip").read_bytes())

    def run(*command) -> str:
        done = subprocess.run(command, cwd=work, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = "import importlib.util, pacehpc; print(pacehpc.__file__, importlib.util.find_spec('kernels'))"
    module, kernels = run(python, "-c", where).split()
    assert module.startswith(str(tmp_path / "environment"))
    assert kernels == "None"
    run(python.parent / "pacehpc", "input.yaml")
    assert (work / "output_potential.yaml").is_file()
