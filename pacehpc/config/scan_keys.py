"""The section `scan` of the input file: what `pacehpc scan` varies."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pacehpc.config.data_keys import TestSize
from pacehpc.potential.section import RadialBasis
from pacehpc.schema import kinds
from pacehpc.schema.kinds import choice, kind, shown
from pacehpc.schema.section import Section


def _range(item: Any, text: str) -> Any:
    """[smallest, largest], both of one kind."""
    check_item = kinds.checker(item)

    def check(value: Any) -> list:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"must be {text}, not {shown(value)}")
        low, high = map(check_item, value)
        if not low < high:
            raise ValueError(f"must be {text}, the smaller one first, not {shown(value)}")
        return [low, high]

    return kind(text, check, list)


CountRange = _range(kinds.Count, "[smallest, largest] whole numbers")
PositiveRange = _range(kinds.Positive, "[smallest, largest] numbers above 0")
KappaRange = _range(kinds.Fraction, "[smallest, largest] numbers above 0, at most 1")
Bases = kinds.list_of(RadialBasis, "list of radial bases", shortest=2)
ScanError = choice("both", "energy", "forces")
ChooseBy = choice("held_out", "test")


class Scan(Section):
    """What `pacehpc scan` varies, and how potentials are compared; a fit does not use it."""

    number_of_functions_per_element: CountRange | None = Field(
        None, description="range of the key of that name in potential.functions, on a logarithmic scale"
    )
    rcut: PositiveRange | None = Field(None, description="range of the cutoff of all bonds, Å")
    radbase: Bases | None = Field(None, description="radial bases to choose from, of all bonds")
    kappa: KappaRange | None = Field(None, description="range of fit.loss.kappa, on a logarithmic scale")
    trials: kinds.Count = Field(20, description="number of fits")
    error: ScanError = Field(
        "both", description="RMSE to make small: energy, forces, or both (the root of their product)"
    )
    choose_by: ChooseBy = Field(
        "held_out",
        description="held_out: errors of training structures that no trial fits; test: of the test set, which then "
        "says nothing independent of the chosen potential",
    )
    held_out: TestSize = Field(0.1, description="fraction or number of training structures that are held out")
