"""Which parameters each form of trainable_parameters selects."""

import pytest

from pacehpc.errors import PacehpcError
from pacehpc.potential import build_potential, trainable_mask


@pytest.fixture
def potential(section):
    return build_potential(section(["Al", "Ni", "O"]))


def selected(potential, spec):
    """Names of the groups that are trainable; every group must be so as a whole."""
    mask = trainable_mask(potential, spec)
    assert mask.dtype == bool and mask.shape == (potential.n_parameters,)
    groups = {f"radial {''.join(pair)}": where for pair, where in potential.radial_slices.items()}
    slices = zip(potential.blocks, potential.block_slices, strict=True)
    groups |= {f"func {''.join(block.elements)}": where for block, where in slices}
    for name, where in groups.items():
        assert mask[where].all() == mask[where].any(), name
    return {name for name, where in groups.items() if mask[where].all()}


RADIAL = {"radial AlAl", "radial AlNi", "radial AlO", "radial NiNi", "radial NiO", "radial OO"}
UNARY = {"radial AlAl", "radial NiNi", "radial OO", "func Al", "func Ni", "func O"}
BINARY = {"radial AlNi", "radial AlO", "radial NiO"}
BINARY |= {"func AlNi", "func NiAl", "func AlO", "func OAl", "func NiO", "func ONi"}
TERNARY = {"func AlNiO", "func NiAlO", "func OAlNi"}


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (None, UNARY | BINARY | TERNARY),
        ("ALL", UNARY | BINARY | TERNARY),
        ("all", UNARY | BINARY | TERNARY),
        ("UNARY", UNARY),
        ("BINARY", BINARY),
        ("TERNARY", TERNARY),
        ("QUINARY", set()),
        ("radial", RADIAL),
        ("func", (UNARY | BINARY | TERNARY) - RADIAL),
        ("AlNi", {"radial AlNi", "func AlNi"}),
        ("Al", {"radial AlAl", "func Al"}),
        ({"AlNi": "func"}, {"func AlNi"}),
        ({"NiAl": "radial"}, {"radial AlNi"}),
        ({"AlNi": ["func", "radial"]}, {"radial AlNi", "func AlNi"}),
        ({"(Al, Ni)": "all", "O Ni": "func"}, {"radial AlNi", "func AlNi", "func ONi"}),
        ({"BINARY": "func", "AlO": "radial"}, (BINARY - RADIAL - {"func AlO"}) | {"radial AlO"}),
        ({"ALL": "func", "UNARY": []}, (BINARY | TERNARY) - RADIAL),
        ({"AlNiO": "func"}, {"func AlNiO"}),
        ({"AlNiO": "radial"}, set()),
        (["UNARY", {"AlNi": "func"}], UNARY | {"func AlNi"}),
        (["Al", "Ni"], {"radial AlAl", "func Al", "radial NiNi", "func Ni"}),
        ([], set()),
    ],
)
def test_forms(potential, spec, names):
    assert selected(potential, spec) == names


def test_block_that_has_no_functions(section):
    functions = {"UNARY": {"nradmax_by_orders": [2, 1], "lmax_by_orders": [0, 0]}}
    potential = build_potential(section(["Al", "Ni"], functions))
    assert trainable_mask(potential, "BINARY").sum() == 0
    assert trainable_mask(potential, "AlNi").sum() == 0
    with pytest.raises(PacehpcError, match="no block 'AlNiO'"):
        trainable_mask(build_potential(section(["Al", "Ni", "O"], functions)), "AlNiO")


@pytest.mark.parametrize("spec", ["AlCu", "functions", 3, {"AlNi": "c"}, {"AlNi": None}, [["Al"]], {"AlNi": 3}])
def test_refused(potential, spec):
    with pytest.raises(PacehpcError, match="trainable_parameters"):
        trainable_mask(potential, spec)
