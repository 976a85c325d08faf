"""This program and two others on the same inputs, one thread of the same core each, in the same run.

    python benchmarks/compare.py [INPUT.yaml …] [--rounds 2] [--seconds 3] [--iterations 6] [--large]
    python benchmarks/compare.py --page            # only the table and the figure, from the results

Loss and gradient against TensorPotential (the fit engine of pacemaker; the time that it reports after tracing);
energies and forces against the recursive C++ evaluator of python-ace, without neighbour lists and as a whole ASE call.
Both are used as they come, through their commands and classes, in an environment of their own, which is made on the
first run (90 s, 1.5 GB) in ~/.cache/pacehpc-comparators.

The results are compared as well: energies and forces within the error of the .yace file's splines, the loss of the fit
engine with ours without the cutoff factor of width dcut, which that engine leaves out.

Results go to benchmarks/results/comparison.json, the table and figure to docs/performance.md. Without inputs: all of
../shared/bench but the largest, which --large adds (10 GiB, some minutes).
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
from dataclasses import replace
from datetime import date
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
from comparators import ase_call_times
from evaluation import SHARED, machine, randomise, repeat

from pacehpc import Dataset, load_dataset
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.calculator import PaceCalculator
from pacehpc.metrics import TERMS
from pacehpc.potential import build_potential, export_yace
from pacehpc.yamlio import load_yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "comparison.json"
PAGE, FIGURE = ROOT / "docs" / "performance.md", ROOT / "docs" / "figures" / "comparison.png"
ENVIRONMENT = Path.home() / ".cache" / "pacehpc-comparators" / "env"
REQUIREMENTS = ["python-ace==0.4.0rc1", "tensorpotential==0.6.2.1", "numpy<2.4", "pandas<3"]
LARGE = "hea_55360"
ATOMS = {"ethanol": 2700, "hea_435": 900, LARGE: 540}
"""At most so many atoms of inputs whose names begin so: the fit engine's memory grows with them."""
COMPARED = (  # of the results, and whom the page compares with
    ("fit", "Loss and gradient", "TensorPotential"),
    ("forces", "Energies and forces", "recursive C++"),
    ("ase", "A whole ASE call, energies and forces with neighbour lists", "recursive C++"),
)
TOLERANCES = {"energy": 1e-6, "force": 1e-5, "e_loss": 1e-8, "f_loss": 1e-8}
"""Relative to the largest value; energies and forces of the .yace file have the error of its splines."""
ASE_ATOMS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of the inputs' data files")
    parser.add_argument("--rounds", type=int, default=2, help="times that all programs take their turn")
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each measurement of a round")
    parser.add_argument("--iterations", type=int, default=6, help="of the fit engine in each round")
    parser.add_argument("--large", action="store_true", help=f"also {LARGE}")
    parser.add_argument("--page", action="store_true", help="write the table and figure again, measure nothing")
    arguments = parser.parse_args()
    if arguments.page:
        write_page(json.loads(RESULTS.read_text()))
        return
    install()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    chosen = [path for path in sorted((SHARED / "bench").glob("*.yaml")) if arguments.large or path.stem != LARGE]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
    for path in arguments.inputs or chosen:
        case = compare(path, arguments)
        case |= {"machine": machine(), "date": date.today().isoformat(), "requirements": REQUIREMENTS}
        results["cases"][path.stem] = case
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(path.stem)
        for name in ("fit", "forces", "ase"):
            ours, theirs = (case[f"{name}_us_per_atom"][who] for who in ("ours", "theirs"))
            print(f"    {name:7s} {ours:8.2f} µs/atom, theirs {theirs:8.1f}: {theirs / ours:6.1f} times faster")
    write_page(results)


def install() -> None:
    """Make the comparators' environment unless it is there."""
    note = ENVIRONMENT / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS) + "\n"
    if note.exists() and note.read_text() == wanted:
        return
    print(f"installing {', '.join(REQUIREMENTS)} into {ENVIRONMENT}")
    if not (ENVIRONMENT / "bin" / "pip").exists():
        venv.create(ENVIRONMENT, with_pip=True)
    subprocess.run([ENVIRONMENT / "bin" / "pip", "install", "--quiet", "--pre", *REQUIREMENTS], check=True)
    note.write_text(wanted)


