"""Grades and active sets against those of the reference program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest

from pacehpc import PaceCalculator, Potential
from pacehpc.active.active_set import ActiveSet
from pacehpc.active.choose import Limits, choose
from pacehpc.active.data_rows import DataRows
from pacehpc.active.grader import Grader
from pacehpc.active.order import column_order
from pacehpc.active.structure_files import read_structures

DATA = {"alni": "exmpl_df.pckl.gzip", "cu": "Cu_df1_A1_A2_A3_EV_elast_phon.pckl.gzip", "eth": "ethanol.pckl.gzip"}
# Condition numbers of ethanol's sets reach 1e19: the reference's splines show in the third digit.
TOLERANCES = {"alni": (1e-9, 0.0), "cu": (1e-7, 3e-8), "eth": (1e-3, 0.015)}


class Alone:
    """One rank."""

    root, rank, size = True, 0, 1

    @staticmethod
    def gather(value: object) -> list:
        return [value]

    @staticmethod
    def broadcast(value: object) -> object:
        return value


@pytest.fixture(scope="module", params=sorted(DATA))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(shared: Callable[[str], Path]) -> Path:
    return shared("golden/activeset")


@pytest.fixture(scope="module")
def rows(name: str, folder: Path, shared: Callable[[str], Path]) -> DataRows:
    data = read_structures([str(shared(f"data/{DATA[name]}"))])
    return DataRows(data.atoms, Potential.load(folder / f"{name}.yaml"), "cpu", memory=2**30)


def test_grades(name: str, folder: Path) -> None:
    potential = Potential.load(folder / f"{name}.yaml")
    active_set = ActiveSet.load(folder / f"{name}.asi", potential)
    expected = np.load(folder / f"{name}.npz")
    frames = ase.io.read(folder / f"{name}.extxyz", ":")
    found = DataRows(frames, potential, "cpu")
    relative, absolute = TOLERANCES[name]
    for _, block in found.blocks():
        for element, (atoms, values) in block.items():
            grades = active_set.grades(element, values)
            golden = np.concatenate([expected[f"gamma_{k}"] for k in range(len(frames))])[atoms]
            np.testing.assert_allclose(grades, golden, rtol=relative, atol=absolute)


def test_active_sets(name: str, folder: Path, rows: DataRows) -> None:
    """As large a determinant as the reference's, and no atom of the data above the tolerance."""
    golden = json.loads((folder / f"{name}.json").read_text())["elements"]
    reference = np.load(folder / f"{name}.asi")
    for element, choice in choose(rows.blocks, rows.sizes(), Alone(), Limits()).items():
        assert choice.converged
        assert choice.largest <= 1.01
        for _, block in rows.blocks():
            grades = np.abs(block[element][1] @ choice.inverse).max(axis=1)
            assert grades.max() <= 1.01 * (1 + 1e-6)
        n = len(choice.inverse)
        if np.linalg.matrix_rank(reference[element]) == n:
            assert choice.log_determinant >= golden[element]["log_abs_det_of_active_set"] - 0.5
            assert len(choice.undetermined) == 0
        else:  # the reference's determinant counts round-off; the rank says how many directions the data have
            assert 0 < len(choice.atoms) <= n
            assert len(choice.undetermined) == n - len(choice.atoms)


def test_files_round_trip(name: str, folder: Path, tmp_path: Path) -> None:
    potential = Potential.load(folder / f"{name}.yaml")
    first = ActiveSet.load(folder / f"{name}.asi", potential)
    first.save(tmp_path / "again.asi")
    second = ActiveSet.load(tmp_path / "again.asi", potential)
    for element in potential.elements:
        np.testing.assert_array_equal(first.inverses[element], second.inverses[element])
    assert (tmp_path / "again.asi").stat().st_size == pytest.approx((folder / f"{name}.asi").stat().st_size, rel=0.01)


def test_calculator(name: str, folder: Path) -> None:
    """Grades beside energies and forces, in the order of the atoms, also after they moved."""
    calculator = PaceCalculator(folder / f"{name}.yaml", backend="cpu", active_set=folder / f"{name}.asi")
    expected = np.load(folder / f"{name}.npz")
    relative, absolute = TOLERANCES[name]
    for k, atoms in enumerate(ase.io.read(folder / f"{name}.extxyz", ":")[:4]):
        atoms.calc = calculator
        atoms.get_potential_energy()
        np.testing.assert_allclose(calculator.results["gamma"], expected[f"gamma_{k}"], rtol=relative, atol=absolute)
        assert calculator.get_property("gamma_max", atoms) == calculator.results["gamma"].max()


def test_calculator_with_a_full_set(name: str, folder: Path) -> None:
    """The calculator's own order of functions and densities gives the grades of rows in the order of active sets."""
    potential, rng = Potential.load(folder / f"{name}.yaml"), np.random.default_rng(0)
    sizes = {e: len(column_order(potential, e)) * potential.embeddings[e].ndensity for e in potential.elements}
    active_set = ActiveSet({e: rng.normal(size=(n, n)) for e, n in sizes.items()}, full=True)
    atoms = ase.io.read(folder / f"{name}.extxyz", "1")
    (expected,) = Grader(potential, active_set, "reference").grades([atoms])
    atoms.calc = PaceCalculator(potential, backend="cpu", active_set=active_set)
    atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.calc.results["gamma"], expected, rtol=1e-9)
