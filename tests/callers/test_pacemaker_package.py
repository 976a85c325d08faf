"""The package `packaging/pacemaker` in an environment of its own."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from caller_environments import ROOT, SHIM, call, pip, with_package

POTENTIAL = ROOT / "tests" / "golden" / "potentials" / "alni_mixed.yaml"

CALCULATE = """
import sys
import numpy as np
from ase.build import bulk
from pyace import ACEBBasisSet, PyACECalculator
from pyace.asecalc import PyACECalculator as same
from pacehpc import PaceCalculator

assert same is PyACECalculator
atoms = bulk("Ni", cubic=True)
atoms.rattle(0.1)
ACEBBasisSet(sys.argv[1]).to_ACECTildeBasisSet().save_yaml("pot.yace")
atoms.calc = PaceCalculator(sys.argv[1])
energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
for source, options in ((sys.argv[1], {}), (sys.argv[1], {"recursive_evaluator": True}), ("pot.yace", {})):
    atoms.calc = PyACECalculator(basis_set=source, **options)
    assert abs(atoms.get_potential_energy() - energy) < 1e-9
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-9)
    np.testing.assert_allclose(atoms.get_stress(), stress, atol=1e-9)
"""

GRADES = """
import sys
import numpy as np
from ase.io import read
from pyace import PyACECalculator

calculator = PyACECalculator(sys.argv[1] + "/cu.yaml")
calculator.set_active_set(sys.argv[1] + "/cu.asi")
expected = np.load(sys.argv[1] + "/cu.npz")
for k, atoms in enumerate(read(sys.argv[1] + "/cu.extxyz", ":")):
    atoms.calc = calculator
    atoms.get_potential_energy()
    np.testing.assert_allclose(calculator.results["gamma"], expected[f"gamma_{k}"], rtol=1e-6, atol=1e-8)
"""


def site(environment: Path) -> Path:
    return next(environment.parent.glob("lib/python*/site-packages"))


def test_the_extra_names_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    shim = tomllib.loads((SHIM / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["pacemaker"] == [shim["name"]]
    assert shim["version"] == project["version"]
    assert not set(shim["scripts"]) & set(project["scripts"])  # pip would remove them with the package
    assert not any("pacemaker" in name for name in project["dependencies"])


def test_command_and_module(environment, tmp_path):
    assert call(environment / "pacemaker", "-v", cwd=tmp_path).stdout.startswith("pacehpc ")
    for name in ("yaml2yace", "activeset", "select", "augment", "corerep", "collect", "info", "timing"):
        assert (environment / f"pace_{name}").exists()
    call(environment / "python", "-c", CALCULATE, POTENTIAL, cwd=tmp_path)


def test_grades_of_the_calculator(environment, shared, tmp_path):
    """As programs read them: `set_active_set`, then the results' gamma, against golden values."""
    golden = shared("golden/activeset")
    call(environment / "python", "-c", GRADES, golden, cwd=tmp_path)


def test_python_ace_goes_first_and_uninstalling_leaves_nothing(tmp_path):
    """A `pyace` that is installed is the one imported, and the command does not stand in for its pacemaker."""
    environment = with_package(tmp_path / "environment")
    packages = site(environment)
    original, about = packages / "pyace", packages / "python_ace-0.3.0.dist-info"
    for folder in (original, about):
        folder.mkdir()
    (original / "__init__.py").write_text("original = True\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: python-ace\nVersion: 0.3.0\n")
    call(environment / "python", "-c", "import pyace; assert pyace.original", cwd=tmp_path)
    said = call(environment / "pacemaker", "-v", cwd=tmp_path, code=1).stderr
    assert said.startswith("ERROR: python-ace 0.3.0 is installed") and "pip uninstall pacehpc-pacemaker" in said

    call(*pip(environment / "python", "uninstall", "--yes", "pacehpc-pacemaker"), cwd=tmp_path)
    assert not (environment / "pacemaker").exists() and (environment / "pace_yaml2yace").exists()
    assert not [path for path in packages.iterdir() if "pacemaker" in path.name]
    shutil.rmtree(original)
    call(environment / "python", "-c", "import pyace", cwd=tmp_path, code=1)