def compare(path: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Parity and times of one input; µs per atom, medians over all rounds."""
    settings = load_yaml(path)
    potential = build_potential(settings["potential"])
    randomise(potential)
    kappa = settings["fit"]["loss"]["kappa"]
    data = str(arguments.data / settings["data"]["filename"])
    whole = load_dataset(data, elements=potential.elements)
    most = next((n for name, n in ATOMS.items() if path.stem.startswith(name)), whole.n_atoms)
    count = int(np.searchsorted(np.cumsum(whole.atoms_per_structure), most, side="right"))
    dataset = load_dataset(data, elements=potential.elements, rows=list(range(count)))
    structures = dataset.structures(potential)
    fit = CpuEvaluator(potential, structures, LossWeights(kappa=kappa), EvaluatorOptions(threads=1))
    plain = potential.copy()
    plain.bonds = {pair: replace(bond, dcut=0.0) for pair, bond in potential.bonds.items()}
    bare = CpuEvaluator(plain, structures, LossWeights(kappa=kappa), EvaluatorOptions(threads=1))
    x = potential.parameters
    large = large_frame(dataset.atoms)
    times: dict[str, list[float]] = {name: [] for name in ("ours", "tensorflow", "ours_forces", "recursive")}
    calls: dict[str, list[float]] = {"ours": [], "recursive": []}
    with tempfile.TemporaryDirectory(prefix="pacehpc-compare-") as folder:
        work = Path(folder)
        potential.save(work / "potential.yaml")
        export_yace(potential, work / "potential.yace")
        write_structures(work / "structures.npz", dataset, large)
        python("frame", work / "structures.npz", work / "frame.pckl.gzip")
        for _ in range(arguments.rounds):
            times["ours"] += repeat(lambda: fit.evaluate(x), arguments.seconds)
            times["ours_forces"] += repeat(lambda: fit.predict(x), arguments.seconds)
            calls["ours"] += ase_call_times(PaceCalculator(potential), large.copy(), arguments.seconds)
            output = python(
                "evaluate", work / "structures.npz", work / "potential.yace", arguments.seconds, work / "recursive.npz"
            )
            recursive = json.loads(output.splitlines()[-1])
            times["recursive"] += recursive["evaluate"]
            calls["recursive"] += recursive["ase"]
            engine = fit_engine(work, kappa, arguments.iterations)
            times["tensorflow"] += engine.pop("times")
        parity = check_parity(fit, bare, x, np.load(work / "recursive.npz"), engine)
    per_atom = 1e6 / structures.n_atoms
    us = {name: float(np.median(values)) * per_atom for name, values in times.items() if name != "tensorflow"}
    ase = {name: float(np.median(values)) * 1e6 / len(large) for name, values in calls.items()}
    return {
        "functions": potential.n_functions,
        "parameters": potential.n_parameters,
        "atoms": structures.n_atoms,
        "bonds_per_atom": structures.n_bonds / structures.n_atoms,
        "parity": parity,
        "fit_us_per_atom": {"ours": us["ours"], "theirs": float(np.median(times["tensorflow"]))},
        "forces_us_per_atom": {"ours": us["ours_forces"], "theirs": us["recursive"]},
        "ase_us_per_atom": {"ours": ase["ours"], "theirs": ase["recursive"]},
        "ase_atoms": len(large),
        "rounds": arguments.rounds,
        "tensorflow_first_evaluation_s": engine["first_us_per_atom"] / per_atom,
        "tensorflow_memory_gib": engine["memory_gib"],
    }


def large_frame(frames: list[object]) -> object:
    """The first frame, repeated to ASE_ATOMS atoms or more: a crystal, or copies of a molecule side by side."""
    atoms = frames[0].copy()
    if not atoms.pbc.all():
        atoms.center(vacuum=1.5)
    while len(atoms) < ASE_ATOMS:
        shortest = int(np.argmin(atoms.cell.lengths()))
        atoms = atoms.repeat([2 if axis == shortest else 1 for axis in range(3)])
    return atoms


def write_structures(path: Path, dataset: Dataset, large: object) -> None:
    """What comparators.py reads."""
    frames = dataset.atoms
    np.savez(
        path,
        counts=[len(atoms) for atoms in frames],
        numbers=np.concatenate([atoms.numbers for atoms in frames]),
        positions=np.concatenate([atoms.positions for atoms in frames]),
        cells=[atoms.cell.array for atoms in frames],
        pbc=[atoms.pbc for atoms in frames],
        energies=dataset.energy_corrected,
        forces=np.concatenate(dataset.forces),
        ase_numbers=large.numbers,
        ase_positions=large.positions,
        ase_cell=large.cell.array,
        ase_pbc=large.pbc,
    )


def python(*arguments: object) -> str:
    """Output of comparators.py in its own environment."""
    script = Path(__file__).with_name("comparators.py")
    return run([ENVIRONMENT / "bin" / "python", script, *arguments], Path.cwd())[0]


def run(command: list[object], folder: Path) -> tuple[str, float]:
    """Output of a program of the comparators' environment, and its peak memory in GiB."""
    settings = {"TF_USE_LEGACY_KERAS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    environment = os.environ | settings | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        words = [str(word) for word in command]
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}\n{text[-3000:]}")
    return text, usage.ru_maxrss / 2**20


def fit_engine(work: Path, kappa: float, iterations: int) -> dict[str, object]:
    """Times per evaluation (µs/atom, after tracing), the first loss and the memory of a short pacemaker fit."""
    for path in [*work.glob("*metrics.txt"), *work.glob("interim*"), *work.glob("log.txt")]:
        path.unlink()
    settings = {
        "cutoff": 10,
        "seed": 1,
        "data": {"filename": str(work / "frame.pckl.gzip")},
        "potential": "potential.yaml",
        "fit": {
            "loss": {"kappa": kappa, "L1_coeffs": 0, "L2_coeffs": 0},
            "optimizer": "L-BFGS-B",
            "maxiter": iterations,
        },
        "backend": {"evaluator": "tensorpot", "batch_size": 1000000, "display_step": 1},
    }
    (work / "input.yaml").write_text(json.dumps(settings))  # JSON is YAML
    output, memory = run([ENVIRONMENT / "bin" / "pacemaker", "--no-predict", "input.yaml"], work)
    steps = re.findall(r"^Iteration:\s+#(\d+).*?Avg\. time:\s*([\d.]+) mcs/at", output, re.M | re.S)
    header, first, *_ = (line.split() for line in (work / "metrics.txt").read_text().splitlines())
    row = dict(zip(header, first, strict=False))
    return {
        "times": [float(us) for number, us in steps if 0 < int(number) <= iterations],
        "first_us_per_atom": next(float(us) for number, us in steps if number == "0"),
        "memory_gib": memory,
        "e_loss": float(row["e_loss_contrib"]) / (1 - kappa),
        "f_loss": float(row["f_loss_contrib"]) / kappa,
    }


def check_parity(
    fit: CpuEvaluator,
    without_cutoff_factor: CpuEvaluator,
    x: np.ndarray,
    recursive: dict[str, np.ndarray],
    engine: dict[str, float],
) -> dict[str, float]:
    """Largest differences, which must be within the tolerances."""
    structures, prediction = fit.structures, fit.predict(x)
    energies = np.add.reduceat(prediction.energies, structures.atom_offsets[:-1])
    per_atom = (energies - recursive["energies"]) / structures.atoms_per_structure
    terms = dict(zip(TERMS, without_cutoff_factor.evaluate(x).terms, strict=True))
    parity = {
        "energy_eV_per_atom": float(np.abs(per_atom).max()),
        "energy": float(np.abs(per_atom).max() / np.abs(energies / structures.atoms_per_structure).max()),
        "force_eV_per_A": float(np.abs(prediction.forces - recursive["forces"]).max()),
        "force": float(np.abs(prediction.forces - recursive["forces"]).max() / np.abs(prediction.forces).max()),
        "e_loss": abs(terms["e_loss"] / engine["e_loss"] - 1),
        "f_loss": abs(terms["f_loss"] / engine["f_loss"] - 1),
    }
    print("    parity:", ", ".join(f"{name} {value:.1e}" for name, value in parity.items()))
    wrong = [f"{name}: {parity[name]:.1e} > {limit}" for name, limit in TOLERANCES.items() if not parity[name] < limit]
    if wrong:
        raise SystemExit(f"parity check failed: {', '.join(wrong)}")
    return parity


def write_page(results: dict[str, object]) -> None:
    """Write the tables and the figure of docs/performance.md, between its marks."""
    cases = results["cases"]
    lines = []
    for what, title, comparator in COMPARED:
        lines += [f"{title}:", "", f"| input | functions | atoms | pacehpc | {comparator} | ratio |"]
        lines.append("|" + " --- |" * 6)
        for name, case in cases.items():
            ours, theirs = (case[f"{what}_us_per_atom"][who] for who in ("ours", "theirs"))
            atoms = case["ase_atoms"] if what == "ase" else f"{case['atoms']}, {case['bonds_per_atom']:.1f} bonds each"
            cells = [name, case["functions"], atoms, f"{ours:.2f}", f"{theirs:.1f}", f"**{theirs / ours:.0f}**"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines.append("")
    lines += ["Largest relative differences of the results:", "", "| input | energies | forces | loss |"]
    lines.append("|" + " --- |" * 4)
    for name, case in cases.items():
        parity = case["parity"]
        loss = max(parity["e_loss"], parity["f_loss"])
        lines.append(f"| {name} | {parity['energy']:.0e} | {parity['force']:.0e} | {loss:.0e} |")
    draw(cases)
    machines = {case["machine"]["processor"] for case in cases.values()}
    lines += [
        "",
        f"µs per atom, medians, one thread of one core ({', '.join(sorted(machines))}, "
        f"{max(case['date'] for case in cases.values())}); {', '.join(REQUIREMENTS[:2])}.",
        "",
        f"![Times of one evaluation per atom]({FIGURE.relative_to(PAGE.parent)})",
    ]
    replace_between_marks("comparison", "\n".join(lines))


def replace_between_marks(name: str, text: str) -> None:
    """Put text between <!-- name --> and <!-- end of name --> of docs/performance.md."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    page = PAGE.read_text()
    if begin not in page or end not in page:
        raise SystemExit(f"{PAGE} lacks the lines {begin} and {end}")
    head, tail = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def draw(cases: dict[str, dict]) -> None:
    """Times of all programs, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        ("fit", "loss + gradient", "TensorPotential", "0.45"),
        ("forces", "energies + forces", "recursive C++ evaluator", "0.7"),
    ]
    figure, axes = pyplot.subplots(1, 2, figsize=(7.2, 1.2 + 0.4 * len(cases)), sharey=True, layout="constrained")
    places = np.arange(len(cases))[::-1]
    for axis, (what, title, comparator, grey) in zip(axes, panels, strict=True):
        for shift, who, label, colour in ((0.2, "ours", "pacehpc", "C0"), (-0.2, "theirs", comparator, grey)):
            values = [case[f"{what}_us_per_atom"][who] for case in cases.values()]
            bars = axis.barh(places + shift, values, 0.38, label=label, color=colour)
            axis.bar_label(bars, [f"{v:.1f}" if v < 100 else f"{v:.0f}" for v in values], padding=2, fontsize=9)
        axis.set(xscale="log", xlabel="µs per atom", title=f"{title}, one core", yticks=places)
        axis.set_yticklabels(cases)
        axis.margins(x=0.25)
    labels = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=3, frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=160)


if __name__ == "__main__":
    sys.exit(main())
