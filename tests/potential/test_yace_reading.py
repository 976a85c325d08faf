"""C-tilde files read back: the golden potentials, functions in other shapes, and files that are no B basis."""

from __future__ import annotations

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential, build_potential, export_yace
from pacehpc.potential.yace import format_yace
from pacehpc.yamlio import dumps_yaml, loads_yaml


def by_function(potential):
    return {
        function: c
        for block in potential.blocks
        for function, c in zip(block.functions, block.coefficients, strict=True)
    }


def test_golden_files_are_the_golden_potentials(golden, golden_name):
    """Files of the reference program give back the potential that they were made from."""
    expected = Potential.load(golden / "potentials" / f"{golden_name}.yaml")
    potential = Potential.load(golden / "potentials" / f"{golden_name}.yace")
    assert potential.elements == expected.elements
    assert potential.embeddings == expected.embeddings
    assert potential.bonds == expected.bonds
    assert potential.delta_spline_bins == expected.delta_spline_bins
    for pair, c in expected.radcoefficients.items():
        np.testing.assert_array_equal(potential.radcoefficients[pair], c)
    functions, expected_functions = by_function(potential), by_function(expected)
    assert functions.keys() == expected_functions.keys()
    for function, c in expected_functions.items():
        np.testing.assert_allclose(functions[function], c, rtol=1e-12, atol=1e-15)


def test_high_rank_round_trip(section, tmp_path):
    functions = {"ALL": {"nradmax_by_orders": [2, 2, 2, 2, 1, 1], "lmax_by_orders": [0, 4, 3, 2, 1, 1]}}
    potential = build_potential(section(["Al", "Ni"], functions))
    potential.parameters = np.random.default_rng(1).normal(size=potential.n_parameters)
    export_yace(potential, tmp_path / "p.yace")
    again = Potential.load(tmp_path / "p.yace")
    assert by_function(again).keys() == by_function(potential).keys()
    np.testing.assert_allclose(again.parameters, potential.parameters, rtol=1e-10, atol=1e-13)
    assert [block.elements for block in again.blocks] == [block.elements for block in potential.blocks]


def test_factors_in_another_order_and_split_terms(golden, tmp_path):
    """Any order of neighbours, either of m and -m, and terms spread over several entries mean the same."""
    text = (golden / "potentials" / "alni_mixed.yace").read_text()
    data = loads_yaml(text)
    for entries in data["functions"].values():
        for f in list(entries):
            rank = f["rank"]
            ms = np.array(f["ms_combs"]).reshape(-1, rank)
            ms[::2] *= -1
            c = np.array(f["ctildes"]).reshape(len(ms), -1)
            for key in ("mus", "ns", "ls"):
                f[key] = f[key][::-1]
            first, second = (ms[:1, ::-1], c[:1]), (ms[1:, ::-1], c[1:])
            if len(ms) > 1:
                entries.append({**f, "ms_combs": second[0].ravel().tolist(), "ctildes": second[1].ravel().tolist()})
                f.update(ms_combs=first[0].ravel().tolist(), ctildes=first[1].ravel().tolist())
    (tmp_path / "p.yace").write_text(dumps_yaml(data))
    again = Potential.load(tmp_path / "p.yace")
    expected = by_function(Potential.load(golden / "potentials" / "alni_mixed.yaml"))
    functions = by_function(again)
    assert functions.keys() == expected.keys()
    for function, c in expected.items():
        np.testing.assert_allclose(functions[function], c, rtol=1e-11, atol=1e-15)


def test_elements_out_of_order(golden, tmp_path):
    """Another order of the elements in the file is the same potential."""
    data = loads_yaml((golden / "potentials" / "alni_mixed.yace").read_text())
    swapped = {
        **data,
        "elements": ["Ni", "Al"],
        "embeddings": {1 - mu: value for mu, value in data["embeddings"].items()},
        "bonds": {(1 - i, 1 - j): value for (i, j), value in data["bonds"].items()},
        "functions": {
            1 - mu: [{**f, "mu0": 1 - mu, "mus": [1 - m for m in f["mus"]]} for f in functions]
            for mu, functions in data["functions"].items()
        },
    }
    (tmp_path / "p.yace").write_text(dumps_yaml(swapped))
    again, expected = (
        Potential.load(path) for path in (tmp_path / "p.yace", golden / "potentials" / "alni_mixed.yaml")
    )
    assert again.elements == ("Al", "Ni") and again.bonds == expected.bonds
    assert by_function(again).keys() == by_function(expected).keys()
    np.testing.assert_allclose(again.parameters, expected.parameters, rtol=1e-11, atol=1e-15)


