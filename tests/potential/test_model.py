"""The potential in memory: parameters vector, tables, copies, radial functions, core repulsion."""

import json

import ase.io
import numpy as np
import pytest

from pacehpc.basis import complete_couplings
from pacehpc.calculator import projections
from pacehpc.errors import PacehpcError
from pacehpc.potential import Block, Bond, Embedding, Function, Potential


@pytest.fixture
def alloy(golden):
    return Potential.load(golden / "potentials" / "alni_mixed.yaml")


def test_parameters_in_their_order(alloy):
    """Radial coefficients of Al-Al, Al-Ni, Ni-Ni, then blocks Al, Al Ni, Ni, Ni Al, all in C order."""
    assert alloy.pairs == [("Al", "Al"), ("Al", "Ni"), ("Ni", "Ni")]
    assert [block.elements for block in alloy.blocks] == [("Al",), ("Al", "Ni"), ("Ni",), ("Ni", "Al")]
    arrays = [alloy.radcoefficients[pair] for pair in alloy.pairs] + [block.coefficients for block in alloy.blocks]
    assert np.array_equal(alloy.parameters, np.concatenate([array.ravel() for array in arrays]))
    for pair, where in alloy.radial_slices.items():
        assert np.array_equal(alloy.parameters[where], alloy.radcoefficients[pair].ravel())
    for block, where in zip(alloy.blocks, alloy.block_slices, strict=True):
        assert np.array_equal(alloy.parameters[where], block.coefficients.ravel())
    assert alloy.n_parameters == len(alloy.parameters) == alloy.block_slices[-1].stop
    assert alloy.n_functions == 326
    assert alloy.cutoff == 5.5


def test_setting_parameters(alloy):
    new = np.arange(alloy.n_parameters) + 0.5
    alloy.parameters = new
    assert np.array_equal(alloy.parameters, new)
    assert alloy.radcoefficients["Al", "Al"][0, 0, 1] == 1.5
    assert alloy.blocks[-1].coefficients[-1, -1] == new[-1]
    alloy.parameters[0] = 99  # a copy: nothing happens to the potential
    assert alloy.parameters[0] == 0.5
    for wrong in (new[:-1], new[None], 3.0):
        with pytest.raises(PacehpcError, match="parameters"):
            alloy.parameters = wrong


def test_copy_is_independent(alloy):
    before = alloy.parameters
    copy = alloy.copy()
    copy.parameters = np.zeros(copy.n_parameters)
    copy.blocks[0].functions.pop()
    copy.metadata["new"] = "x"
    copy.set_core_repulsion("ALL", r_in=0.5)
    assert np.array_equal(alloy.parameters, before)
    assert alloy.n_functions == 326 and "new" not in alloy.metadata and alloy.bonds["Al", "Al"].r_in == 1.5


def test_parameter_table_names_every_parameter(alloy):
    table = alloy.parameter_table()
    x = alloy.parameters
    assert len(table) == len(x)
    functions = {block.name: {f: i for i, f in enumerate(block.functions)} for block in alloy.blocks}
    blocks = {block.name: block for block in alloy.blocks}
    for value, row in zip(x, table.itertuples(), strict=True):
        if row.kind == "radial":
            assert alloy.radcoefficients[tuple(row.bond.split())][row.n - 1, row.l, row.k - 1] == value
        else:
            function = Function(tuple(row.type.split()), row.nr, row.nl, row.lint)
            assert blocks[row.block].coefficients[functions[row.block][function], row.density] == value
    radial = table[table.kind == "radial"]
    assert radial.l.min() == 0 and radial.n.min() == 1 and radial.k.min() == 1 and radial.block.isna().all()
    assert table[table.kind == "func"].bond.isna().all()


def test_functions_table(alloy):
    table = alloy.functions_table()
    assert len(table) == 326
    row = table[table.block == "Ni Al"].iloc[5]
    block = alloy.blocks[-1]
    assert (row.type, row.nr, row.nl, row.lint) == (" ".join(block.functions[5][0]), *block.functions[5][1:])
    assert row.c == tuple(block.coefficients[5]) and row["rank"] == len(row.nr)


def test_radial_against_golden(golden, golden_name):
    potential = Potential.load(golden / "potentials" / f"{golden_name}.yaml")
    values = np.load(golden / "potentials" / f"{golden_name}.radial.npz")
    for pair, bond in potential.bonds.items():
        expected = values["g_" + "_".join(pair)][:, : bond.nradbase]
        for name in (pair, " ".join(pair), "".join(pair)):
            assert np.abs(potential.radial(name, values["r"]) - expected).max() < 1e-12
    if len(potential.elements) == 1:
        assert potential.radial(potential.elements[0], [2.0]).shape == (1, bond.nradbase)


