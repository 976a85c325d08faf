"""Potentials from an input's section: golden blocks, sizes, starts, the old form, and what is refused."""

import json
from collections import Counter

import numpy as np
import pytest
from ase.data import chemical_symbols

from pacehpc.basis import complete_couplings
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential, build_potential
from pacehpc.yamlio import load_yaml


def listed(functions):
    return [
        (
            tuple(f["type"]),
            tuple(f["nr"]),
            tuple(f["nl"]),
            complete_couplings(tuple(f["nl"]), tuple(f["lint"])),
        )
        for f in functions
    ]


def check_blocks(potential, blocks):
    assert Counter(block.name for block in potential.blocks) == Counter(block["block"] for block in blocks)
    own = {block.name: block.functions for block in potential.blocks}
    for block in blocks:
        assert own[block["block"]] == listed(block["functions"])


def test_golden_inputs(golden, golden_name):
    """The input gives the blocks of the golden list and everything but the coefficients of the golden file."""
    data = json.loads((golden / "potentials" / f"{golden_name}.basis.json").read_text())
    potential = build_potential(data["potential"])
    check_blocks(potential, data["blocks"])
    file = Potential.load(golden / "potentials" / f"{golden_name}.yaml")
    assert potential.bonds == file.bonds and potential.embeddings == file.embeddings
    assert potential.delta_spline_bins == file.delta_spline_bins
    assert [block.elements for block in potential.blocks] == [block.elements for block in file.blocks]
    for c in potential.radcoefficients.values():
        assert all((c[:, l] == np.eye(c.shape[0], c.shape[2])).all() for l in range(c.shape[1]))
    assert not any(block.coefficients.any() for block in potential.blocks)


def test_number_of_functions_per_element(golden):
    data = json.loads((golden / "fit" / "basis_nper_element.json").read_text())
    check_blocks(build_potential(data["potential"]), data["blocks"])


@pytest.mark.parametrize(
    ("name", "functions", "parameters"),
    [
        ("cu_82", 82, 299),
        ("cu_529", 529, 1508),
        ("ethanol_756", 756, 2322),
        ("ethanol_4836", 4836, 10482),
        ("hea_435", 435, 1665),
    ],
)
def test_counts_of_the_benchmarks(shared, name, functions, parameters):
    potential = build_potential(load_yaml(shared(f"bench/{name}.yaml"))["potential"])
    assert (potential.n_functions, potential.n_parameters) == (functions, parameters)


def test_elements_in_any_order_and_block_order(section):
    potential = build_potential(section(["Ni", "Al"]))
    assert potential.elements == ("Al", "Ni")
    assert [block.name for block in potential.blocks] == ["Al", "Al Ni", "Ni", "Ni Al"]


def test_sizes_come_from_both_directions(section):
    """Bond Al-Ni serves functions of Al with Ni neighbours and of Ni with Al neighbours."""
    functions = {
        "UNARY": {"nradmax_by_orders": [2], "lmax_by_orders": [0]},
        "Al Ni": {"nradmax_by_orders": [4, 1], "lmax_by_orders": [0, 3]},
        "(Ni, Al)": {"nradmax_by_orders": [1, 2], "lmax_by_orders": [0, 1]},
    }
    potential = build_potential(section(["Al", "Ni"], functions))
    sizes = {pair: (b.nradbase, b.nradmax, b.lmax) for pair, b in potential.bonds.items()}
    assert sizes["Al", "Ni"] == sizes["Ni", "Al"] == (4, 2, 3)
    assert sizes["Al", "Al"] == (2, 1, 3)  # Al neighbours of Al in block Al Ni
    assert sizes["Ni", "Ni"] == (2, 2, 1)
    assert potential.radcoefficients["Al", "Ni"].shape == (2, 4, 4)


def test_new_radial_functions_are_not_zero(section):
    """n up to 3 with one rank-1 function: δ_nk needs three basis functions."""
    functions = {"ALL": {"nradmax_by_orders": [1, 3], "lmax_by_orders": [0, 0]}}
    potential = build_potential(section(["Al"], functions))
    assert potential.bonds["Al", "Al"].nradbase == 3
    assert (potential.radcoefficients["Al", "Al"][:, 0] == np.eye(3)).all()


