"""`pacehpc --template`: an input file to start from, made for the data at hand."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from pacehpc.dataset.database import isolated_atoms
from pacehpc.dataset.dataset import Dataset
from pacehpc.dataset.loading import read_raw
from pacehpc.errors import PacehpcError
from pacehpc.utilities.command import add_reading_options, command, keys_of, spread_options
from pacehpc.utilities.data import shortest_distances

# Largest n and l by body order. Beyond two elements, blocks of many elements would hold far more than can be kept.
ORDERS = {
    1: ([15, 6, 4, 3, 2, 2], [0, 3, 3, 2, 2, 1]),
    2: ([15, 6, 4, 3, 2], [0, 3, 3, 2, 1]),
    3: ([15, 4, 3, 2], [0, 3, 2, 1]),
}
FEW_STRUCTURES = 40  # too few to set some aside for a test
HIGH_ENERGY = 1.0  # eV/atom above the lowest: such data are worth weights by energy
POLICIES = ("auto", "uniform", "energy")
BFGS_LIMIT = 3000  # parameters up to which the matrix of GN-BFGS is cheap


@dataclass
class Choices:
    """What the user decides."""

    data: list[str]
    elements: str = "auto"
    cutoff: float = 7.0
    functions: int = 700
    weighting: str = "auto"
    test_size: float | None = None
    test_data: list[str] = field(default_factory=list)
    stress_units: str = "eV/A3"
    keys: dict[str, str] = field(default_factory=dict)
    free_atoms: dict[str, float] = field(default_factory=dict)


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc --template",
        description="Write an input file for your data. What is not given is asked for, where this is a terminal.",
    )
    p.add_argument("-d", "--data", nargs="+", metavar="FILE", help="data to fit")
    p.add_argument("--elements", help="such as AlNi or Al,Ni; auto: those in the data")
    p.add_argument("--cutoff", type=float, help="Å; default: 7")
    p.add_argument("--functions", type=int, help="number of functions per element; default: 700")
    p.add_argument("--weighting", choices=POLICIES, help="auto: by energy where energies are high")
    tests = p.add_mutually_exclusive_group()
    tests.add_argument(
        "--test-size", type=float, help="fraction set aside as test data; default: 0.05 of many structures"
    )
    tests.add_argument("--test-data", nargs="+", metavar="FILE", help="separate data to test on")
    p.add_argument(
        "--free-atoms", nargs="+", default=[], metavar="ELEMENT=eV",
        help="energies of free atoms with the settings of the data, such as Al=-0.21; default: those in the data",
    )  # fmt: skip
    add_reading_options(p)
    p.add_argument("-o", "--output", default="input.yaml", help="default: %(default)s")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    arguments = parser().parse_args(spread_options(sys.argv[1:] if argv is None else argv))
    logging.getLogger("pacehpc").setLevel(logging.WARNING)
    output = Path(arguments.output)
    if output.exists():
        raise PacehpcError(f"{output} exists already; name another file with -o, or remove it.")
    choices = _choices(arguments)
    data = read_raw(choices.data, stress_units=choices.stress_units, keys=choices.keys)
    if choices.test_data:
        _check_test_data(data, read_raw(choices.test_data, stress_units=choices.stress_units, keys=choices.keys))
    _ask_for_free_atoms(choices, data)
    text = template(choices, data)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise PacehpcError(f"{output}: cannot be written ({problem.strerror}).") from None
    print(f"{output} is written. `pacehpc --dry-run {output}` checks it, `mpirun -n 4 pacehpc {output}` fits.")
    return 0


def _choices(arguments: argparse.Namespace) -> Choices:
    """From the options; the others by asking on a terminal, else by default."""
    given = {k: v for k in ("data", "elements", "cutoff", "functions", "weighting", "test_size", "test_data")
             if (v := getattr(arguments, k)) is not None}  # fmt: skip
    given |= {"stress_units": arguments.stress_units, "keys": keys_of(arguments.keys)}
    given["free_atoms"] = _energies(arguments.free_atoms)
    if "data" not in given:
        if not sys.stdin.isatty():
            raise PacehpcError("--template: name the data, such as `pacehpc -t --data data.pckl.gzip --cutoff 7`.")
        given["data"] = _ask("Data file(s)", " ".join(_data_here()[:1])).split()
    if sys.stdin.isatty():
        for name, question, kind in (
            ("elements", "Elements (auto: those in the data)", str),
            ("cutoff", "Cutoff, Å", float),
            ("functions", "Functions per element", int),
            ("weighting", "Weights: uniform, energy or auto", _policy),
        ):
            while name not in given:
                try:
                    given[name] = kind(_ask(question, str(getattr(Choices, name))))
                except ValueError:
                    print("Please give a number." if kind is not _policy else f"Please give {', '.join(POLICIES)}.")
    return Choices(**given)


def _check_test_data(data: Dataset, test: Dataset) -> None:
    """Raise for elements that only the test data have."""
    if unknown := sorted(set(test.elements) - set(data.elements)):
        raise PacehpcError(f"--test-data: {', '.join(unknown)} is not in the data to fit; leave these structures out.")


def _energies(pairs: Sequence[str]) -> dict[str, float]:
    """{element: eV} of `Al=-0.2` and the like."""
    found = {}
    for pair in pairs:
        element, _, energy = pair.partition("=")
        try:
            found[element] = float(energy)
        except ValueError:
            raise PacehpcError(f"--free-atoms: {pair!r} is not ELEMENT=eV, such as Al=-0.21.") from None
        if element not in chemical_symbols[1:]:
            raise PacehpcError(f"--free-atoms: {element!r} is no element.")
    return found


def _ask_for_free_atoms(choices: Choices, data: Dataset) -> None:
    """On a terminal, energies of the free atoms that neither the data nor the options have; Enter leaves one out."""
    if not sys.stdin.isatty() or np.isfinite(data.energy_corrected).all():
        return
    for element in data.elements:
        while element not in choices.free_atoms and element not in isolated_atoms(data):
            answer = _ask(f"Energy of a free {element} atom with the settings of the data, eV (Enter: not known)", "")
            if not answer:
                break
            try:
                choices.free_atoms[element] = float(answer)
            except ValueError:
                print("Please give a number.")


def _data_here() -> list[str]:
    """Names in this folder that look like data, those that runs write left out."""
    from pacehpc.utilities.clean import patterns

    looks = re.compile(r"\.(pckl|pkl|xyz|extxyz|db|h5)")
    names = sorted(path.name for path in Path(".").iterdir() if looks.search(path.name))
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in patterns([]))]


def _policy(text: str) -> str:
    if text not in POLICIES:
        raise ValueError(text)
    return text


def _ask(question: str, default: str) -> str:
    try:
        return input(f"{question} [{default}]: ").strip() or default
    except EOFError:
        return default


def template(choices: Choices, data: Dataset) -> str:
    """The text of an input file.

    Raises:
        PacehpcError: choices that do not fit the data.
    """
    elements = _elements(choices.elements, data)
    if not 1.0 < choices.cutoff <= 30.0:
        raise PacehpcError(f"--cutoff: {choices.cutoff:g} Å is not between 1 and 30.")
    if choices.functions < 1:
        raise PacehpcError(f"--functions: {choices.functions} is less than 1.")
    if choices.weighting not in POLICIES:
        raise PacehpcError(f"--weighting: {choices.weighting!r} is none of auto, uniform, energy.")
    shortest = shortest_distances(data)
    if shortest and min(shortest.values()) >= choices.cutoff:
        raise PacehpcError(
            f"--cutoff: {choices.cutoff:g} Å is shorter than all distances in the data, "
            f"of which the smallest is {min(shortest.values()):.3f} Å."
        )
    n_atoms = data.atoms_per_structure
    nradmax, lmax = ORDERS[min(len(elements), 3)]
    close = ", ".join(f"{a}-{b} {d:.2f}" for (a, b), d in sorted(shortest.items())) or "none within 4 Å"
    n_parameters = 2 * choices.functions * len(elements)
    optimizer = "GN-BFGS" if n_parameters <= BFGS_LIMIT else "L-BFGS-B"
    return f"""\
