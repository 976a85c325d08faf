"""B-basis files: golden files byte by byte, lenient and strict reading, and what is refused."""

import os
from dataclasses import replace

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential, bbasis_yaml, build_potential, export_yace
from pacehpc.potential.bbasis_yaml import format_bbasis, parse_bbasis
from pacehpc.yamlio import loads_yaml


def without_fast_path(text):
    """The potential read through the YAML loader alone."""
    return bbasis_yaml._Reader("text", "", []).potential(loads_yaml(text, "text"))


def same(a, b):
    assert a.elements == b.elements and a.embeddings == b.embeddings and a.bonds == b.bonds
    assert [(x.elements, x.functions) for x in a.blocks] == [(x.elements, x.functions) for x in b.blocks]
    assert a.parameters.tobytes() == b.parameters.tobytes()
    assert a.metadata == b.metadata and a.delta_spline_bins == b.delta_spline_bins


def test_golden_files_are_reproduced_byte_by_byte(golden, golden_name, tmp_path):
    path = golden / "potentials" / f"{golden_name}.yaml"
    Potential.load(path).save(tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == path.read_bytes()
    assert os.listdir(tmp_path) == ["again.yaml"]


def test_fast_and_ordinary_reading_agree(golden, golden_name):
    text = (golden / "potentials" / f"{golden_name}.yaml").read_text()
    same(parse_bbasis(text), without_fast_path(text))


@pytest.fixture
def alloy(golden):
    return (golden / "potentials" / "alni_mixed.yaml").read_text()


@pytest.fixture
def small(section):
    """A binary potential with random coefficients."""
    functions = {
        "UNARY": {"nradmax_by_orders": [2, 1, 1, 1, 1], "lmax_by_orders": [0, 1, 1, 1, 1]},
        "BINARY": {"nradmax_by_orders": [1, 1], "lmax_by_orders": [0, 1]},
    }
    potential = build_potential(section(["Al", "Ni"], functions))
    potential.parameters = np.random.default_rng(0).normal(size=potential.n_parameters)
    return potential


def test_round_trip_to_the_last_bit(small, tmp_path):
    extremes = [5e-324, -5e-324, 1.7976931348623157e308, -0.0, 0.1, 1 / 3, 1e-7, 1e22, 123456789012345678.0]
    vector = small.parameters
    vector[: len(extremes)] = vector[-len(extremes) :] = extremes
    small.parameters = vector
    small.save(tmp_path / "x.yaml")
    same(Potential.load(tmp_path / "x.yaml"), small)


def test_metadata_are_texts_whatever_they_hold(small, tmp_path):
    small.metadata = {
        "comment": "plain words, and more",
        "number": "1e-3",
        "empty": "",
        "No": "yes",
        "json": '{"Al": -1.5, "shift": 0}',
        "odd": "a: b # c\n'tab'\t\\ \x07 ü \U0001f600 \u2028 - ",
        " key: ": "- x",
    }
    small.save(tmp_path / "x.yaml")
    assert Potential.load(tmp_path / "x.yaml").metadata == small.metadata


def test_a_failed_write_leaves_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / "x.yaml"
    small.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    small.parameters = np.zeros(small.n_parameters)
    with pytest.raises(PacehpcError, match="No space left"):
        small.save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["x.yaml"]


def test_elements_that_yaml_takes_for_booleans(section, tmp_path):
    potential = build_potential(section(["Y", "No"]))
    potential.save(tmp_path / "x.yaml")
    same(Potential.load(tmp_path / "x.yaml"), potential)
    same(without_fast_path((tmp_path / "x.yaml").read_text()), potential)


def test_a_bond_without_functions_is_kept(section, tmp_path):
    functions = {"UNARY": {"nradmax_by_orders": [2], "lmax_by_orders": [0]}}
    potential = build_potential(section(["Al", "Ni"], functions))
    potential.save(tmp_path / "x.yaml")
    same(Potential.load(tmp_path / "x.yaml"), potential)


def test_defaults_when_keys_are_absent(alloy):
    keys = ("rho_core_cut", "drho_core_cut", "r_in", "delta_in", "inner_cutoff_type", "core-repulsion")
    lines = [line for line in alloy.splitlines() if line.strip().split(":")[0] not in keys]
    potential = parse_bbasis("\n".join(line for line in lines if "DeltaSpline" not in line).replace("global:", ""))
    assert {(e.rho_core_cut, e.drho_core_cut) for e in potential.embeddings.values()} == {(1e5, 250.0)}
    for bond in potential.bonds.values():
        assert (bond.r_in, bond.delta_in, bond.inner_cutoff_type) == (0, 0, "density")
        assert bond.core_repulsion == (0, 0)
    assert potential.delta_spline_bins == 0.001


def test_one_order_of_a_bond_may_leave_out_its_radial_part(alloy):
    potential = parse_bbasis(alloy)
    for removed in ("Al Ni", "Ni Al"):
        head, tail = alloy.split(f"speciesblock: {removed}\n")
        tail = tail[tail.index("    nbody:") :]
        same(parse_bbasis(head + f"speciesblock: {removed}\n" + tail), potential)


def test_old_flat_radial_coefficients(alloy):
    potential = parse_bbasis(alloy)
    lines = alloy.splitlines()
    for i, line in enumerate(lines):
        if "radcoefficients" in line:
            c = np.array(loads_yaml(line.split(": ", 1)[1], ""))
            flat = [c[n, l, k] for k in range(c.shape[2]) for n in range(c.shape[0]) for l in range(c.shape[1])]
            lines[i] = f"    radcoefficients: {[float(x) for x in flat]}"
    same(parse_bbasis("\n".join(lines)), potential)


def test_last_intermediate_l_may_be_left_out(small):
    text = format_bbasis(small)
    shorter = text
    for block in small.blocks:
        for function in block.functions:
            if function.LS:
                full = f"nl: {list(function.ls)}, lint: {list(function.LS)}"
                shorter = shorter.replace(full, f"nl: {list(function.ls)}, lint: {list(function.LS[:-1])}")
    assert shorter != text
    same(parse_bbasis(shorter), small)
    same(parse_bbasis(shorter.replace(", lint: []", "")), small)


def test_blocks_in_any_order_and_skipped_functions(small):
    head, *blocks = format_bbasis(small).split("  - speciesblock")
    same(parse_bbasis("  - speciesblock".join([head, *blocks[::-1]])), small)
    line = "      - {type: Al Al, nr: [2], nl: [0], c: [1, 2], skip: true}\n"
    text = format_bbasis(small).replace("    nbody:\n", "    nbody:\n" + line, 1)
    same(parse_bbasis(text), small)


def test_function_lines_in_a_text_are_not_functions(small):
    small.metadata = {"note": "x"}
    line = "- {type: Al Al, nr: [1], nl: [0], c: [0, 0]}"
    text = format_bbasis(small).replace("note: x", f"note: |\n    {line}")
    assert parse_bbasis(text).metadata["note"].strip() == line


def test_old_name_of_the_bessel_basis(golden):
    text = (golden / "potentials" / "ni_sbessel.yaml").read_text()
    same(parse_bbasis(text.replace("radbase: SBessel", "radbase: TEST_SBessel")), parse_bbasis(text))


FUNCTION = "{type: Al Al, nr: [1], nl: [0], c: ["


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("species:", "specis:", "did you mean 'species'"),
        ("    npoti:", "    npotj:", "speciesblock 'Al': unknown key 'npotj'; did you mean 'npoti'"),
        ("ndensityi: 2", "ndensityi: 3", "ndensity 3 needs 6 parameters"),
        ("ndensityi: 2", "ndensityi: 2.5", "ndensityi: 2.5 is not an integer"),
        ("npoti: FinnisSinclairShiftedScaled", "npoti: Finis", "unknown embedding 'Finis'"),
        ("parameters: [1, 1, 1, 0.5]", "parameters: [1, 1, 1, .nan]", "nan is not a finite number"),
        ("parameters: [1, 1, 1, 0.5]", "parameters: [1, 1, 1, 0]", "must be positive"),
        ("rcutij: 5", "rcutij: -5", "bond Al Al: rcut is -5"),
        ("rcutij: 5", "rcutij: five", "rcutij: expected a finite number, got 'five'"),
        ("    rcutij: 5\n", "", "'Al': rcutij is missing"),
        ("NameOfCutoffFunctionij: cos", "NameOfCutoffFunctionij: poly", "only cos"),
        ("radbase: ChebExpCos", "radbase: Cheb", "unknown radbase 'Cheb'"),
        ("radparameters: [5.25]", "radparameters: []", "positive number in radparameters"),
        ("inner_cutoff_type: distance", "inner_cutoff_type: density", "same inner_cutoff_type"),
        ("core-repulsion: [50, 1.5]", "core-repulsion: [50]", "core-repulsion needs two numbers"),
        ("nradmaxi: 3", "nradmaxi: 2", "radcoefficients: the lists are not of shape"),
        ("radcoefficients: [[[", "radcoefficients: [[[7, ", "radcoefficients: the lists are not of shape"),
        ("radcoefficients: [[[1", "radcoefficients: [[[x1", "is not a finite number"),
        ("speciesblock: Al\n", "speciesblock: Xx\n", "'Xx' is not a chemical element"),
        ("speciesblock: Ni Al", "speciesblock: Al Ni", "given twice"),
        ("speciesblock: Ni Al", "speciesblock: Ni Al Al", "given twice"),
        (FUNCTION, "{type: Al Ni, nr: [1], nl: [0], c: [", "function 1 .*does not belong to this block"),
        (FUNCTION, "{type: Al Al, nr: [7], nl: [0], c: [", "bond Al Al: nradbase is 6.*needs 7"),
        (FUNCTION, "{type: Al Al, nr: [0], nl: [0], c: [", "nr counts from 1"),
        (FUNCTION, "{type: Al Al, nr: [2], nl: [0], c: [", "given twice: type Al Al, nr .2."),
        (FUNCTION, "{type: Al Al, nr: [1], nl: [1], c: [", "cannot be coupled"),
        (FUNCTION, "{type: Al Al, nr: [1, 1], nl: [0], c: [", "need 1 numbers"),
        (FUNCTION, FUNCTION + "0, ", "c has 3 numbers, but Al has ndensityi 2"),
        (FUNCTION, FUNCTION + ".inf, ", "c: inf is not a finite number"),
        (FUNCTION, FUNCTION + "1e999, ", "c: inf is not a finite number"),
        (FUNCTION, "{typ: Al Al, nr: [1], nl: [0], c: [", "function 1: .*unknown key 'typ'"),
        ("nl: [0, 1, 1], lint: [1]", "nl: [0, 1, 1], lint: [2]", "cannot be coupled"),
        ("nl: [0, 0, 0], lint: [0]", "nl: [0, 0, 3], lint: [3]", "cannot be coupled"),
        ("    nbody:", "    nbody: 3\n    nbodx:", "unknown key 'nbodx'"),
        ("DeltaSplineBins: 0.0001", "DeltaSplineBins: 0", "deltaSplineBins is 0"),
        ("  comment: ", "  comment: [1]\n  x: ", "metadata.comment"),
        ("species:\n", "species: []\nmetadatb:\n", "unknown key 'metadatb'"),
        ("species:\n", "species: {}\n", "not valid YAML|expected a list"),
    ],
)
def test_refused(alloy, old, new, message):
    assert old in alloy
    with pytest.raises(PacehpcError, match=message) as error:
        parse_bbasis(alloy.replace(old, new, 1), "p.yaml")
    assert str(error.value).startswith("p.yaml")


