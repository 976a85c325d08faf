"""Costs of atoms follow the size of the basis, element by element."""

from __future__ import annotations

from pacehpc.backends.costs import atom_costs
from pacehpc.potential import Potential, build_potential


def potential(functions: dict) -> Potential:
    return build_potential(
        {
            "elements": ["Al", "Ni"],
            "embeddings": {"ALL": {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}},
            "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 5, "dcut": 0.01}},
            "functions": functions,
        }
    )


def test_costs_follow_the_functions():
    small = {"nradmax_by_orders": [5, 2], "lmax_by_orders": [0, 2]}
    large = {"nradmax_by_orders": [5, 3, 3, 2], "lmax_by_orders": [0, 3, 2, 2]}
    one, other = atom_costs(potential({"ALL": small})), atom_costs(potential({"ALL": small, "Ni": large}))
    assert one["Al"] == one["Ni"] > 0
    assert other["Ni"] > 3 * other["Al"]


def test_a_potential_without_functions_has_equal_atoms():
    bare = potential({"ALL": {"nradmax_by_orders": [1], "lmax_by_orders": [0]}})
    bare.blocks = []
    assert set(atom_costs(bare)) == {"Al", "Ni"}
