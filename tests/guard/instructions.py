"""Instructions of one small evaluation, stage by stage, counted by valgrind: the same on a busy machine.

    python tests/guard/instructions.py [--write]

shows them beside baseline.json, which --write brings up to date for this compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

from pacehpc import Potential
from pacehpc.backends import compile as building
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.dataset.neighbours import cutoff_matrix, find_neighbours
from pacehpc.potential import build_potential
from pacehpc.structures import Structures

HERE = Path(__file__).parent
BASELINE = HERE / "baseline.json"
MARCH = "x86-64-v3"  # the most that valgrind runs
TOLERANCE = 0.05
POTENTIAL = {
    "deltaSplineBins": 0.001,
    "elements": ["Al", "Ni"],
    "embeddings": {
        "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2},
    },
    "bonds": {"ALL": {"radbase": "ChebExpCos", "radparameters": [5.25], "rcut": 5.0, "dcut": 0.01}},
    "functions": {"ALL": {"nradmax_by_orders": [8, 3, 2, 1], "lmax_by_orders": [0, 3, 2, 1]}},
}


def compiler_version() -> str:
    """Name and version of the compiler, as baseline.json knows it."""
    macros = dict(re.findall(r"#define (\w+) (.*)", building.macros(building.compiler(), MARCH)))
    name = "clang++" if "__clang__" in macros else "g++"
    kind = "__clang_{}__" if name == "clang++" else "__GNUC{}__"
    parts = ("major", "minor", "patchlevel") if name == "clang++" else ("", "_MINOR", "_PATCHLEVEL")
    return f"{name} " + ".".join(macros[kind.format(part)] for part in parts)


def count_instructions() -> dict[str, int]:
    """Instructions of each stage, what it calls included, and of the whole evaluation."""
    os.environ["PACEHPC_MARCH"] = MARCH
    evaluator = make_evaluator()
    library, _ = building.compile_library(evaluator.shape.header(stress=False))
    with tempfile.TemporaryDirectory() as folder:
        driver, image, profile = (f"{folder}/{name}" for name in ("driver", "image", "profile"))
        subprocess.run([building.compiler(), "-x", "c", "-o", driver, HERE / "driver.c", "-ldl"], check=True)
        expected = write_image(evaluator, image)
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", driver, library, image]
        run = subprocess.run(command, capture_output=True, check=False)
        if run.returncode:
            raise RuntimeError(run.stderr.decode()[-2000:])
        offset, energies = expected
        result = np.frombuffer(run.stdout, float, len(energies), offset)
        np.testing.assert_allclose(result, energies, rtol=1e-12)  # it did what it should
        annotate = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--show-percs=no", profile]
        listing = subprocess.run(annotate, capture_output=True, text=True, check=True).stdout
    return by_stage(listing)


def by_stage(listing: str) -> dict[str, int]:
    """Sums over the lines of callgrind_annotate that name a stage of the kernels; templates count as one."""
    text = "".join(path.read_text() for path in sorted(building.kernel_folder().glob("*.h")))
    stages = [*re.findall(r"^STAGE \w+ (\w+)\(", text, re.M), "evaluate"]
    pattern = re.compile(rf"^\s*([\d,]+)\s.*?[:\s]({'|'.join(stages)})(?:<[^>]*>)?(?:\(| \[|$)")
    counts: dict[str, int] = {}
    for match in filter(None, map(pattern.match, listing.splitlines())):
        counts[match[2]] = counts.get(match[2], 0) + int(match[1].replace(",", ""))
    return dict(sorted(counts.items()))


def make_evaluator() -> CpuEvaluator:
    """Random coefficients on two rattled crystals and a gas of dimers; one evaluation has been made."""
    potential = build_potential(POTENTIAL)
    rng = np.random.default_rng(0)
    for block in potential.blocks:
        block.coefficients[:] = 1e-3 * rng.standard_normal(block.coefficients.shape)
    crystal = bulk("Al", cubic=True).repeat(2)
    crystal.numbers[::3] = 28
    frames = []
    for seed in range(2):
        crystal.rattle(0.02, seed=seed)
        frames.append(crystal.copy())
    # tiles of few neighbours, whose radial functions are made bond by bond
    places = [[20.0 * (k // 2) + 2.4 * (k % 2), 0.1 * k, 0] for k in range(32)]
    frames.append(Atoms(["Al", "Ni"] * 16, places, cell=[320, 20, 20]))
    evaluator = CpuEvaluator(
        potential, structures_of(potential, frames), LossWeights(kappa=0.3), EvaluatorOptions(threads=1)
    )
    evaluator.evaluate(potential.parameters)
    return evaluator


def structures_of(potential: Potential, frames: list[Atoms]) -> Structures:
    """Frames with zero targets."""
    counts = np.array([len(atoms) for atoms in frames])
    offsets = np.r_[0, np.cumsum(counts)]
    species = np.concatenate([[potential.elements.index(s) for s in atoms.symbols] for atoms in frames]).astype(
        np.int32
    )
    positions = np.concatenate([atoms.positions for atoms in frames])
    cells, pbc = np.array([atoms.cell.array for atoms in frames]), np.array([atoms.pbc for atoms in frames])
    neighbours, _ = find_neighbours(offsets, positions, cells, pbc, species, cutoff_matrix(potential))
    centre = np.repeat(np.arange(len(positions)), np.diff(neighbours.offsets))
    structure = np.repeat(np.arange(len(frames)), counts)[centre]
    shift = np.einsum("bi,bij->bj", neighbours.shift, cells[structure])
    return Structures(
        atom_offsets=offsets,
        species=species,
        bond_offsets=neighbours.offsets,
        bond_atom=neighbours.atom,
        bond_vector=positions[neighbours.atom] + shift - positions[centre],
        volumes=np.array([atoms.get_volume() for atoms in frames]),
        energy=np.zeros(len(frames)),
        forces=np.zeros((len(positions), 3)),
        w_energy=np.ones(len(frames)),
        w_forces=np.ones(len(positions)),
    )


def write_image(evaluator: CpuEvaluator, path: str) -> tuple[int, np.ndarray]:
    """Memory of an evaluator's Problem, for driver.c; where the energies of structures are, and what they are."""
    problem = evaluator._problem
    known = {array.ctypes.data: array for array in _arrays(vars(evaluator))}
    offsets, size = {}, 0
    for address, array in known.items():
        offsets[address] = size
        size += -(-array.nbytes // 64) * 64 + 64
    memory, pointers = bytearray(size), []
    for address, array in known.items():
        start = offsets[address]
        memory[start : start + array.nbytes] = array.tobytes()
        for place, target in _pointers(array):
            pointers.append(start + place)
            memory[start + place : start + place + 8] = offsets[target].to_bytes(8, "little")
    head = np.array([size, len(pointers), offsets[problem.ctypes.data], *pointers], np.int64)
    Path(path).write_bytes(head.tobytes() + memory)
    return offsets[int(problem["structure_energies"][0])], evaluator._kept["structure_energies"].copy()


def _arrays(thing: object) -> list[np.ndarray]:
    """Contiguous arrays inside dictionaries, lists and objects of ours."""
    if isinstance(thing, np.ndarray):
        return [thing] if thing.flags.c_contiguous and thing.dtype.kind in "fiuV" else []
    if isinstance(thing, dict):
        thing = list(thing.values())
    elif type(thing).__module__.startswith("pacehpc.backends"):
        thing = list(getattr(thing, "__dict__", {}).values())
    return [array for part in thing for array in _arrays(part)] if isinstance(thing, list | tuple) else []


def _pointers(array: np.ndarray) -> list[tuple[int, int]]:
    """Places of the pointers in an array of records, and where they lead."""
    found = []
    for name, (dtype, offset) in (array.dtype.fields or {}).items():
        if dtype == np.uint64:
            found += [(k * array.itemsize + offset, int(item[name])) for k, item in enumerate(array) if item[name]]
    return found


def differences(counts: dict[str, int], baseline: dict[str, int]) -> list[str]:
    """A line for each stage that is new, gone, or off by more than the tolerance."""
    lines = []
    for stage in sorted(counts.keys() | baseline.keys()):
        now, before = counts.get(stage), baseline.get(stage)
        if now is None or before is None:
            lines.append(f"{stage}: {'new' if before is None else 'gone'}")
        elif abs(now / before - 1) > TOLERANCE:
            lines.append(f"{stage}: {before} → {now} instructions ({100 * (now / before - 1):+.1f} %)")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write them to baseline.json")
    arguments = parser.parse_args()
    version, counts = compiler_version(), count_instructions()
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    known = baseline.get(version, {})
    print(version)
    for stage, count in counts.items():
        change = f"{100 * (count / known[stage] - 1):+6.1f} %" if stage in known else "new"
        print(f"{stage:26s} {count:12d} {change}")
    if arguments.write:
        BASELINE.write_text(json.dumps(baseline | {version: counts}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
