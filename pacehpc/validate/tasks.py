"""What a validation computes: a list of properties of crystals and pairs of elements, shared out over ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator

from pacehpc.errors import PacehpcError
from pacehpc.validate import properties

log = logging.getLogger("pacehpc")

PROPERTIES = ("eos", "elastic", "phonons", "vacancy", "surfaces", "dynamics", "dimers")
"""Besides lattice constants, which all others need."""

MakeCalculator = Callable[[], Calculator]


@dataclass
class Validation:
    """Results by crystal or pair.

    Args:
        values: numbers by property.
        curves: energies against volumes or distances, by the curve's name.
        failures: why a property could not be computed.
    """

    values: dict[str, dict[str, float]] = field(default_factory=dict)
    curves: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, label: str, name: str, found: Any, failure: str | None) -> None:
        """Record what a task has found."""
        if failure is not None:
            self.failures.setdefault(label, {})[name] = failure
            return
        values, curve = found
        self.values.setdefault(label, {}).update(values)
        if curve:
            self.curves.setdefault(label, {})[name] = curve


def validate(
    crystals: dict[str, Atoms],
    elements: Sequence[str],
    make_calculator: MakeCalculator,
    cutoff: float,
    wanted: Sequence[str] = PROPERTIES,
    share: Callable[[list[Callable[[], Any]]], list[Any]] | None = None,
) -> Validation:
    """Compute the wanted properties.

    Args:
        crystals: by label.
        elements: whose pairs are scanned as dimers.
        make_calculator: returns a calculator of the potential.
        cutoff: longest distance of dimers, Å.
        wanted: some of `PROPERTIES`.
        share: runs a list of tasks, on several ranks, and returns their results in order on every rank; None: here.
    """
    share = share or (lambda tasks: [task() for task in tasks])
    validation, relaxed = Validation(), {}
    found = share([_guarded(lambda a=a: _relaxed(a, make_calculator())) for a in crystals.values()])
    for label, (result, failure) in zip(crystals, found, strict=True):
        validation.add(label, "equilibrium", None if result is None else (result[1], None), failure)
        if result is not None:
            relaxed[label] = result[0]
    jobs = [(label, name, task) for label, atoms in relaxed.items() for name, task in _of_crystal(atoms, wanted)]
    if "dimers" in wanted:
        for pair in combinations_with_replacement(elements, 2):
            jobs.append((f"{pair[0]}-{pair[1]}", "dimer", lambda c, p=pair: properties.dimer(p, c, cutoff)))
    results = share([_guarded(lambda t=task: t(make_calculator())) for *_, task in jobs])
    for (label, name, _), (result, failure) in zip(jobs, results, strict=True):
        validation.add(label, name, result, failure)
    return validation


def _relaxed(atoms: Atoms, calculator: Calculator) -> tuple[Atoms, dict[str, float]]:
    """A crystal without its calculator, which could not travel between ranks, and its properties."""
    relaxed, found = properties.equilibrium(atoms, calculator)
    return Atoms(relaxed.numbers, positions=relaxed.positions, cell=relaxed.cell, pbc=True), found


def _of_crystal(atoms: Atoms, wanted: Sequence[str]) -> list[tuple[str, Callable[[Calculator], tuple]]]:
    def with_energy(calculator: Calculator) -> Atoms:
        copy = atoms.copy()
        copy.calc = calculator
        return copy

    tasks = {
        "eos": lambda c: properties.equation_of_state(atoms, c),
        "elastic": lambda c: (properties.elastic_constants(atoms, c), None),
        "phonons": lambda c: (properties.phonons(atoms, c), None),
        "dynamics": lambda c: (properties.dynamics(atoms, c), None),
    }
    if len(set(atoms.numbers.tolist())) == 1:  # else the energies depend on chemical potentials
        tasks["vacancy"] = lambda c: (properties.vacancy(atoms, c), None)
        tasks["surfaces"] = lambda c: (properties.surfaces(with_energy(c), c), None)
    return [(name, tasks[name]) for name in PROPERTIES if name in wanted and name in tasks]


def _guarded(task: Callable[[], Any]) -> Callable[[], tuple[Any, str | None]]:
    """A task whose failure is a result: one crystal that does not relax must not end the others."""

    def run() -> tuple[Any, str | None]:
        try:
            return task(), None
        except (PacehpcError, RuntimeError, ValueError, ArithmeticError) as error:
            return None, str(error) or type(error).__name__

    return run
