"""Kernels must not need more instructions than they did: a slip of the compiler shows without timing anything."""

from __future__ import annotations

import json
import shutil

import instructions
import pytest
from environments import cannot_run

from pacehpc.backends import compile as building


def test_instructions_of_each_stage(monkeypatch):
    macros = building.macros(building.compiler(), "native")
    if "__AVX2__" not in macros or "__FMA__" not in macros:
        pytest.skip("this processor lacks AVX2")
    if shutil.which("valgrind") is None:
        cannot_run("needs valgrind (apt-get install valgrind)")
    monkeypatch.setenv("PACEHPC_MARCH", instructions.MARCH)
    version = instructions.compiler_version()
    baseline = json.loads(instructions.BASELINE.read_text())
    if version not in baseline:
        pytest.skip(f"no baseline for {version}: python tests/guard/instructions.py --write makes one")
    changed = instructions.differences(instructions.count_instructions(), baseline[version])
    assert not changed, "\n".join(
        [*changed, "If this is meant: python tests/guard/instructions.py --write, and commit baseline.json."]
    )


def test_differences():
    before = {"couple": 1000, "gone": 10, "same": 100}
    lines = instructions.differences({"couple": 1051, "new": 1, "same": 104}, before)
    assert lines == ["couple: 1000 → 1051 instructions (+5.1 %)", "gone: gone", "new: new"]
    assert instructions.differences({"couple": 949}, {"couple": 1000}) == ["couple: 1000 → 949 instructions (-5.1 %)"]


def test_stages_are_found_in_a_listing():
    listing = """Ir
    10,000 (100.0%)  PROGRAM TOTALS
     9,000  ???:evaluate [/cache/evaluate-1.so]
     3,000  ???:couple(ElementTable const&, double*) [/cache/evaluate-1.so]
       300  ???:void gradient_by_right_nodes<(SumsOverAtoms)0>(RightTable const&) [/cache/evaluate-1.so]
       500  ???:couple_tangent(ElementTable const&) [clone .constprop.0] [/cache/evaluate-1.so]
       200  ???:void add_bond_forces<6, 4>(Problem const&, long) [/cache/evaluate-1.so]
       100  ???:void add_bond_forces<5, 4>(Problem const&, long) [/cache/evaluate-1.so]
         7  ???:decouple(int) [/lib/other.so]
"""
    assert instructions.by_stage(listing) == {
        "add_bond_forces": 300,
        "couple": 3000,
        "couple_tangent": 500,
        "evaluate": 9000,
        "gradient_by_right_nodes": 300,
    }
