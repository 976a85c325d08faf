"""Every backend against the golden values."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from ase.io import read

from pacehpc import Potential, load_dataset
from pacehpc.backends import create_evaluator
from pacehpc.backends.interface import LossWeights
from pacehpc.metrics import TERMS
from pacehpc.regularisation import smoothness
from pacehpc.structures import VOIGT


@pytest.fixture
def case(golden, golden_name, brute_force):
    folder = golden / "potentials"
    potential = Potential.load(folder / f"{golden_name}.yaml")
    frames = read(folder / f"{golden_name}.extxyz", ":")
    return SimpleNamespace(
        potential=potential,
        frames=frames,
        structures=brute_force(potential, frames),
        reference=np.load(folder / f"{golden_name}.npz"),
    )


def test_energies_forces_stress(case, backend):
    evaluator = create_evaluator(backend, case.potential, case.structures, LossWeights())
    assert evaluator.name == backend
    prediction = evaluator.predict(case.potential.parameters)
    energies = np.split(prediction.energies, case.structures.atom_offsets[1:-1])
    forces = np.split(prediction.forces, case.structures.atom_offsets[1:-1])
    n_stress = 0
    for k, atoms in enumerate(case.frames):
        np.testing.assert_allclose(energies[k], case.reference[f"energies_{k}"], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(energies[k].sum(), atoms.info["ref_energy"], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(forces[k], case.reference[f"forces_{k}"], rtol=0, atol=5e-9)
        if f"stress_{k}" in case.reference:
            stress = prediction.virials[k][VOIGT] / case.structures.volumes[k]
            np.testing.assert_allclose(stress, case.reference[f"stress_{k}"], rtol=0, atol=5e-10)
            np.testing.assert_allclose(prediction.virials[k], prediction.virials[k].T, rtol=0, atol=1e-9)
            n_stress += 1
    assert n_stress >= 4


@pytest.mark.parametrize("name", ["alni_energy_only", "cu_forces", "ethanol_reg"])
def test_loss_and_gradient(golden, shared, name, backend):
    reference = json.loads((golden / "loss" / f"{name}.json").read_text())
    arrays = np.load(golden / "loss" / f"{name}.npz")
    potential = Potential.load(golden / "loss" / f"{name}.yaml")
    options = dict(zip(reference["options"][::2], reference["options"][1::2], strict=True))
    kappa, l1, l2 = (float(options.get(key, 0)) for key in ("--kappa", "--L1", "--L2"))
    smooth = np.array([float(options.get(key, 0)) for key in ("--w0", "--w1", "--w2")])

    data = load_dataset(shared(f"data/{reference['data']}"), elements=potential.elements, rows=reference["order"])
    structures = data.structures(potential)
    structures.w_energy, structures.w_forces = arrays["w_energy"], arrays["w_forces"]
    np.testing.assert_array_equal(structures.atoms_per_structure, arrays["n_atoms"])

    evaluator = create_evaluator(backend, potential, structures, LossWeights(kappa=kappa))
    sums = evaluator.evaluate(potential.parameters)
    terms = dict(zip(TERMS, sums.terms, strict=True))
    assert terms["e_loss"] == pytest.approx(reference["e_loss"], rel=1e-10)
    assert terms["f_loss"] == pytest.approx(reference["f_loss"], rel=1e-10)
    prediction = evaluator.predict(potential.parameters)
    energies = np.add.reduceat(prediction.energies, structures.atom_offsets[:-1])
    np.testing.assert_allclose(energies, arrays["energy"], rtol=1e-10)
    np.testing.assert_allclose(prediction.forces, arrays["forces"], rtol=0, atol=5e-9)

    n_radial = min(where.start for where in potential.block_slices)
    coefficients = potential.parameters[n_radial:]
    values, slopes = smoothness(potential)
    regularisation = [np.abs(coefficients).sum(), (coefficients**2).sum(), *values]
    expected = reference["regularisation"]
    np.testing.assert_allclose(regularisation[: len(expected)], expected, rtol=1e-9)
    loss = (1 - kappa) * terms["e_loss"] + kappa * terms["f_loss"]
    loss += np.dot([l1, l2, *smooth], regularisation)
    assert loss == pytest.approx(reference["loss"], rel=1e-10)

    gradient = sums.gradient.copy()
    gradient[n_radial:] += l1 * np.sign(coefficients) + 2 * l2 * coefficients
    gradient[:n_radial] += smooth @ slopes
    np.testing.assert_allclose(gradient, golden_gradient(potential, reference, arrays), rtol=1e-6)


def golden_gradient(potential, reference, arrays):
    """In the order of potential.parameters; a golden function may lack the last coupling, which the others fix."""
    result = np.full(potential.n_parameters, np.nan)
    for pair, where in potential.radial_slices.items():
        result[where] = arrays["grad_radial_" + "_".join(pair)].ravel()
    slopes = {}
    for function in reference["functions"]:
        key = tuple(tuple(function[name]) for name in ("type", "nr", "nl", "lint"))
        assert key not in slopes
        slopes[key] = function["grad"]
    for block, where in zip(potential.blocks, potential.block_slices, strict=True):
        rows = []
        for f in block.functions:
            complete = (f.elements, f.ns, f.ls, f.LS)
            rows.append(slopes[complete] if complete in slopes else slopes[(*complete[:3], f.LS[:-1])])
        result[where] = np.ravel(rows)
    assert np.isfinite(result).all()
    return result