def test_one_coupling_of_several(section, tmp_path):
    """A file of a basis that has only some of the couplings gives back these alone."""
    functions = {"ALL": {"nradmax_by_orders": [0, 0, 0, 2], "lmax_by_orders": [0, 0, 0, 2]}}
    potential = build_potential(section(["Al"], functions))
    block = potential.blocks[0]
    block.functions, block.coefficients = block.functions[5::7], block.coefficients[5::7]
    block.coefficients = np.random.default_rng(0).normal(size=block.coefficients.shape)
    export_yace(potential, tmp_path / "p.yace")
    again = by_function(Potential.load(tmp_path / "p.yace"))
    assert again.keys() == by_function(potential).keys()


@pytest.fixture
def text(golden):
    return (golden / "potentials" / "alni_mixed.yace").read_text()


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("E0: [0, 0]", "E0: [0, -1.5]", "E0 is not zero"),
        ("elements: [Al, Ni]", "elements: [Al, Al]", "given twice"),
        ("elements: [Al, Ni]", "elements: [Al, Xy]", "not a chemical element"),
        ("elements: [Al, Ni]", "elements: [Al, Ni, O]", r"embeddings\[2\]: is missing"),
        ("[1, 0]: {", "[1, 2]: {", r"bonds\[1, 0\]: is missing"),
        ("rcut: 5", "rcut: .nan", "finite"),
        ("deltaSplineBins", "deltaSpline", "did you mean 'deltaSplineBins'"),
        ("npoti: FinnisSinclairShiftedScaled", "npoti: Other", "unknown embedding"),
        ("mus: [0]", "mus: [7]", "below 2"),
        ("rank: 1", "rank: 2", "mus, ns and ls"),
        ("ms_combs: [0]", "ms_combs: [1]", "add up to zero"),
        ("ms_combs: [0]", "ms_combs: [0, 0]", "do not fit"),
        ("ms_combs: [0]", "ms_combs: [x]", "list of integers"),
        ("functions:\n", "functions: 3\nextra:\n", "unknown key|expected a mapping"),
    ],
)
def test_mistakes(text, tmp_path, old, new, message):
    assert old in text
    path = tmp_path / "p.yace"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(PacehpcError, match=message) as error:
        Potential.load(path)
    assert "p.yace" in str(error.value)


def test_bonds_that_differ_by_order(text, tmp_path):
    lines = text.splitlines()
    where = next(i for i, line in enumerate(lines) if line.strip().startswith("[1, 0]"))
    lines[where] = lines[where].replace("radcoefficients: [[[", "radcoefficients: [[[1")
    (tmp_path / "p.yace").write_text("\n".join(lines))
    with pytest.raises(PacehpcError, match=r"bonds\[1, 0\]: differs from bonds\[0, 1\]"):
        Potential.load(tmp_path / "p.yace")


def test_terms_without_invariance(golden, tmp_path):
    """One changed coefficient of a rank-2 function with l = 1 belongs to no B function."""
    potential = Potential.load(golden / "potentials" / "al_chebexpcos.yaml")
    lines = format_yace(potential).splitlines()
    where = next(i for i, line in enumerate(lines) if "rank: 2" in line and "ls: [1, 1]" in line)
    start = lines[where].index("ctildes: [") + len("ctildes: [")
    lines[where] = lines[where][:start] + "0.25" + lines[where][lines[where].index(",", start) :]
    (tmp_path / "p.yace").write_text("\n".join(lines))
    with pytest.raises(PacehpcError, match="not rotationally invariant"):
        Potential.load(tmp_path / "p.yace")


def test_too_many_couplings(golden, tmp_path):
    """A crafted rank does not take memory or time."""
    lines = (golden / "potentials" / "al_cheblinear.yace").read_text().splitlines()
    for rank, l in ((40, 0), (12, 2), (11, 1)):
        zeros = [0] * rank
        entry = f"    - {{mus: {zeros}, ns: {[1] * rank}, ls: {[l] * rank}, ms_combs: {zeros}, ctildes: [1, 1]}}"
        (tmp_path / "p.yace").write_text("\n".join([*lines, entry]))
        with pytest.raises(PacehpcError):
            Potential.load(tmp_path / "p.yace")