# {len(data)} structures, {data.n_atoms} atoms ({n_atoms.min()} to {n_atoms.max()} in a structure).
# Shortest distances in Å: {close}.
# Lengths in Å, energies in eV. All keys: docs/input.md

cutoff: {choices.cutoff:g}  # nothing is seen beyond; time grows with its third power
seed: 42

data:
  filename: {_files(choices.data)}
{_names(choices)}{_reference(choices, data)}{_test(choices, data)}
potential:
  deltaSplineBins: 0.001
  elements: [{", ".join(map(_quoted, elements))}]

  embeddings:
    ALL:
      npot: FinnisSinclairShiftedScaled
      fs_parameters: [1, 1, 1, 0.5]  # E = rho_1 + sqrt(rho_2), about
      ndensity: 2

  bonds:
    ALL:
      radbase: SBessel
      radparameters: [5.25]
      rcut: {choices.cutoff:g}
      dcut: 0.01

  functions:
    number_of_functions_per_element: {choices.functions}  # the simplest of those below; more are better and slower
    ALL:
      nradmax_by_orders: {nradmax}  # radial functions of body order 2, 3, 4, ...
      lmax_by_orders: {lmax}

fit:
  loss:
    kappa: 0.3  # weight of forces against energies, from 0 to 1; auto: from their spread
    L1_coeffs: 1e-8
    L2_coeffs: 1e-8
{_stress(data)}{_weighting(choices, data)}  optimizer: {optimizer}  # GN-BFGS: few iterations; L-BFGS-B: no large matrix
  maxiter: 2000
  # ladder_step: [10, 0.02]  # grow the basis in steps: at least 10 functions, or 2 %
  # repulsion: auto  # after the fit, ZBL repulsion below the shortest distances

