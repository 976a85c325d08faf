"""Functions of blocks against the lists of the golden potentials and against counts."""

import json
from itertools import combinations_with_replacement

import pytest

from pacehpc.basis import Function, block_functions, complete_couplings, possible_blocks, power_order, resolve
from pacehpc.basis.couplings import number_of_invariants


def golden_functions(block):
    """The functions of a block as Function; the golden lists may leave out the last intermediate L."""
    return [
        Function(tuple(f["type"]), tuple(f["nr"]), tuple(f["nl"]), complete_couplings(tuple(f["nl"]), tuple(f["lint"])))
        for f in block["functions"]
    ]


def test_golden_blocks(golden, golden_name):
    data = json.loads((golden / "potentials" / f"{golden_name}.basis.json").read_text())
    section = data["potential"]
    settings = resolve(
        section["functions"], possible_blocks(section["elements"], 5), section["elements"], "blocks", "functions"
    )
    for block in data["blocks"]:
        key = tuple(block["block"].split())
        given = settings.pop(key)
        functions = block_functions(key, given["nradmax_by_orders"], given["lmax_by_orders"])
        assert functions == golden_functions(block)
    assert not any(settings.values())


def test_possible_blocks():
    assert possible_blocks(["Al"], 3) == [("Al",)]
    assert possible_blocks(["Ni", "Al", "Co"], 2) == [
        ("Al",), ("Al", "Co"), ("Al", "Ni"), ("Co",), ("Co", "Al"), ("Co", "Ni"), ("Ni",), ("Ni", "Al"), ("Ni", "Co"),
    ]  # fmt: skip
    assert len(possible_blocks(["Co", "Cr", "Fe", "Mn", "Ni"], 5)) == 5 * 2**4


def test_order_within_a_block():
    functions = block_functions(("Ni", "Al"), [3, 2, 2, 1], [0, 2, 2, 1])
    keys = [(f.rank, f.elements, f.ns, f.ls, f.LS) for f in functions]
    assert keys == sorted(set(keys))
    for elements, ns, ls, _ in functions:
        assert set(elements) == {"Ni", "Al"} and elements[0] == "Ni"
        factors = list(zip(elements[1:], ns, ls, strict=True))
        assert factors == sorted(factors) and sum(ls) % 2 == 0


@pytest.mark.parametrize(("rank", "nmax", "lmax"), [(2, 3, 12), (3, 2, 7), (4, 2, 4), (5, 1, 4), (7, 1, 2), (8, 1, 1)])
def test_numbers_at_high_rank_and_l(rank, nmax, lmax):
    """The number of functions is that of exchange-symmetric invariants, counted from characters alone."""
    expected = 0
    for factors in combinations_with_replacement([(n, l) for n in range(nmax) for l in range(lmax + 1)], rank):
        ls = tuple(l for _, l in factors)
        if sum(ls) % 2 == 0:
            expected += number_of_invariants(ls, tuple(factors.index(f) for f in factors))
    functions = block_functions(("Al",), [0] * (rank - 1) + [nmax], [0] * (rank - 1) + [lmax])
    assert len(functions) == expected


def test_power_order():
    assert power_order(Function(("Al", "Al", "Ni"), (2, 1), (3, 3), ())) == 2 + 3 + 6