def test_projections_against_golden(golden, golden_name):
    potential = Potential.load(golden / "potentials" / f"{golden_name}.yaml")
    values = np.load(golden / "potentials" / f"{golden_name}.npz")
    labels = json.loads(str(values["labels"]))
    frames = ase.io.read(golden / "potentials" / f"{golden_name}.extxyz", ":")
    tested = [int(name.removeprefix("projections_len_")) for name in values.files if "projections_len" in name]
    assert len(tested) >= 3
    for index in tested:
        lengths = np.ravel(values[f"projections_len_{index}"]).astype(int)
        expected = np.split(values[f"projections_{index}"], np.cumsum(lengths)[:-1])
        mine = projections(potential, frames[index])
        for symbol, own, reference in zip(frames[index].symbols, mine, expected, strict=True):
            functions = [f for block in potential.blocks if block.elements[0] == symbol for f in block.functions]
            by_function = dict(zip(functions, own, strict=True))
            keys = [key for key in map(_key, labels) if key.elements[0] == symbol]
            assert len(keys) == len(reference) == len(by_function)
            found = np.array([by_function[key] for key in keys])
            assert np.abs(found - reference).max() <= 1e-9 * max(1.0, np.abs(reference).max())


def _key(label):
    ls = tuple(label["nl"])
    return Function(tuple(label["type"]), tuple(label["nr"]), ls, complete_couplings(ls, tuple(label["lint"])))


def test_bond_names(alloy):
    assert alloy.bond_pair("NiAl") == ("Ni", "Al") and alloy.bond_pair("Al") == ("Al", "Al")
    for wrong in ("Cu", "AlNiAl", "ALL", ""):
        with pytest.raises(PacehpcError, match="bond"):
            alloy.radial(wrong, [1.0])


def test_core_repulsion(alloy):
    alloy.set_core_repulsion("AlNi", r_in=1.7, core_repulsion=[10, 2])
    assert alloy.bonds["Al", "Ni"] == alloy.bonds["Ni", "Al"]
    assert alloy.bonds["Ni", "Al"].r_in == 1.7 and alloy.bonds["Ni", "Al"].core_repulsion == (10.0, 2.0)
    assert alloy.bonds["Ni", "Al"].delta_in == 0.4 and alloy.bonds["Al", "Al"].r_in == 1.5
    alloy.set_core_repulsion("Al", rho_core_cut=1, drho_core_cut=2)
    assert (alloy.embeddings["Al"].rho_core_cut, alloy.embeddings["Al"].drho_core_cut) == (1, 2)
    assert alloy.embeddings["Ni"].rho_core_cut == 200000
    alloy.set_core_repulsion(inner_cutoff_type="zbl", r_in=1.0, delta_in=0.1)
    assert {(b.inner_cutoff_type, b.r_in, b.delta_in) for b in alloy.bonds.values()} == {("zbl", 1.0, 0.1)}
    before = dict(alloy.bonds)
    for arguments in (
        {"r_in": -1}, {"r_in": 7}, {"bond": "AlCu"}, {"core_repulsion": [1]}, {"r_in": np.nan},
        {"bond": "AlNi", "inner_cutoff_type": "distance"}, {"inner_cutoff_type": "sharp"}, {"drho_core_cut": -1},
    ):  # fmt: skip
        with pytest.raises(PacehpcError):
            alloy.set_core_repulsion(**arguments)
    assert alloy.bonds == before


def test_made_by_hand():
    """The parts are enough to make a potential without any file."""
    pair = ("Cu", "Cu")
    bond = Bond("ChebPow", (2.0,), 5.0, 0.0, nradbase=2, nradmax=1, lmax=0)
    functions = [Function(pair, (2,), (0,), ()), Function(("Cu", "Cu", "Cu"), (1, 1), (0, 0), ())]
    potential = Potential(
        ("Cu",),
        {"Cu": Embedding("FinnisSinclair", (1.0, 1.0), 1)},
        {pair: bond},
        {pair: np.ones((1, 1, 2))},
        [Block(("Cu",), functions, np.zeros((2, 1)))],
    )
    potential.check("by hand")
    assert potential.n_parameters == 4
    potential.bonds[pair] = Bond("ChebPow", (2.0,), 5.0, 0.0, nradbase=1, nradmax=1, lmax=0)
    with pytest.raises(PacehpcError, match="by hand: bond Cu Cu: nradbase is 1"):
        potential.check("by hand")
