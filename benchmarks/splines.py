"""What the bins of LAMMPS' radial splines cost, and what they change: the table of docs/lammps.md.

    python benchmarks/splines.py ENV/bin/python

ENV: an environment with python-ace, which holds the library that LAMMPS runs; used as a black box:

    python -m venv ENV; ENV/bin/pip install --pre python-ace==0.4.0rc1 'numpy<2.4' 'pandas<3'

Energies and forces of rattled crystals, of every potential of tests/golden, from the recursive evaluator against the
exact ones of the reference backend; seconds and memory of loading the potential with the most bonds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from ase.io import write

from pacehpc import Potential, export_yace
from pacehpc.backends.oracle import ReferenceEvaluator
from pacehpc.dataset import structures_of
from pacehpc.machine import processor
from pacehpc.utilities.splines import crystals

ROOT = Path(__file__).parents[1]
WIDTHS = (1e-3, 1e-4, 1e-5)
LARGEST = ROOT / "tests" / "golden" / "potentials" / "cuozr_zbl.yaml"
EVALUATE = """
import json, time
from ase.io import read
from pyace import PyACECalculator

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

before, start = resident(), time.perf_counter()
calculator = PyACECalculator("p.yace", recursive_evaluator=True, recursive=True)
seconds = time.perf_counter() - start
memory = resident() - before
results = []
for atoms in read("p.traj", ":"):
    atoms.calc = calculator
    results.append((float(atoms.get_potential_energy()), atoms.get_forces().tolist()))
print(json.dumps([seconds, memory, results]))
"""


def main() -> None:
    rows = []
    for width in WIDTHS:
        energies, forces = {}, {}
        for path in sorted((ROOT / "tests" / "golden" / "potentials").glob("*.yaml")):
            potential = Potential.load(path)
            potential.delta_spline_bins = width
            found = deviations(potential)
            energies[path.stem], forces[path.stem] = found[:2]
            if path == LARGEST:
                seconds, memory = found[2:]
            print(width, path.stem, *found, flush=True)
        rows.append(
            f"| {width:g} Å | {spread(energies)} eV/atom | {spread(forces)} eV/Å | {seconds:.1f} s | {memory:.0f} MiB |"
        )
    head = "| bins | energies change by | forces change by | loading | memory |\n| --- | --- | --- | --- | --- |"
    text = f"{head}\n" + "\n".join(rows)
    text += (
        "\n\nMeasured by `benchmarks/splines.py` with the library that LAMMPS runs (python-ace 0.4.0rc1, recursive) on"
        f" {processor()}: the largest change in rattled crystals, median and largest of {len(energies)} potentials;"
        f" loading and memory of one with {len(Potential.load(LARGEST).elements)} elements."
    )
    write_page(text)


def spread(values: dict[str, float]) -> str:
    return f"{np.median(list(values.values())):.0e}, {max(values.values()):.0e}"


def deviations(potential: Potential) -> tuple[float, float, float, float]:
    """Largest changes of energies per atom and of forces; seconds and MiB of loading."""
    frames = crystals(potential)
    data = structures_of(frames, potential)
    exact = ReferenceEvaluator(potential, data).predict(potential.parameters)
    with tempfile.TemporaryDirectory() as folder:
        export_yace(potential, f"{folder}/p.yace")
        write(f"{folder}/p.traj", frames)
        done = subprocess.run([sys.argv[1], "-c", EVALUATE], cwd=folder, text=True, capture_output=True, check=True)
    seconds, memory, results = json.loads(done.stdout.splitlines()[-1])
    expected = np.add.reduceat(exact.energies, data.atom_offsets[:-1])
    change = abs(np.array([energy for energy, _ in results]) - expected) / np.diff(data.atom_offsets)
    forces = np.concatenate([np.array(part) for _, part in results])
    return change.max(), abs(forces - exact.forces).max(), seconds, memory


def write_page(text: str) -> None:
    page = ROOT / "docs" / "lammps.md"
    start, end = "<!-- splines -->", "<!-- /splines -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(start)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