backend:
  evaluator: auto  # a GPU where there is one
  display_step: 50
"""


def _elements(given: str, data: Dataset) -> list[str]:
    if given == "auto":
        return list(data.elements)
    parts = re.findall(r"[A-Z][a-z]?", given)
    if re.sub(r"[\s,\[\]]", "", given) != "".join(parts) or not set(parts) <= set(chemical_symbols[1:]) or not parts:
        raise PacehpcError(f"--elements: {given!r} is no list of elements such as AlNi or Al,Ni, nor auto.")
    missing = sorted(set(data.elements) - set(parts))
    if missing:
        raise PacehpcError(f"--elements: the data hold {', '.join(missing)} as well; add it, or use auto.")
    return sorted(set(parts))


def _quoted(element: str) -> str:
    """Other YAML readers take these symbols for truth values."""
    return f'"{element}"' if element in ("No", "Y", "N") else element


def _files(names: list[str]) -> str:
    return json.dumps(names if len(names) > 1 else names[0], ensure_ascii=False)


def _names(choices: Choices) -> str:
    """What the files call their columns, and units of the stress, where they are not the usual ones."""
    keys = ", ".join(f"{column}: {json.dumps(name, ensure_ascii=False)}" for column, name in choices.keys.items())
    units = f"  stress_units: {choices.stress_units}\n" if choices.stress_units != "eV/A3" else ""
    return (f"  keys: {{{keys}}}  # names in the files\n" if keys else "") + units


def _stress(data: Dataset) -> str:
    """The weight of the stress, where the data have any."""
    if data.stress is None:
        return ""
    known = np.count_nonzero(np.isfinite(data.stress).all(axis=1) & (data.volumes > 0))
    return f"    stress: 0.1  # weight of the stresses of {known} structures; 0 leaves them out\n" if known else ""


def _reference(choices: Choices, data: Dataset) -> str:
    if np.isfinite(data.energy_corrected).all():
        return "  # the data have energy_corrected: energies without those of free atoms\n"
    if data.energy is None:
        raise PacehpcError("Some structures have neither 'energy' nor 'energy_corrected'.")
    single = isolated_atoms(data) | choices.free_atoms
    missing = [element for element in data.elements if element not in single]
    if not missing:
        energies = ", ".join(f"{_quoted(e)}: {single[e]!r}" for e in data.elements)
        where = "" if choices.free_atoms else " in the data"
        return f"  reference_energy: {{{energies}}}  # eV, of the free atoms{where}\n"
    wanted = ", ".join(f"{_quoted(e)}: {repr(single[e]) if e in single else '...'}" for e in data.elements)
    return f"""\
  # Free atoms of {", ".join(missing)} are not in the data. Compute each alone in a large box, with the settings of the
  # data, and give the energies in eV instead of auto, which fits them and puts the least dense structure at zero:
  # reference_energy: {{{wanted}}}
  reference_energy: auto
"""


def _test(choices: Choices, data: Dataset) -> str:
    if choices.test_data:
        return f"  test_filename: {_files(choices.test_data)}\n"
    size = choices.test_size
    if size is None:
        size = 0.05 if len(data) >= FEW_STRUCTURES else 0.0
    if size == 0:
        return "  # test_size: 0.05  # structures set aside to judge the fit\n"
    if not 0 < size < 1 or not 0 < round(size * len(data)) < len(data):
        raise PacehpcError(f"--test-size: {size} of {len(data)} structures leaves no train or test set.")
    return f"  test_size: {size:g}  # structures set aside to judge the fit\n"


def _weighting(choices: Choices, data: Dataset) -> str:
    by_energy = choices.weighting == "energy"
    if choices.weighting == "auto" and "w_energy" not in data.extra:
        energies = (data.energy if data.energy is not None else data.energy_corrected) / data.atoms_per_structure
        by_energy = len(data.elements) == 1 and float(np.median(energies) - energies.min()) > HIGH_ENERGY
    if not by_energy:
        return "  # weighting: {type: EnergyBasedWeightingPolicy, DElow: 1.0, DEup: 10.0}  # low energies count more\n"
    return """\
  weighting:  # structures of low energy count more
    type: EnergyBasedWeightingPolicy
    DElow: 1.0  # eV/atom above the convex hull: the lower tier
    DEup: 10.0  # eV/atom: structures above are left out
    DE: 1.0
    DF: 1.0
    wlow: 0.75  # share of the lower tier
"""