def test_missing_blocks(alloy, small):
    head, *blocks = alloy.split("  - speciesblock")
    with pytest.raises(PacehpcError, match="speciesblock 'Ni': this block is missing"):
        parse_bbasis("  - speciesblock".join([head, *blocks[:2], blocks[3]]))
    with pytest.raises(PacehpcError, match="radial part of the bond Al Ni is missing"):
        parse_bbasis("  - speciesblock".join([head, blocks[0], blocks[2]]))


def test_both_orders_of_a_bond_must_agree(alloy):
    head, tail = alloy.split("speciesblock: Ni Al\n")
    with pytest.raises(PacehpcError, match=r"'Ni Al': rcut is 5\.25, but 5\.5 in 'Al Ni'"):
        parse_bbasis(head + "speciesblock: Ni Al\n" + tail.replace("rcutij: 5.5", "rcutij: 5.25"))
    with pytest.raises(PacehpcError, match="'Ni Al': radcoefficients differ"):
        parse_bbasis(head + "speciesblock: Ni Al\n" + tail.replace("radcoefficients: [[[1.", "radcoefficients: [[[2."))


@pytest.mark.parametrize(
    "text", ["", "3", "[]", "species:", "species: [3]", "a: b: c", "species: [{speciesblock: [Al]}]"]
)
def test_not_a_potential(text):
    with pytest.raises(PacehpcError, match=r"^x\.yaml"):
        parse_bbasis(text, "x.yaml")


