"""Ladder steps against the golden sequences."""

import json

import numpy as np
import pytest

from pacehpc.basis import complete_couplings
from pacehpc.errors import PacehpcError
from pacehpc.potential import build_potential, ladder_step_size, next_ladder_potential


@pytest.mark.parametrize("name", ["ladder_al_body", "ladder_alni_power"])
def test_golden_steps(golden, name):
    data = json.loads((golden / "fit" / f"{name}.json").read_text())
    target = build_potential(data["potential"])
    current = None
    for step in data["steps"]:
        previous = current
        current = next_ladder_potential(previous, target, data["ladder_step"], data["ladder_type"])
        n_previous = previous.n_functions if previous else 0
        assert ladder_step_size(data["ladder_step"], n_previous, target.n_functions - n_previous) == step["step_size"]
        blocks = {block.name: block for block in current.blocks}
        assert blocks.keys() == {block["block"] for block in step["blocks"]}
        for block in step["blocks"]:
            functions = [
                (tuple(f["type"]), tuple(f["nr"]), tuple(f["nl"]), complete_couplings(tuple(f["nl"]), tuple(f["lint"])))
                for f in block["functions"]
            ]
            assert blocks[block["block"]].functions == functions
            elements = block["block"].split()
            bond = current.bonds[elements[0], elements[-1]]
            assert (bond.nradbase, bond.nradmax, bond.lmax) == (block["nradbase"], block["nradmax"], block["lmax"])
    assert next_ladder_potential(current, target, data["ladder_step"], data["ladder_type"]) is None


@pytest.mark.parametrize(
    ("ladder_step", "current", "missing", "size"),
    [
        (10, 0, 100, 10),
        (10, 0, 7, 7),
        (0.3, 60, 100, 18),
        (0.3, 0, 100, 1),
        ([7, 0.3], 60, 100, 18),
        ([0.02, 10], 60, 100, 10),
        (1.0, 5, 100, 1),
        ([25, 0.5], 10, 100, 25),
    ],
)
def test_step_size(ladder_step, current, missing, size):
    assert ladder_step_size(ladder_step, current, missing) == size


@pytest.mark.parametrize("ladder_step", [0, -1, 1.5, "10", True, [5, "x"], None, float("nan"), float("inf")])
def test_refused_steps(ladder_step):
    with pytest.raises(PacehpcError, match="ladder_step"):
        ladder_step_size(ladder_step, 10, 10)


def test_values_are_kept_and_new_ones_start_from_the_target(section):
    functions = {"ALL": {"nradmax_by_orders": [4, 3, 2], "lmax_by_orders": [0, 2, 1], "coefs_init": "random"}}
    target = build_potential(section(["Al", "Ni"], functions))
    target_values = {f: tuple(c) for b in target.blocks for f, c in zip(b.functions, b.coefficients, strict=True)}
    current = next_ladder_potential(None, target, 6)
    current.parameters = np.random.default_rng(0).normal(size=current.n_parameters)
    following = next_ladder_potential(current, target, 6)
    known = {f: tuple(c) for b in current.blocks for f, c in zip(b.functions, b.coefficients, strict=True)}
    for block in following.blocks:
        for function, c in zip(block.functions, block.coefficients, strict=True):
            assert tuple(c) == known.get(function, target_values[function])
    for pair, c in following.radcoefficients.items():
        old = current.radcoefficients[pair]
        expected = np.repeat(np.eye(c.shape[0], c.shape[2])[:, None], c.shape[1], axis=1)
        expected[tuple(map(slice, old.shape))] = old
        assert np.array_equal(c, expected)
    assert following.n_functions == 48 and following.bonds["Al", "Al"].nradmax > 0


def test_functions_that_the_target_lacks_stay(section):
    other = {"ALL": {"nradmax_by_orders": [0, 3], "lmax_by_orders": [0, 3]}}
    current = build_potential(section(["Al"], other))
    current.parameters = np.arange(1.0, current.n_parameters + 1)
    target = build_potential(section(["Al"]))
    kept = set(current.blocks[0].functions)
    while (following := next_ladder_potential(current, target, 3)) is not None:
        assert 0 < following.n_functions - current.n_functions <= 3
        current = following
    assert set(current.blocks[0].functions) == kept | set(target.blocks[0].functions)
    assert current.bonds["Al", "Al"].lmax == 3


def test_unknown_type(section):
    with pytest.raises(PacehpcError, match="ladder_type"):
        next_ladder_potential(None, build_potential(section(["Al"])), 3, "random_order")
