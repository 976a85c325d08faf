"""C-tilde files: the content of the golden files, and the energy of merged functions against the functions."""

import numpy as np
import pytest

from pacehpc.basis import m_terms, merged_terms
from pacehpc.potential import Potential, build_potential, export_yace
from pacehpc.potential.yace import format_yace
from pacehpc.yamlio import loads_yaml


def canonical(function):
    """{m: ctilde}: m sorted within equal (mu, n, l), m and -m identified, small terms dropped."""
    factors = list(zip(function["mus"], function["ns"], function["ls"], strict=True))
    ms = np.array(function["ms_combs"]).reshape(-1, function["rank"])
    ctildes = np.array(function["ctildes"], dtype=float).reshape(-1, function["ndensity"])
    assert len(ms) == len(ctildes) == function["num_ms_combs"]
    terms = {}
    for m, c in zip(ms, ctildes, strict=True):
        key = max(tuple(sorted(zip(factors, signed.tolist(), strict=True))) for signed in (m, -m))
        terms[key] = terms.get(key, 0) + c
    return {key: c for key, c in terms.items() if np.abs(c).max() > 1e-13}


def test_golden_content(golden, golden_name):
    potential = Potential.load(golden / "potentials" / f"{golden_name}.yaml")
    text = format_yace(potential)
    golden_text = (golden / "potentials" / f"{golden_name}.yace").read_text()
    expected_text = golden_text
    if golden_name == "alni_mixed":  # Ni gets a second density, of weight 0
        expected_text = expected_text.replace(
            "ndensity: 1, FS_parameters: [1, 1]", "ndensity: 2, FS_parameters: [1, 1, 0, 1]"
        )
    assert text.split("functions:")[0] == expected_text.split("functions:")[0]
    mine, reference = loads_yaml(text)["functions"], loads_yaml(golden_text)["functions"]
    for function in reference[1] if golden_name == "alni_mixed" else ():
        function["ndensity"], function["ctildes"] = 2, [c for given in function["ctildes"] for c in (given, 0.0)]
    assert mine.keys() == reference.keys()
    for mu in reference:
        for own, other in zip(mine[mu], reference[mu], strict=True):
            assert list(own) == list(other)
            for key in ("mu0", "rank", "ndensity", "mus", "ns", "ls"):
                assert own[key] == other[key]
            terms, expected = canonical(own), canonical(other)
            assert terms.keys() == expected.keys()
            assert len(terms) == own["num_ms_combs"] <= other["num_ms_combs"]
            for key, c in expected.items():
                assert terms[key] == pytest.approx(c, rel=1e-12, abs=1e-15)


def test_same_bytes_again(golden, tmp_path):
    potential = Potential.load(golden / "potentials" / "cuozr_zbl.yaml")
    export_yace(potential, tmp_path / "a.yace")
    shuffled = potential.copy()
    for block in shuffled.blocks:
        order = np.random.default_rng(0).permutation(len(block.functions))
        block.functions = [block.functions[i] for i in order]
        block.coefficients = block.coefficients[order]
    potential.save(tmp_path / "p.yaml")
    export_yace(Potential.load(tmp_path / "p.yaml"), tmp_path / "b.yace")
    assert (tmp_path / "a.yace").read_bytes() == (tmp_path / "b.yace").read_bytes()
    assert format_yace(shuffled).splitlines()[:20] == (tmp_path / "a.yace").read_text().splitlines()[:20]


def test_densities_from_random_moments(section):
    """ρ from the file's terms equals ρ from the functions, for high rank and for factors in any order."""
    functions = {"ALL": {"nradmax_by_orders": [2, 2, 2, 1, 1, 1], "lmax_by_orders": [0, 3, 2, 2, 1, 1]}}
    potential = build_potential(section(["Al", "Ni"], functions))
    rng = np.random.default_rng(2)
    potential.parameters = rng.normal(size=potential.n_parameters)
    for block in potential.blocks:  # neighbours against the alphabet in every second function of rank 3
        for i, (elements, ns, ls, _) in enumerate(block.functions):
            if len(ns) == 3 and i % 2:
                block.functions[i] = block.functions[i]._replace(
                    elements=(elements[0], elements[2], elements[1], elements[3]),
                    ns=(ns[1], ns[0], ns[2]),
                    ls=(ls[1], ls[0], ls[2]),
                )
    moments = {}
    for mu in (0, 1):
        for n in (1, 2):
            for l in range(4):
                positive = rng.normal(size=l) + 1j * rng.normal(size=l)
                negative = positive.conj() * (-1.0) ** np.arange(1, l + 1)
                moments[mu, n, l] = np.concatenate([negative[::-1], rng.normal(size=1), positive])

    def rho(mus, ns, ls, ms, weights):
        """weights (n_terms, ndensity); rank 1 stands for its own moment, which is all the same here."""
        products = np.ones(len(ms), dtype=complex)
        for t, (mu, n, l) in enumerate(zip(mus, ns, ls, strict=True)):
            products *= moments[mu, n, l][ms[:, t] + l]
        return products.real @ weights

    data = loads_yaml(format_yace(potential))
    species = {"Al": 0, "Ni": 1}
    for mu, centre in enumerate(potential.elements):
        from_file = sum(
            rho(f["mus"], f["ns"], f["ls"], np.array(f["ms_combs"]).reshape(-1, f["rank"]),
                np.array(f["ctildes"]).reshape(-1, 2))
            for f in data["functions"][mu]
        )  # fmt: skip
        direct = np.zeros(2)
        for block in (block for block in potential.blocks if block.elements[0] == centre):
            for (elements, ns, ls, LS), c in zip(block.functions, block.coefficients, strict=True):
                ms, values = m_terms(ls, LS)
                direct += rho([species[e] for e in elements[1:]], ns, ls, ms, values[:, None] * c)
        assert from_file == pytest.approx(direct, rel=1e-11)


def test_element_without_functions(section):
    functions = {"Al": {"nradmax_by_orders": [2], "lmax_by_orders": [0]}}
    data = loads_yaml(format_yace(build_potential(section(["Al", "Ni"], functions))))
    assert len(data["functions"][0]) == 2 and data["functions"][1] == []
    assert set(data["bonds"]) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_sums_over_m_are_made_once_for_alike_functions(section):
    """26,392 functions, of which many differ by elements and radial functions alone."""
    orders = {"nradmax_by_orders": [15, 3, 3, 2, 1], "lmax_by_orders": [0, 2, 2, 1, 1]}
    potential = build_potential(section(["Al", "Co", "Cr", "Ni"], {"ALL": orders}))
    potential.parameters = np.random.default_rng(0).normal(size=potential.n_parameters)
    merged_terms.cache_clear()
    text = format_yace(potential)
    assert merged_terms.cache_info().misses < 500
    assert potential.n_functions == 26_392 and text.count("rank") > 10_000
