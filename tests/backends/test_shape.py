"""A shape is made once for all who ask, and anew when the potential has another."""

from __future__ import annotations

from dataclasses import replace

from pacehpc.backends.shape import make_shape
from pacehpc.potential import build_potential

SECTION = {
    "elements": ["Al", "Ni"],
    "embeddings": {"ALL": {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}},
    "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 5, "dcut": 0.01}},
    "functions": {"ALL": {"nradmax_by_orders": [5, 2, 2], "lmax_by_orders": [0, 2, 1]}},
}


def test_a_shape_is_shared_by_potentials_that_differ_in_coefficients_alone():
    potential = build_potential(SECTION)
    shape = make_shape(potential)
    other = potential.copy()
    other.parameters = 2 * potential.parameters
    assert make_shape(other) is shape
    assert make_shape(build_potential(SECTION)) is shape
    assert "#define STRESS 1" in shape.header(stress=True)


def test_another_potential_has_another_shape():
    potential = build_potential(SECTION)
    shape = make_shape(potential)
    fewer = potential.copy()
    block = fewer.blocks[-1]
    block.functions, block.coefficients = block.functions[:-1], block.coefficients[:-1]
    lengths = [len(table.positions) for table in make_shape(fewer).elements]
    assert sum(lengths) == sum(len(table.positions) for table in shape.elements) - 1
    potential.bonds = {pair: replace(bond, rcut=4.0) for pair, bond in potential.bonds.items()}
    assert (make_shape(potential).bases[0, 0] != shape.bases[0, 0]).any()
    potential.embeddings["Al"] = replace(potential.embeddings["Al"], npot="FinnisSinclairShiftedScaled")
    assert make_shape(potential) is not shape