def test_explicit_settings_win(section):
    data = section(["Al", "Ni", "O"])
    data["bonds"] |= {"AlO": {"rcut": 4.0}, "BINARY": {"rcut": 4.5, "dcut": 0.5}, "O": {"core-repulsion": [7, 2]}}
    data["embeddings"]["Ni"] = {"npot": "FinnisSinclair", "rho_core_cut": 3}
    data["functions"] = {
        "BINARY": {"nradmax_by_orders": [2], "lmax_by_orders": [0]},
        "OAl": {"nradmax_by_orders": [3], "lmax_by_orders": [0]},
    }
    potential = build_potential(data)
    assert potential.bonds["O", "Al"].rcut == potential.bonds["Al", "O"].rcut == 4.0
    assert potential.bonds["Al", "Ni"].rcut == 4.5 and potential.bonds["Al", "O"].dcut == 0.5
    assert potential.bonds["O", "O"].core_repulsion == (7.0, 2.0) and potential.bonds["Al", "Al"].rcut == 5.0
    assert potential.bonds["Al", "Al"].core_repulsion == (0.0, 1.0)
    assert potential.bonds["Al", "Al"].inner_cutoff_type == "distance"
    assert potential.embeddings["Ni"].npot == "FinnisSinclair" and potential.embeddings["Ni"].rho_core_cut == 3
    assert potential.embeddings["Al"].rho_core_cut == 1e5 and potential.embeddings["Al"].drho_core_cut == 250
    assert {block.name: len(block.functions) for block in potential.blocks} == {
        "Al Ni": 2, "Al O": 2, "Ni Al": 2, "Ni O": 2, "O Al": 3, "O Ni": 2,
    }  # fmt: skip


def test_many_elements(section):
    """As many elements as the periodic table has, where only small blocks are asked for."""
    names = chemical_symbols[1:90]
    functions = {
        "UNARY": {"nradmax_by_orders": [1, 1, 1, 1, 1], "lmax_by_orders": [0, 0, 0, 0, 0]},
        "HeH": {"nradmax_by_orders": [2], "lmax_by_orders": [0]},
        "AlCuNi": {"nradmax_by_orders": [0, 1], "lmax_by_orders": [0, 1]},
    }
    potential = build_potential(section(names, functions))
    assert potential.n_functions == 89 * 5 + 2 + 2
    with pytest.raises(PacehpcError, match="89 elements have more than 1,000,000 blocks"):
        build_potential(section(names, {"ALL": functions["UNARY"]}))


def test_random_start(section):
    data = section(["Al", "Ni"])
    data["functions"]["BINARY"] = {"coefs_init": "random"}
    potential = build_potential(data)
    values = {block.name: block.coefficients for block in potential.blocks}
    assert not values["Al"].any() and values["Al Ni"].all()
    assert 0.3e-4 < values["Al Ni"].std() < 3e-4
    assert np.array_equal(build_potential(data).parameters, potential.parameters)
    other = build_potential(data, rng=np.random.default_rng(7))
    assert not np.array_equal(other.parameters, potential.parameters)


def test_metadata_become_texts(section):
    data = section(["Al"])
    data["metadata"] = {"who": "me", "n": 3}
    assert build_potential(data).metadata == {"who": "me", "n": "3"}


def test_a_file_as_it_is_and_reset(golden, tmp_path):
    path = str(golden / "potentials" / "alni_mixed.yaml")
    file = Potential.load(path)
    for potential in (build_potential(path), build_potential({"filename": path})):
        assert np.array_equal(potential.parameters, file.parameters) and potential.bonds == file.bonds
    reset = build_potential({"filename": path, "reset": True, "metadata": {"a": "b"}, "deltaSplineBins": 0.01})
    assert reset.bonds == file.bonds and [b.functions for b in reset.blocks] == [b.functions for b in file.blocks]
    assert not any(block.coefficients.any() for block in reset.blocks)
    assert (reset.radcoefficients["Al", "Ni"][:, 1] == np.eye(2, 5)).all()
    assert reset.metadata["a"] == "b" and reset.metadata["comment"] and reset.delta_spline_bins == 0.01


