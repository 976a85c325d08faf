"""The section `potential`: what is refused, and other forms of the same thing."""

import pytest

from pacehpc.errors import PacehpcError
from pacehpc.potential import build_potential
from pacehpc.potential.section import checked_section


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
        (("elements", ["Al", "Xx"]), "elements[1]: must be the symbol of an element, not 'Xx'"),
        (("elements", ["Al", "Al"]), "elements: names an element twice: Al, Al"),
        (("elements", []), "elements: must be a list of elements, not []"),
        (("elements", [3]), "elements[0]: must be the symbol of an element, not 3"),
        (("elements", None), "elements: is missing; give it, or `filename` of a potential"),
        (("bonds", "ALL", "rcut", -5.0), "bonds.ALL.rcut: must be a number above 0, not -5.0"),
        (("bonds", "ALL", "rcut", "5 A"), "bonds.ALL.rcut: must be a number above 0, not '5 A'"),
        (("bonds", "ALL", "rcut", float("nan")), "bonds.ALL.rcut: must be a number above 0, not nan"),
        (("bonds", "ALL", "rcut", True), "bonds.ALL.rcut: must be a number above 0, not true"),
        (("bonds", "ALL", "rcutt", 3), "bonds.ALL.rcutt: unknown key; did you mean `rcut`?"),
        (("bonds", "ALL", "npot", 3), "bonds.ALL.npot: unknown key; known here: radbase, "),
        (("bonds", "ALL", "dcut", 9), "bonds.ALL.dcut: must not be larger than rcut, 5.0 Å; is 9.0"),
        (("bonds", "ALL", "radbase", ["ChebPow"]), "SBessel, not ['ChebPow']"),
        (("bonds", "ALL", "core-repulsion", [1, 2, 3]), "core-repulsion: must be a list of two numbers, not [1, 2, 3]"),
        (("bonds", "AlCu", {}), "bonds.AlCu: the element Cu is not among potential.elements, [Al, Ni]"),
        (("bonds", "rcut"), "bonds: must hold keys and values, not 'rcut'"),
        (
            ("embeddings", "ALL", "fs_parameters", [1, 1, 1, float("inf")]),
            "[3]: must be a number, not inf",
        ),
        (("functions", "ALL", "lmax_by_orders", [0, 1, -1]), "lmax_by_orders[2]: must be a whole number, 0 or larger"),
        (("functions", "ALL", "lmax_by_orders", [0, 1, 100000]), "lmax_by_orders[2]: must be at most 10,000"),
        (("functions", "ALL", 3), "functions.ALL: must hold keys and values, not 3"),
        (("functions", ("Al", "Ni"), 3), "functions.(Al, Ni): must hold keys and values, not 3"),
        (("functions", "number_of_functions_per_element", -1), "must be a whole number, 1 or larger, not -1"),
        (("metadata", ["x"]), "metadata: must hold names and texts"),
        (("deltaSpline", 1), "deltaSpline: unknown key; did you mean `deltaSplineBins`?"),
        (("rcut", 5), "rcut: unknown key"),
        (("element", "Al"), "element: is also given as potential.elements; remove one of them"),
    ],
)
def test_refused(section, edit, message):
    """Python and input files (tests/config) have one check, so that both say the same."""
    data = section(["Al", "Ni"])
    change(data, *edit)
    with pytest.raises(PacehpcError) as error:
        build_potential(data)
    assert str(error.value).startswith("potential.") and message in str(error.value)


def test_all_mistakes_at_once(section):
    data = section(["Al"])
    change(data, "bonds", "ALL", "rcut", -1)
    change(data, "reset", 1)
    with pytest.raises(PacehpcError) as error:
        checked_section(data)
    first, *others = str(error.value).splitlines()
    assert first == "potential: 2 mistakes" and sorted(line.split(":")[0].strip() for line in others) == [
        "potential.bonds.ALL.rcut", "potential.reset",
    ]  # fmt: skip


def test_a_checked_section_is_checked_again_to_the_same(section):
    data = section(["Ni", "Al"]) | {"metadata": {"n": 3}, "initial_potential": "x.yaml", "on_mismatch": "use_input"}
    data["bonds"]["(Ni, Al)"] = {"rcut": 4, "core-repulsion": [1, 2]}
    data["functions"]["Ni Al"] = {"coefs_init": "random"}
    data["functions"]["number_of_functions_per_element"] = 7
    once = checked_section(data)
    assert once["bonds"]["Al Ni"] == {"rcut": 4.0, "core-repulsion": [1.0, 2.0]} and once["elements"] == ["Al", "Ni"]
    assert checked_section(once) == once


def test_old_single_element_form(section):
    new = section(["Cu"])
    old = {"element": "Cu", "deltaSplineBins": 0.002, **new["embeddings"]["ALL"], **new["bonds"]["ALL"]}
    old |= new["functions"]["ALL"]
    new["deltaSplineBins"] = 0.002
    a, b = build_potential(old), build_potential(new)
    assert a.bonds == b.bonds and a.embeddings == b.embeddings and a.delta_spline_bins == 0.002
    assert [x.functions for x in a.blocks] == [x.functions for x in b.blocks]


def test_old_single_element_form_with_its_own_names(section):
    new = section(["Cu"])
    old = {"element": "Cu", **new["embeddings"]["ALL"], **new["bonds"]["ALL"], "rankmax": 2}
    old |= {"nradmax": [3, 2, 1], "lmax": [0, 1, 1], "number_of_functions_per_element": 4}
    new["functions"] = {
        "ALL": {"nradmax_by_orders": [3, 2], "lmax_by_orders": [0, 1]}, "number_of_functions_per_element": 4,
    }  # fmt: skip
    assert checked_section(old) == checked_section(new)


def test_what_a_file_replaces_is_named(golden, caplog):
    caplog.set_level("INFO")
    path = str(golden / "potentials" / "alni_mixed.yaml")
    assert "functions" not in checked_section({"filename": path, "functions": {}})
    assert "potential.functions: not used, potential.filename gives the basis" in caplog.text
