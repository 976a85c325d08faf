"""Keywords and explicit elements: who wins, and what is refused."""

import pytest

from pacehpc.basis import element_names, resolve
from pacehpc.errors import PacehpcError

ELEMENTS = ("Al", "N", "Ni", "No", "O")


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("AlNi", ("Al", "Ni")),
        ("Al Ni", ("Al", "Ni")),
        ("(Al, Ni)", ("Al", "Ni")),
        (("Al", "Ni"), ("Al", "Ni")),
        (["Al"], ("Al",)),
        ("No", ("No",)),
        ("NO", ("N", "O")),
        ("OO", ("O", "O")),
        ("AlNiNo", ("Al", "Ni", "No")),
    ],
)
def test_element_names(key, names):
    assert element_names(key, ELEMENTS, "bonds") == names


@pytest.mark.parametrize("key", ["", "Cu", "AlCu", "al", "ALLL", "Al-Ni", "QUINARYY", 7, (), None])
def test_not_elements(key):
    with pytest.raises(PacehpcError, match=r"^bonds: "):
        element_names(key, ELEMENTS, "bonds")


def test_later_keywords_override_key_by_key():
    section = {
        "AlNi": {"c": "pair"},
        "BINARY": {"b": "binary", "c": "binary"},
        "ALL": {"a": "all", "b": "all", "c": "all"},
        "Ni": {"a": "element"},
    }
    pairs = [("Al", "Al"), ("Al", "Ni"), ("Ni", "Al"), ("Ni", "Ni"), ("Al", "O")]
    resolved = resolve(section, pairs, ELEMENTS, "bonds", "bonds")
    assert resolved["Al", "Al"] == {"a": "all", "b": "all", "c": "all"}
    assert resolved["Al", "Ni"] == resolved["Ni", "Al"] == {"a": "all", "b": "binary", "c": "pair"}
    assert resolved["Ni", "Ni"] == {"a": "element", "b": "all", "c": "all"}
    assert resolved["Al", "O"] == {"a": "all", "b": "binary", "c": "binary"}


def test_blocks_are_named_by_centre():
    targets = [("Al",), ("Al", "Ni"), ("Ni", "Al"), ("Al", "Ni", "O"), ("O", "Al", "Ni")]
    resolved = resolve({"Ni Al": {"x": 1}, "(O, Ni, Al)": {"x": 2}, "Al": {"x": 3}}, targets, ELEMENTS, "blocks", "f")
    assert resolved == {
        ("Al",): {"x": 3}, ("Al", "Ni"): {}, ("Ni", "Al"): {"x": 1}, ("Al", "Ni", "O"): {}, ("O", "Al", "Ni"): {"x": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("section", "kind", "message"),
    [
        ({"TERNARY": {}}, "bonds", "at most 2"),
        ({"BINARY": {}}, "elements", "at most 1"),
        ({"AlNiO": {}}, "bonds", "one or two elements"),
        ({"AlNi": {}}, "elements", "one element"),
        ({"AlNi": {}, "NiAl": {}}, "bonds", "name the same"),
        ({"ALL": 3}, "bonds", "mapping"),
        ({"Cu": {}}, "bonds", "Cu"),
    ],
)
def test_refused(section, kind, message):
    targets = [("Al",)] if kind == "elements" else [("Al", "Al"), ("Al", "Ni"), ("Ni", "Al")]
    with pytest.raises(PacehpcError, match=message):
        resolve(section, targets, ELEMENTS, kind, "section")