def test_unreadable_files(tmp_path):
    with pytest.raises(PacehpcError, match=r"none\.yaml: cannot be read"):
        Potential.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(PacehpcError, match="not UTF-8"):
        Potential.load(tmp_path / "binary.yaml")


def test_not_finite_coefficients_are_not_exported(small, tmp_path):
    vector = small.parameters
    vector[-1] = np.nan
    small.parameters = vector
    with pytest.raises(PacehpcError, match="not finite"):
        export_yace(small, tmp_path / "x.yace")
    small.bonds["Al", "Ni"] = replace(small.bonds["Al", "Ni"], rcut=np.inf)
    with pytest.raises(PacehpcError, match="finite"):
        small.check("x")


def test_lines_of_functions_do_not_go_through_the_yaml_loader(section, tmp_path, monkeypatch):
    """55,360 functions: enumerate, write, read. The loader, a hundred times slower, sees a small part of the file."""
    seen = []
    loader = bbasis_yaml.loads_yaml
    monkeypatch.setattr(bbasis_yaml, "loads_yaml", lambda text, name: seen.append(len(text)) or loader(text, name))
    orders = {"nradmax_by_orders": [15, 3, 3, 2, 1], "lmax_by_orders": [0, 2, 2, 1, 1]}
    large = {"nradmax_by_orders": [15, 3, 2, 1, 1], "lmax_by_orders": [0, 2, 2, 1, 1]}
    functions = {"ALL": orders, "QUATERNARY": large, "QUINARY": large}
    potential = build_potential(section(["Co", "Cr", "Fe", "Mn", "Ni"], functions))
    potential.parameters = np.random.default_rng(0).normal(size=potential.n_parameters)
    potential.save(tmp_path / "x.yaml")
    again = Potential.load(tmp_path / "x.yaml")
    assert len(seen) == 1 and seen[0] < (tmp_path / "x.yaml").stat().st_size / 20
    assert (potential.n_functions, potential.n_parameters) == (55360, 112745)
    same(again, potential)