def change(data, *path_and_value):
    *path, key, value = path_and_value
    for step in path:
        data = data[step]
    if value is None:
        del data[key]
    else:
        data[key] = value


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("bonds", "ALL", "rcut", None), "rcut missing; give it under ALL or for these elements"),
        (("bonds", "ALL", "r_in", 5.0), "r_in 5 is not smaller than rcut 5"),
        (("bonds", "ALL", "radparameters", [0]), "positive number in radparameters"),
        (("bonds", "AlNi", {"inner_cutoff_type": "density"}), "same inner_cutoff_type"),
        (("bonds", "AlNi", {"dcut": 9}), "bond Al Ni: dcut 9 is larger than rcut 5"),
        (("embeddings", "ALL", "fs_parameters", [1, 1, 1, 0]), "must be positive"),
        (("embeddings", "Ni", {"ndensity": 1}), "embedding of Ni: ndensity 1 needs 2 parameters"),
        (("embeddings", "ALL", "npot", None), "npot missing"),
        (("functions", "ALL", "lmax_by_orders", None), "block Al: lmax_by_orders missing"),
        (("functions", "Al", {"lmax_by_orders": [0]}), "block Al: .* must have the same length"),
        (("functions", "ALL", "nradmax_by_orders", [3, 500, 500]), "lower them"),
        (("initial_potential", "missing.yaml"), "missing.yaml: cannot be read"),
        (("initial_potential", 3), "initial_potential: expected"),
    ],
)
def test_refused(section, edit, message):
    data = section(["Al", "Ni"])
    change(data, *edit)
    with pytest.raises(PacehpcError, match=message):
        build_potential(data)


@pytest.mark.parametrize("data", [None, 3, [], {"elements": ["Al"]}, {"filename": 3}, {"filename": "x", "reset": 1}])
def test_not_a_section(data):
    with pytest.raises(PacehpcError):
        build_potential(data)


TWELVE = ["Al", "Co", "Cr", "Cu", "Fe", "Mn", "Mo", "Nb", "Ni", "Ta", "Ti", "W"]


def test_too_few_functions_for_the_blocks(section):
    """12 elements have 12, 132 and 660 blocks of one to three elements: 67 functions per element give each one."""
    functions = {"number_of_functions_per_element": 66, "ALL": {"nradmax_by_orders": [2, 1], "lmax_by_orders": [0, 1]}}
    with pytest.raises(PacehpcError, match=r"per_element: 66: .*804 blocks .*660 of 3.*at least 67"):
        build_potential(section(TWELVE, functions))
    functions["number_of_functions_per_element"] = 67
    assert build_potential(section(TWELVE, functions)).n_functions == 804
    with pytest.raises(PacehpcError, match="number_of_functions_per_element: 50, but no functions are described"):
        build_potential(section(["Al"], {"number_of_functions_per_element": 50}))


def test_the_block_that_is_too_large_is_named(section):
    large = {"nradmax_by_orders": [30, 20, 20, 20], "lmax_by_orders": [0, 4, 4, 4]}
    small = {"nradmax_by_orders": [2, 1], "lmax_by_orders": [0, 1]}
    functions = {"ALL": small, "BINARY": large}
    with pytest.raises(PacehpcError, match=r"12 blocks have 420,351,756 .*largest is block Al Cu with 70,058,610 \(6"):
        build_potential(section(["Al", "Cu", "Ni"], functions))


def test_more_functions_asked_for_than_there_are(section, caplog):
    functions = {"number_of_functions_per_element": 1000, "ALL": {"nradmax_by_orders": [4], "lmax_by_orders": [0]}}
    with caplog.at_level("INFO"):
        build_potential(section(["Al"], functions))
    assert caplog.text.count("4 functions in all, fewer than number_of_functions_per_element: 1000 asks for") == 1


def test_an_old_ace_file_says_what_it_is(tmp_path):
    (tmp_path / "old.ace").write_text("nelements=1\nelements: Cu\n\nlmax=0\n")
    with pytest.raises(PacehpcError, match=r"old\.ace: .*before October 2021.*B-basis file"):
        Potential.load(tmp_path / "old.ace")
