"""Extrapolation and distance grade along a bond that is stretched past the cutoff: a figure of docs/active-learning.md.

    python benchmarks/grade_scan.py

The potential and active set of ethanol are those of ../shared/golden/activeset; the distance grade is learned from the
same data. The hydroxyl hydrogen moves along its bond.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.build import molecule

from pacehpc import Potential
from pacehpc.active.active_set import ActiveSet
from pacehpc.active.data_rows import DataRows
from pacehpc.active.distance import learn
from pacehpc.active.structure_files import read_structures
from pacehpc.parallel import Ranks

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
FIGURE = ROOT / "docs" / "figures" / "grade_scan.png"


def main() -> None:
    from matplotlib.figure import Figure

    potential = Potential.load(SHARED / "golden" / "activeset" / "eth.yaml")
    active_set = ActiveSet.load(SHARED / "golden" / "activeset" / "eth.asi", potential)
    data = read_structures([str(SHARED / "data" / "ethanol.pckl.gzip")])
    counts = {element: int((data.symbols == element).sum()) for element in potential.elements}
    distances = learn(DataRows(data.atoms, potential, "cpu").blocks, counts, Ranks())
    atoms = molecule("CH3CH2OH")
    oxygen = atoms.symbols.indices()["O"][0]
    hydrogen = min(atoms.symbols.indices()["H"], key=lambda k: atoms.get_distance(k, oxygen))
    lengths = np.linspace(0.75, 9.0, 166)
    scan = []
    for length in lengths.tolist():
        moved = atoms.copy()
        moved.set_distance(oxygen, hydrogen, length, fix=0)
        scan.append(moved)
    found = list(DataRows(scan, potential, "cpu").predictions(active_set, distances))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.add_subplot()
    axis.plot(lengths, [one.grades[hydrogen] for one in found], label="extrapolation grade γ of H")
    axis.plot(lengths, [one.grades[oxygen] for one in found], label="γ of O", color="C0", linestyle=":")
    axis.plot(lengths, [one.distances[hydrogen] for one in found], label="distance grade of H", color="C1")
    axis.plot(lengths, [one.distances[oxygen] for one in found], label="distance grade of O", color="C1", linestyle=":")
    axis.axhline(1.0, color="0.6", linewidth=0.8)
    axis.axvline(potential.bonds["O", "H"].rcut, color="0.6", linewidth=0.8, linestyle="--")
    axis.text(potential.bonds["O", "H"].rcut, axis.get_ylim()[1], " rcut", va="top", color="0.4")
    axis.set(yscale="symlog", xlabel="O–H distance, Å", ylabel="grade", title="Ethanol: the hydroxyl hydrogen leaves")
    axis.set_ylim(0, None)
    axis.legend(frameon=False)
    figure.savefig(FIGURE, dpi=150)
    for length in (0.97, 2.0, 4.0, 8.0):
        k = int(np.abs(lengths - length).argmin())
        print(f"{lengths[k]:.2f} Å: γ {found[k].grades[hydrogen]:.3g}, distance {found[k].distances[hydrogen]:.3g}")


if __name__ == "__main__":
    main()
