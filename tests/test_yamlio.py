"""The YAML reader: values by YAML 1.2, errors with file, line and what to do."""

from __future__ import annotations

import math

import pytest

from pacehpc.errors import PacehpcError
from pacehpc.yamlio import dumps_yaml, load_yaml, loads_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-7", 5e-7),
        ("1e-8", 1e-8),
        ("1e3", 1000.0),
        ("-1E+2", -100.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("12", 12),
        ("-0x1F", "-0x1F"),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("No", "No"),
        ("Y", "Y"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"true"', "true"),
        (".inf", math.inf),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("e5", "e5"),
        (".", "."),
        ("1e", "1e"),
    ],
)
def test_scalars(text, value):
    result = loads_yaml(f"a: {text}")["a"]
    assert result == value and type(result) is type(value)


def test_nan():
    assert math.isnan(loads_yaml("[.nan]")[0])


def test_list_keys_become_tuples():
    assert loads_yaml("[0, 1]: {rcut: 5}\n[[0], 1]: 2\n") == {(0, 1): {"rcut": 5}, ((0,), 1): 2}


def test_empty_text_is_none():
    assert loads_yaml("# nothing\n") is None


def test_merge_keys_and_aliases_are_copies():
    data = loads_yaml("a: &a {x: 1, y: [2]}\nb: {<<: *a, x: 5}\nc: *a\n")
    assert data == {"a": {"x": 1, "y": [2]}, "b": {"x": 5, "y": [2]}, "c": {"x": 1, "y": [2]}}
    data["c"]["y"].append(3)
    assert data["a"]["y"] == [2]


def test_lines():
    lines = {}
    loads_yaml("fit:\n  loss: {kappa: 1,\n    b: [1,\n 2]}\n", lines=lines)
    assert lines == {
        ("fit",): 1,
        ("fit", "loss"): 2,
        ("fit", "loss", "kappa"): 2,
        ("fit", "loss", "b"): 3,
        ("fit", "loss", "b", 0): 3,
        ("fit", "loss", "b", 1): 4,
    }


def bomb() -> str:
    text, last = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n", "a"
    for name in "bcdefghij":
        text += f"{name}: &{name} [{', '.join(['*' + last] * 9)}]\n"
        last = name
    return text


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, "key `c` is given twice (before in line 3)"),
        ("a: {c: 1,\n 'c': 2}\n", 2, "key `c` is given twice"),
        ("[0, 1]: 1\n[0, 1]: 2\n", 2, "key `[0, 1]` is given twice"),
        ("a: [1, 2\nb: 3\n", 2, "expected ',' or ']'"),
        ("a:\n\tb: 1\n", 2, "blanks instead of tabs"),
        ("a: b: c\n", 1, "quote text that contains `: `"),
        ("? {a: 1}\n: 2\n", 1, "cannot be a key"),
        ("b: 1\na: *q\n", 2, "refers to no earlier `&q`"),
        ("a: &a [*a]\n", 1, "inside its own value"),
        ("a: !!python/object/apply:os.system ['ls']\n", 1, "cannot be used here; remove it"),
        ("a: !own x\n", 1, "tag `!own`"),
        ("a: !!float x\n", 1, "tag `!!float`"),
        ("--- 1\n--- 2\n", 2, "one document per file"),
        ("a:\n " + "[" * 500, 2, "nested more than 100 levels"),
        ("a: " + "9" * 5000, 1, "5000 digits"),
        (bomb(), 6, "write the values out"),
        ("a: {<<: 3}\n", 1, "`<<` takes a mapping"),
    ],
)
def test_errors_name_file_line_and_remedy(text, line, words):
    with pytest.raises(PacehpcError) as error:
        loads_yaml(text, "in.yaml")
    assert str(error.value).startswith(f"in.yaml, line {line}")
    assert words in str(error.value)


def test_files(tmp_path):
    with pytest.raises(PacehpcError, match=r"absent\.yaml: cannot be read"):
        load_yaml(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"a: 1\nb: \xff\xfe\n")
    with pytest.raises(PacehpcError, match=r"binary\.yaml, line 2: not UTF-8"):
        load_yaml(tmp_path / "binary.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfname: K\xc3\xb6ln\n")
    assert load_yaml(tmp_path / "bom.yaml") == {"name": "Köln"}


def test_written_text_is_read_as_the_same_data():
    data = {"a": ["1e-8", "0o7", "No", "true", "1", "", "x: y", ".5", "~"], "b": {"c": 1e-8, "d": [True, None, 3, 2.5]}}
    assert loads_yaml(dumps_yaml(data)) == data
