"""Numbers that stand both in the kernels' sources and in Python: enums, constants, sizes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pacehpc import metrics
from pacehpc.backends import cpu, cuda, program, tables
from pacehpc.backends.compile import kernel_folder
from pacehpc.backends.records import record
from pacehpc.physics import core, parameters
from pacehpc.structures import VOIGT


def text_of(name: str) -> str:
    """A source of the kernels without comments."""
    return re.sub(r"//[^\n]*", "", (kernel_folder() / name).read_text(encoding="utf-8"))


def enumerators(name: str, enum: str) -> dict[str, int]:
    """The numbers of an enum of a source, by C's rules."""
    body = re.search(rf"enum (?:class )?{enum}(?: : \w+)? \{{(.*?)\}}", text_of(name), re.S)[1]
    found: dict[str, int] = {}
    following = 0
    for item in filter(None, (part.strip() for part in body.split(","))):
        key, _, value = (part.strip() for part in item.partition("="))
        found[key] = following = found.get(value, following) if not value.isdigit() else int(value)
        following += 1
    return found


def macro(name: str, key: str) -> str:
    """What a macro of a source stands for."""
    return re.search(rf"^#define {key} (.*)$", text_of(name), re.M)[1].strip()


@pytest.mark.parametrize("enum", ["Family", "InnerCutoff", "CoreKind", "EmbeddingKind"])
def test_kinds_have_the_numbers_of_the_physics(enum):
    expected = {member.name: int(member) for member in getattr(parameters, enum)}
    assert enumerators("problem.h", enum) == expected


def test_records_hold_kinds_as_integers():
    fields = record("BondType").fields
    assert {fields[name][0] for name in ("family", "inner", "core_kind")} == {np.dtype(np.int64)}
    assert fields["rcut"][0] == np.float64


def test_items_of_a_bond_record():
    items = enumerators("problem.h", "BondItem")
    assert items.pop("BOND_RECORD") == tables.BOND_RECORD == len(items)
    assert [items[name] for name in ("UX", "UY", "UZ")] == [0, 1, 2]


def test_components_of_virials():
    """In the order of `VOIGT`, which takes them out of 3 × 3 matrices."""
    order = ["XYZ"[a] + "XYZ"[b] for a, b in zip(*VOIGT, strict=True)]
    assert list(enumerators("problem.h", "Voigt")) == order


def test_terms_of_the_metrics():
    terms = enumerators("evaluate.cu", "Term")
    assert terms.pop("N_TERMS") == cuda.N_TERMS and terms.pop("N_COLUMNS") == cuda.N_TERMS + cuda.N_MAXIMA
    names = [*metrics.TERMS, *metrics.MAXIMA[:-1]]
    assert terms == {name.upper(): k for k, name in enumerate(names)}


def test_stages_of_the_clock():
    stages = enumerators("tile.h", "Stage")
    assert stages.pop("N_STAGES") == len(cpu.STAGES)
    assert [name.lower().replace("_", " ") for name in stages] == [
        "base" if name == "atomic base" else name for name in cpu.STAGES
    ]


def test_constants_of_the_physics():
    assert float(macro("bonds.h", "PI")) == np.pi
    assert float(macro("bonds.h", "COULOMB")) == core.COULOMB
    numbers = [float(x) for x in re.findall(r"[\d.]+", macro("bonds.h", "SCREENING"))]
    np.testing.assert_array_equal(np.reshape(numbers, (-1, 2)), core.SCREENING)


def test_sizes():
    assert int(macro("bond_forces.h", "FORCE_WARPS")) == cuda.FORCE_WARPS
    assert int(macro("program.h", "PACE_INTERFACE")) == program.INTERFACE
