"""Initial potentials: what is taken over, what grows, and what contradicts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential, build_potential, ladder_start
from pacehpc.potential.assemble import coefficients_by_function


def trained(data, seed):
    """A potential with random coefficients everywhere."""
    potential = build_potential(data)
    potential.parameters = np.random.default_rng(seed).normal(size=potential.n_parameters)
    return potential


def values(potential):
    return {
        (block.elements, f): tuple(c)
        for block in potential.blocks
        for f, c in zip(block.functions, block.coefficients, strict=True)
    }


@pytest.fixture
def unary(section, tmp_path):
    """Trained potentials of Al and Ni, written to files."""
    files = []
    for seed, element in enumerate(["Al", "Ni"]):
        potential = trained(section([element]), seed)
        potential.metadata = {"reference_energy": json.dumps({element: -3.0}), "who": "me"}
        potential.save(tmp_path / f"{element}.yaml")
        files.append(str(tmp_path / f"{element}.yaml"))
    return files


def test_input_that_names_only_the_binary_part(section, unary):
    full = section(["Al", "Ni"])
    data = {
        "elements": ["Al", "Ni"],
        "bonds": {"BINARY": full["bonds"]["ALL"] | {"rcut": 4.0}},
        "functions": {"BINARY": full["functions"]["ALL"]},
        "initial_potential": unary,
    }
    potential = build_potential(data)
    al, ni = (Potential.load(file) for file in unary)
    assert potential.embeddings == al.embeddings | ni.embeddings
    assert potential.bonds["Al", "Ni"].rcut == 4.0 and potential.bonds["Ni", "Ni"] == ni.bonds["Ni", "Ni"]
    assert np.array_equal(potential.radcoefficients["Al", "Al"], al.radcoefficients["Al", "Al"])
    own = values(potential)
    for known in (al, ni):
        for key, c in values(known).items():
            assert own.pop(key) == c
    assert {key[0] for key in own} == {("Al", "Ni"), ("Ni", "Al")} and not any(map(any, own.values()))
    assert potential.metadata == {"who": "me"}  # the references of the two files differ
    start = ladder_start(data)
    assert values(start) == values(al) | values(ni) and start.bonds["Al", "Ni"].rcut == 4.0
    assert np.array_equal(start.radcoefficients["Ni", "Ni"], ni.radcoefficients["Ni", "Ni"])
    assert ladder_start(full) is None


def test_larger_basis_keeps_the_trained_values(section):
    first = trained(section(["Al"]), 1)
    data = section(["Al"], {"ALL": {"nradmax_by_orders": [5, 3, 2], "lmax_by_orders": [0, 2, 1]}})
    for potential in (build_potential(data, initial=first), build_potential(data, initial=[first])):
        assert values(first).items() <= values(potential).items()
        keys = [(f.rank, f.elements, f.ns, f.ls, f.LS) for f in potential.blocks[0].functions]
        assert keys == sorted(keys) and len(keys) == build_potential(data).n_functions
        c, old = potential.radcoefficients["Al", "Al"], first.radcoefficients["Al", "Al"]
        assert c.shape == (3, 3, 5) and np.array_equal(c[:2, :2, :3], old)
        grown = np.repeat(np.eye(3, 5)[:, None], 3, axis=1)
        grown[:2, :2, :3] = old
        assert np.array_equal(c, grown)


def test_functions_that_the_input_lacks_are_kept(section):
    large = trained(section(["Al"], {"ALL": {"nradmax_by_orders": [5, 3], "lmax_by_orders": [0, 2]}}), 1)
    potential = build_potential(section(["Al"]), initial=large)
    assert values(large).items() <= values(potential).items()
    keys = [(f.rank, f.elements, f.ns, f.ls, f.LS) for f in potential.blocks[0].functions]
    assert keys == sorted(set(keys)) and len(keys) > large.n_functions
    assert potential.bonds["Al", "Al"].lmax == 2


def test_bonds_that_differ(section):
    first = trained(section(["Al"]), 1)
    data = section(["Al"])
    data["bonds"]["ALL"]["rcut"] = 6.0
    with pytest.raises(PacehpcError, match=r"bond Al Al: rcut is 6\.0 here, but 5\.0 in initial_potential"):
        build_potential(data, initial=first)
    with pytest.raises(PacehpcError, match=r"rcut is 6\.0 here, but 5\.0"):
        ladder_start(data, first)
    kept = build_potential(data | {"on_mismatch": "keep_initial"}, initial=first)
    used = build_potential(data | {"on_mismatch": "use_input"}, initial=first)
    assert kept.bonds["Al", "Al"].rcut == 5.0 and used.bonds["Al", "Al"].rcut == 6.0
    assert values(kept) == values(used) == values(first)


def test_embeddings_that_differ(section):
    first = trained(section(["Al"]), 1)
    data = section(["Al"])
    data["embeddings"]["ALL"]["fs_parameters"] = [1, 1, 1, 0.75]
    with pytest.raises(
        PacehpcError, match=r"fs_parameters is \[1.0, 1.0, 1.0, 0.75\] here, but \[1.0, 1.0, 1.0, 0.5\]"
    ):
        build_potential(data, initial=first)
    data["embeddings"]["ALL"] |= {"fs_parameters": [1, 1], "ndensity": 1}
    with pytest.raises(PacehpcError, match="cannot change their number of densities"):
        build_potential(data | {"on_mismatch": "use_input"}, initial=first)
    kept = build_potential(data | {"on_mismatch": "keep_initial"}, initial=first)
    assert values(kept) == values(first)


def test_what_the_input_leaves_out_is_the_initial_one(section):
    first = trained(section(["Al"]), 1)
    first.bonds["Al", "Al"] = replace(
        first.bonds["Al", "Al"], r_in=1.0, core_repulsion=(9.0, 2.0), inner_cutoff_type="density"
    )
    potential = build_potential(section(["Al", "Ni"]), initial=first)
    assert potential.bonds["Al", "Al"].core_repulsion == (9.0, 2.0) and potential.bonds["Al", "Al"].r_in == 1.0
    assert {bond.inner_cutoff_type for bond in potential.bonds.values()} == {"density"}
    assert potential.bonds["Al", "Ni"].r_in == 0


def test_contradicting_files(section):
    binary = trained(section(["Al", "Ni"]), 1)

    def clash(message, edit):
        other = build_potential(section(["Al"]), initial=None)
        other.parameters = binary.parameters[: other.n_parameters]  # arbitrary
        other.radcoefficients["Al", "Al"] = binary.radcoefficients["Al", "Al"].copy()
        other.blocks[0].coefficients[...] = binary.blocks[0].coefficients
        edit(other)
        with pytest.raises(PacehpcError, match=message):
            build_potential(section(["Al", "Ni"]), initial=[binary, other])
        return other

    def nothing(_):
        raise AssertionError

    with pytest.raises(AssertionError):
        clash("", nothing)
    clash("c is .* and ", lambda p: p.blocks[0].coefficients.__setitem__((0, 0), 7))
    clash("radcoefficients n=1, l=0, k=1 are 7 and", lambda p: p.radcoefficients["Al", "Al"].__setitem__((0, 0, 0), 7))
    clash(
        "bond Al Al: rcut is 4.0 and 5.0",
        lambda p: p.bonds.update({("Al", "Al"): replace(p.bonds["Al", "Al"], rcut=4.0)}),
    )
    clash(
        "embedding of Al: rho_core_cut is 1",
        lambda p: p.embeddings.update(Al=replace(p.embeddings["Al"], rho_core_cut=1)),
    )


def test_files_that_agree(section):
    binary = trained(section(["Al", "Ni"]), 1)
    same = build_potential(section(["Al", "Ni"]), initial=[binary, binary.copy()])
    assert np.array_equal(same.parameters, binary.parameters)


def test_elements(section):
    binary = trained(section(["Al", "Ni"]), 1)
    with pytest.raises(PacehpcError, match=r"\['Ni'\] of initial_potential"):
        build_potential(section(["Al"]), initial=binary)
    data = section([])
    del data["elements"]
    assert build_potential(data, initial=binary).elements == ("Al", "Ni")


def test_filename_with_initial_values(section, tmp_path):
    build_potential(section(["Al", "Ni"])).save(tmp_path / "target.yaml")
    al = trained(section(["Al"]), 1)
    potential = build_potential({"filename": str(tmp_path / "target.yaml")}, initial=al)
    assert values(al).items() <= values(potential).items()
    assert np.array_equal(potential.radcoefficients["Al", "Al"], al.radcoefficients["Al", "Al"])
    cu = trained(section(["Cu"]), 1)
    with pytest.raises(PacehpcError, match="Cu"):
        build_potential({"filename": str(tmp_path / "target.yaml")}, initial=cu)


def test_files_that_share_an_element(section):
    """Two alloys of aluminium: the error names the key, and with it one file gives aluminium, bond and block."""
    nickel, copper = trained(section(["Al", "Ni"]), 1), trained(section(["Al", "Cu"]), 2)
    data = section(["Al", "Cu", "Ni"])
    with pytest.raises(PacehpcError, match=r"bond Al Al: .*potential\.initial_conflict: first or last"):
        build_potential(data, initial=[nickel, copper])
    for choice, chosen in (("first", nickel), ("last", copper)):
        potential = build_potential(data | {"initial_conflict": choice}, initial=[nickel, copper])
        assert _functions(chosen)["Al",]
        for f, c in _functions(chosen)["Al",].items():
            np.testing.assert_array_equal(_functions(potential)["Al",][f], c)
        np.testing.assert_array_equal(potential.radcoefficients["Al", "Al"], chosen.radcoefficients["Al", "Al"])
        for other, pair in ((nickel, ("Al", "Ni")), (copper, ("Al", "Cu"))):
            np.testing.assert_array_equal(potential.radcoefficients[pair], other.radcoefficients[pair])
            for f, c in _functions(other)[pair].items():
                np.testing.assert_array_equal(_functions(potential)[pair][f], c)


def _functions(potential):
    return {block.elements: coefficients_by_function(block) for block in potential.blocks}
