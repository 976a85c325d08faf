"""Fits with this program and with pacemaker at the same settings: the losses that both end at, over several seeds.

    python benchmarks/validation.py --pacemaker ENV/bin/pacemaker [--seeds 1 2 3] [--cases ladder_al_ni cycles_cu]
    python benchmarks/validation.py --pacemaker ENV/bin/pacemaker --starts 1 2  # one cycle of copper from equal starts
    python benchmarks/validation.py --pacemaker ENV/bin/pacemaker --first-cycles 36  # the end of the first cycle
    python benchmarks/validation.py --gn 1 2 3        # this program with GN-BFGS, for the losses already there
    python benchmarks/validation.py --pacemaker ENV/bin/pacemaker --sooner 1  # time to pacemaker's loss, on one core
    python benchmarks/validation.py --page            # only docs/validation.md and its figure, from the results

pacemaker is used as a black box, in an environment of its own:
    python3.11 -m venv ENV
    ENV/bin/pip install --pre python-ace==0.4.0rc1 tensorpotential==0.6.2.1 'numpy<2.4' 'pandas<3'

Both programs get the same input file. Each reports its own final loss; the potentials that both leave are evaluated
once more by one program, this one. Where a fit ends depends on its path, and paths part: by their random numbers, and
by round-off. --starts takes the random numbers out: both programs go on from the same disturbed potentials.
--first-cycles takes the other program out: this one goes on from the ends of both programs' first cycles.
--sooner holds both programs on one core of an idle machine: the time of a whole fit by pacemaker, and the time from the
command until this program, with GN-BFGS, logs a loss as low as the one with which that fit ended.
Results go to benchmarks/results/validation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
from evaluation import machine
from scipy.stats import mannwhitneyu

import pacehpc
from pacehpc import Objective, Potential, load_dataset
from pacehpc.fit.cycles import disturb
from pacehpc.fit.optimizers import minimize
from pacehpc.yamlio import loads_yaml

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results" / "validation.json"
PAGE, FIGURE = ROOT / "docs" / "validation.md", ROOT / "docs" / "figures" / "validation.png"
PROGRAMS = ("pacehpc", "pacemaker")
TO_GN = ("optimizer: BFGS", "optimizer: GN-BFGS")
COMMAND = [sys.executable, "-m", "pacehpc"]
START = "start.yaml"  # the potential from which both programs go on
FIRST_SEEDS = (3, 9)  # medians over these are shown besides those over all
GOAL = 1.1  # our median loss over theirs, at most

INPUTS = {
    "ladder_al_ni": """\
cutoff: 6
seed: {seed}
data: {{filename: exmpl_df.pckl.gzip}}
potential:
  deltaSplineBins: 0.001
  elements: [Al, Ni]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}}}
  bonds: {{ALL: {{radbase: SBessel, radparameters: [5.25], rcut: 6, dcut: 0.01, NameOfCutoffFunction: cos}}}}
  functions:
    UNARY: {{nradmax_by_orders: [6, 2, 1], lmax_by_orders: [0, 2, 1], coefs_init: random}}
    BINARY: {{nradmax_by_orders: [6, 1, 1], lmax_by_orders: [0, 2, 1], coefs_init: random}}
fit:
  loss: {{kappa: 0.3, L1_coeffs: 1e-8, L2_coeffs: 1e-8, w0_rad: 1e-8, w1_rad: 1e-8, w2_rad: 1e-8}}
  optimizer: BFGS
  maxiter: 400
  ladder_step: 12
  ladder_type: power_order
backend: {{evaluator: tensorpot, batch_size: 200, display_step: 50}}
""",
    "cycles_cu": """\
cutoff: 7
seed: {seed}
data: {{filename: Cu_df1_A1_A2_A3_EV_elast_phon.pckl.gzip}}
potential:
  deltaSplineBins: 0.001
  elements: [Cu]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}}}
  bonds: {{ALL: {{radbase: ChebExpCos, radparameters: [5.25], rcut: 7, dcut: 0.01, NameOfCutoffFunction: cos}}}}
  functions: {{UNARY: {{nradmax_by_orders: [10, 3, 2, 1], lmax_by_orders: [0, 2, 2, 1]}}}}
fit:
  loss: {{kappa: 0.3, L1_coeffs: 1e-8, L2_coeffs: 1e-8, w0_rad: 1e-8, w1_rad: 1e-8, w2_rad: 1e-8}}
  optimizer: BFGS
  maxiter: 200
  fit_cycles: 3
  noise_relative_sigma: 0.01
backend: {{evaluator: tensorpot, batch_size: 105, display_step: 50}}
""",
}
ONE_CYCLE = re.sub(r"  fit_cycles: .*\n  noise_relative_sigma: .*\n", "", INPUTS["cycles_cu"].format(seed=1))
SIGMA = float(re.search("noise_relative_sigma: (.*)", INPUTS["cycles_cu"])[1])
TITLES = {"ladder_al_ni": "Ladder fit of Al–Ni", "cycles_cu": "Fit of Cu in three cycles"}


PUBLIC_BENCHMARK = "## A public benchmark"  # the section of zuo2020.py, which stays
# stands at the end of the page, whatever is measured again
SETTINGS_NOTE = """
The curves of pacemaker are shorter and lack the top of each peak: its log shows the start of a cycle, and every 50th
iteration, in another form than the rest, and these are not in the figure.

The settings of both cases were chosen after first runs: with 100 iterations and a noise of 0.05, single fits of either
program spread by a factor of two (copper, pacemaker one seed: 5.5e-6, pacehpc three seeds: 3.7e-6, 8.0e-6, 6.3e-6;
Al–Ni likewise), so iterations were raised and the noise lowered before the runs in the table.

In the first three copper seeds pacemaker ends lower; three are too few for a median, so more were run, in their order,
as many as time allowed, and all are in the table. The difference shrinks with them but does not vanish: over all seeds
pacehpc's median is 6 % higher. What was looked at:

- The minimiser: from equal starts after noise the medians agree to 0.1 %, single pairs to 10 % either way. The paths
  agree to the digits of the log for about ten iterations and then part, by round-off and by the factor of dcut.
- The noise: both disturb the best potential so far, all its coefficients, by normal noise of the same size (seen by
  comparing pacemaker's potentials before and after), from other random streams. It lifts the loss from 7e-6 to
  between 1 and a thousand in the table of equal starts.
- The first cycle: from the end of pacemaker's, pacehpc ends no lower than from its own.

So what remains is the draw of the noises, or something that these comparisons do not show.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pacemaker", type=Path, help="the comparator's command")
    parser.add_argument("--data", type=Path, default=SHARED / "data", help="folder of the data files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--cases", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument(
        "--starts", type=int, nargs="+", metavar="SEED", help="of the noise: only fits from equal starts"
    )
    parser.add_argument("--first-cycles", type=int, metavar="N", help="only fits from both first cycles, N noises each")
    parser.add_argument("--gn", type=int, nargs="+", metavar="SEED", help="only fits of this program with GN-BFGS")
    parser.add_argument("--sooner", type=int, nargs="+", metavar="SEED", help="only time to pacemaker's final loss")
    parser.add_argument("--page", action="store_true", help="only make the page, from earlier results")
    arguments = parser.parse_args()
    if arguments.gn:
        gauss_newton(arguments.cases, arguments.gn, arguments.data, arguments.json)
        return
    if not arguments.page:
        if arguments.pacemaker is None:
            parser.error("--pacemaker: name the comparator's command")
        if arguments.sooner:
            sooner(arguments.pacemaker, arguments.cases, arguments.sooner, arguments.data, arguments.json)
            return
        if arguments.starts:
            same_starts(arguments.pacemaker, arguments.starts, arguments.data, arguments.json)
            return
        if arguments.first_cycles:
            first_cycles(arguments.pacemaker, arguments.first_cycles, arguments.data, arguments.json)
            return
        about = {"date": date.today().isoformat(), "machine": machine(), "versions": versions(arguments.pacemaker)}
        for case in arguments.cases:
            for seed in arguments.seeds:
                for program in arguments.programs:
                    command = [arguments.pacemaker] if program == "pacemaker" else COMMAND
                    found = fit(command, INPUTS[case].format(seed=seed), arguments.data) | {"seed": seed}
                    store(arguments.json, about, case, program, found)
                    print(
                        f"{case} seed {seed} {program:10s} loss {found['loss']:.4e} (evaluated here "
                        f"{found['loss_here']:.4e}) after {found['seconds']:.0f} s",
                        flush=True,
                    )
        if len(arguments.programs) < len(PROGRAMS):
            return  # the page compares, so it waits for the other one
    results = json.loads(arguments.json.read_text())
    of_others = PAGE.read_text(encoding="utf-8").partition(PUBLIC_BENCHMARK)
    PAGE.write_text(page(results) + SETTINGS_NOTE + "\n" + "".join(of_others[1:]), encoding="utf-8")
    draw(results)
    worst = max(ratio(runs) for runs in results["cases"].values())
    raise SystemExit(worst > GOAL and f"median loss {worst:.3f} times the comparator's; the goal is {GOAL}")


def gauss_newton(cases: list[str], seeds: list[int], data: Path, path: Path) -> None:
    """Fits of this program with GN-BFGS instead of BFGS, everything else as in the other runs."""
    for case in cases:
        for seed in seeds:
            text = INPUTS[case].format(seed=seed).replace(*TO_GN)
            found = fit(COMMAND, text, data) | {"seed": seed}
            del found["losses"]
            results = read(path)
            runs = results.setdefault("gn_bfgs", {}).setdefault(case, [])
            results["gn_bfgs"][case] = sorted(
                [*(run for run in runs if run["seed"] != seed), found], key=lambda run: run["seed"]
            )
            write(path, results)
            print(f"{case} seed {seed} GN-BFGS loss {found['loss']:.4e} after {found['seconds']:.0f} s", flush=True)


def sooner(pacemaker: Path, cases: list[str], seeds: list[int], data: Path, path: Path) -> None:
    """Time to the loss with which pacemaker ends, start-up included, with both programs on one core."""
    one_core = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
    for case in cases:
        for seed in seeds:
            text = INPUTS[case].format(seed=seed)
            load = os.getloadavg()[0]
            theirs = fit([*one_core, pacemaker], text, data)
            row = {"seed": seed, "load": load, "loss": theirs["loss"], "pacemaker": theirs["seconds"]}
            with tempfile.TemporaryDirectory() as name:
                for kernels in ("cold", "warm"):  # the first fit fills the cache of the second
                    folder = Path(name) / kernels
                    folder.mkdir()
                    row[kernels] = time_to(
                        theirs["loss"], [*one_core, *COMMAND], text.replace(*TO_GN), data, folder, Path(name) / "cache"
                    )
            results = read(path)
            found = results.setdefault("sooner", {"date": date.today().isoformat(), "machine": machine(), "cases": {}})
            rows = [other for other in found["cases"].get(case, []) if other["seed"] != seed]
            found["cases"][case] = sorted([*rows, row], key=lambda r: r["seed"])
            write(path, results)
            print(case, row, flush=True)


def time_to(
    loss: float, command: list[Path | str], text: str, data: Path, folder: Path, cache: Path
) -> dict[str, float]:
    """Seconds from the command until this program logs a loss of at most `loss`, and until it has ended."""
    (folder / "input.yaml").write_text(text)
    environment = os.environ | {"PACEMAKERDATAPATH": str(data), "PACEHPC_CACHE": str(cache)}
    start, reached = time.perf_counter(), None
    with subprocess.Popen(
        [*map(str, command), "input.yaml"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as fit_now:
        for line in fit_now.stdout:
            found = re.search(r"Iteration.*?Loss:\s+(?:Total: )?(\S+)", line)
            if found and reached is None and float(found[1]) <= loss:
                reached = time.perf_counter() - start
    if fit_now.returncode or reached is None:
        raise SystemExit(f"{command} did not reach {loss}")
    return {"reached": reached, "ended": time.perf_counter() - start}


def store(path: Path, about: dict[str, object], case: str, program: str, found: dict[str, object]) -> None:
    """Put one run into the results; it takes the place of an earlier one with the same seed."""
    results = read(path)
    runs = results["cases"].setdefault(case, {name: [] for name in PROGRAMS})
    kept = [run for run in runs[program] if run["seed"] != found["seed"]]
    runs[program] = sorted([*kept, found], key=lambda run: run["seed"])
    write(path, results | about)


def read(path: Path) -> dict[str, object]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": {}}


def write(path: Path, results: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def same_starts(pacemaker: Path, seeds: list[int], data: Path, path: Path) -> None:
    """One cycle of copper by both programs from the same disturbed potentials, one for each seed of the noise.

    The potential that is disturbed is the one with which this program ends the first cycle.
    """
    again = re.sub(r"(?m)^potential:\n(  .*\n)+", f"potential: {START}\n", ONE_CYCLE)
    potential = first_cycle(COMMAND, data)
    for seed in seeds:
        noise = np.random.default_rng(seed)
        start = potential.copy()
        start.parameters = disturb(start.parameters, np.zeros(start.n_parameters, bool), noise, relative=SIGMA)
        row: dict[str, object] = {"seed": seed}
        for program, command in (("pacehpc", COMMAND), ("pacemaker", [pacemaker])):
            with tempfile.TemporaryDirectory() as name:
                start.save(Path(name) / START)
                launch(command, again, data, Path(name))
                log = (Path(name) / "log.txt").read_text()
                row[program] = {
                    "start": float(re.search(r"#0 .*?Loss:\s*(\S+) \|", log)[1]),
                    "loss": table(Path(name) / "cycle_metrics.txt")[-1]["loss"],
                }
        results = read(path)
        kept = [other for other in results.get("same_starts", []) if other["seed"] != seed]
        write(path, results | {"same_starts": sorted([*kept, row], key=lambda r: r["seed"])})
        print(row, flush=True)


def versions(pacemaker: Path) -> dict[str, str]:
    """Of the programs and what they calculate with."""
    names = ("python-ace", "tensorpotential", "tensorflow", "numpy", "scipy")
    code = f"from importlib.metadata import version\nfor n in {names}: print(n, version(n))"
    theirs = subprocess.run(
        [pacemaker.parent / "python", "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return {"pacehpc": pacehpc.__version__} | dict(line.split() for line in theirs)


def first_cycle(command: list[Path | str], data: Path) -> Potential:
    """The potential with which a program ends the first cycle of copper; it does not depend on the seed."""
    with tempfile.TemporaryDirectory() as name:
        launch(command, ONE_CYCLE, data, Path(name))
        return Potential.load(Path(name) / "output_potential.yaml")


def first_cycles(pacemaker: Path, number: int, data: Path, path: Path) -> None:
    """The second and third cycle by this program, from the ends of both programs' first cycles, same noises."""
    settings = loads_yaml(ONE_CYCLE, "input")
    found = {}
    for program, command in (("pacehpc", COMMAND), ("pacemaker", [pacemaker])):
        potential = first_cycle(command, data)
        frames = load_dataset(str(data / settings["data"]["filename"]), elements=potential.elements)
        objective = Objective(potential, frames, settings["fit"]["loss"], backend="cpu")
        first = minimize(objective.evaluate, objective.x, maxiter=0)
        losses = []
        for seed in range(1, number + 1):
            best, noise = first, np.random.default_rng([seed, 1])
            for _ in range(2):
                x = disturb(best.x, np.zeros(len(best.x), bool), noise, relative=SIGMA)
                found_now = minimize(objective.evaluate, x, "BFGS", settings["fit"]["maxiter"], {"gtol": 1e-8})
                best = min(best, found_now, key=lambda minimum: minimum.loss)
            losses.append(best.loss)
        found[program] = {"first": first.loss, "losses": losses}
        print(program, f"{first.loss:.4e}", f"{np.median(losses):.4e}", flush=True)
    write(path, read(path) | {"first_cycles": found})


def launch(command: list[Path | str], text: str, data: Path, folder: Path) -> float:
    """Run a program on the input `text` in `folder`; returns seconds."""
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "PACEMAKERDATAPATH": str(data)}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # each program as it comes
        environment.pop(name, None)
    (folder / "input.yaml").write_text(text)
    start = time.perf_counter()
    done = subprocess.run(
        [*map(str, command), "input.yaml"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def fit(command: list[Path | str], text: str, data: Path) -> dict[str, object]:
    """One fit in a folder of its own: losses, errors and seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = launch(command, text, data, folder)
        log = (folder / "log.txt").read_text()
        losses = [float(loss) for loss in re.findall(r"Iteration\s+#\d+ .*?Loss: (\S+) \|", log)]
        last = read_last(folder / "ladder_metrics.txt") or read_last(folder / "cycle_metrics.txt")
        cycles = table(folder / "cycle_metrics.txt")
        if last["ladder_step"] == 0 and len(cycles):
            last = min(cycles, key=lambda row: row["loss"])
        return {
            "loss": last["loss"],
            "rmse_epa": last["rmse_epa"],
            "rmse_f_comp": last["rmse_f_comp"],
            "loss_here": loss_here(folder / "output_potential.yaml", text, data),
            "seconds": seconds,
            "losses": losses,
        }


def table(path: Path) -> list[dict[str, float]]:
    """The rows of one of the programs' tables."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [dict(zip(lines[0].split(), map(float, line.split()), strict=True)) for line in lines[1:]]


def read_last(path: Path) -> dict[str, float]:
    rows = table(path)
    return rows[-1] if rows else {}


def loss_here(path: Path, text: str, folder: Path) -> float:
    """The loss of a potential's file, by this program."""
    settings = loads_yaml(text, "input")
    potential = Potential.load(path)
    data = load_dataset(str(folder / settings["data"]["filename"]), elements=potential.elements)
    objective = Objective(potential, data, settings["fit"]["loss"], backend="cpu")
    return objective(objective.x, gradient=False)[0]


def medians(runs: dict[str, list[dict]], name: str, seeds: int | None = None) -> dict[str, float]:
    """Of each program, over its first `seeds` runs."""
    return {program: float(np.median([run[name] for run in runs[program][:seeds]])) for program in PROGRAMS}


def ratio(runs: dict[str, list[dict]]) -> float:
    """Our median loss over theirs: the larger of what the programs report and of both evaluated here."""
    return max(m["pacehpc"] / m["pacemaker"] for m in (medians(runs, "loss"), medians(runs, "loss_here")))


def page(results: dict) -> str:
    """docs/validation.md."""
    m, v = results["machine"], results["versions"]
    parts = [
        "# Validation against pacemaker",
        "",
        "Generated by `benchmarks/validation.py`, which anybody can run; the numbers stand in "
        "`benchmarks/results/validation.json`.",
        "",
        f"Measured on {results['date']}: {m['processor']}, {m['cores']} cores (DGEMM {m['dgemm_gflops']:.0f} GFlop/s "
        "on one of them), shared with other work, so times are only a hint; "
        f"pacehpc {v['pacehpc']} on one rank; pacemaker as "
        + ", ".join(f"{name} {version}" for name, version in v.items() if name != "pacehpc")
        + ".",
        "",
        "Both programs get the same input file and data. Each reports its final loss; then the potential that each "
        "leaves is evaluated by pacehpc with the loss of the input. pacemaker's engine leaves out the factor that "
        "switches radial functions off within dcut of the cutoff, so for its potentials both values may differ a bit.",
    ]
    for case, runs in results["cases"].items():
        parts += [
            "",
            f"## {TITLES[case]}",
            "",
            "| seed | program | final loss | evaluated by pacehpc | RMSE energy, meV/atom | RMSE force, meV/Å "
            "| time, s |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        every = [(run["seed"], program, run) for program in PROGRAMS for run in runs[program]]
        for seed, program, run in sorted(every, key=lambda row: row[:2]):
            parts.append(
                f"| {seed} | {program} | {run['loss']:.4e} | {run['loss_here']:.4e} | "
                f"{1e3 * run['rmse_epa']:.2f} | {1e3 * run['rmse_f_comp']:.2f} | {run['seconds']:.0f} |"
            )
        counts = {program: len(runs[program]) for program in PROGRAMS}
        parts += ["", "| median loss | of seeds | pacehpc | pacemaker | ratio |", "| --- | --- | --- | --- | --- |"]
        first = {seeds for seeds in FIRST_SEEDS if seeds <= min(counts.values())}
        for seeds in sorted({*first, *counts.values()}):
            for name, text in (("loss", "reported"), ("loss_here", "evaluated by pacehpc")):
                both = medians(runs, name, seeds)
                of = " and ".join(dict.fromkeys(f"1 to {min(seeds, n)}" for n in counts.values()))
                parts.append(
                    f"| {text} | {of} | {both['pacehpc']:.4e} | {both['pacemaker']:.4e} | "
                    f"{both['pacehpc'] / both['pacemaker']:.3f} |"
                )
        p = mannwhitneyu(*([run["loss"] for run in runs[program]] for program in PROGRAMS)).pvalue
        parts.append(f"\nChance of such a difference between equal programs: p = {p:.2g} (Mann–Whitney, all seeds).")
        parts.append(f"\nThe goal is a ratio of at most {GOAL}, over all seeds.")
        parts += ["", "```yaml", INPUTS[case].format(seed=1).rstrip(), "```"]
    parts += gn_section(results)
    parts += sooner_section(results.get("sooner", {}))
    parts += starts_section(results.get("same_starts", []))
    parts += first_cycles_section(results.get("first_cycles", {}))
    parts += ["", "## Losses over the iterations", "", f"![losses](figures/{FIGURE.name})"]
    return "\n".join(parts) + "\n"


def gn_section(results: dict) -> list[str]:
    """Fits of this program with GN-BFGS beside those of both programs with BFGS."""
    if "gn_bfgs" not in results:
        return []
    parts = [
        "",
        "## With GN-BFGS",
        "",
        "The same inputs with `optimizer: GN-BFGS` in this program, and the runs above, by their first seeds:",
        "",
        "| fit | of seeds | median loss, GN-BFGS | pacehpc, BFGS | pacemaker, BFGS | GN-BFGS over pacemaker |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case, found in results["gn_bfgs"].items():
        runs = results["cases"][case]
        n = min(len(found), *(len(runs[program]) for program in PROGRAMS))
        ours = float(np.median([run["loss"] for run in found[:n]]))
        both = medians(runs, "loss", n)
        parts.append(
            f"| {TITLES[case]} | {f'1 to {n}' if n > 1 else 1} | {ours:.4e} | {both['pacehpc']:.4e} | "
            f"{both['pacemaker']:.4e} | {ours / both['pacemaker']:.3f} |"
        )
    return parts


def sooner_section(found: dict) -> list[str]:
    """Time to pacemaker's loss."""
    if not found:
        return []
    m = found["machine"]
    parts = [
        "",
        "## Time to pacemaker's loss",
        "",
        f"Measured on {found['date']}, {m['processor']}, nothing else running, each program on one core of the same "
        "machine: the time of pacemaker's fit, and the time from the command until pacehpc with `optimizer: GN-BFGS` "
        "logs a loss as low as that fit's last one, start-up included. Cold: its kernels are compiled in this time; "
        "warm: an earlier fit has left them in the cache. In brackets: until the command has ended, which goes on to "
        "lower losses and draws a report.",
        "",
        "| fit | seed | loss | pacemaker, s | pacehpc warm, s | times sooner | cold, s | times sooner |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case, rows in found["cases"].items():
        for row in rows:
            cells = [TITLES[case], row["seed"], f"{row['loss']:.4e}", f"{row['pacemaker']:.0f}"]
            for kernels in ("warm", "cold"):
                of = row[kernels]
                cells += [f"{of['reached']:.2f} ({of['ended']:.1f})", f"{row['pacemaker'] / of['reached']:.0f}"]
            parts.append(f"| {' | '.join(map(str, cells))} |")
    return parts


def starts_section(rows: list[dict]) -> list[str]:
    """Lines of the page about the fits from equal starts."""
    if not rows:
        return []
    parts = [
        "",
        "## One cycle of Cu from the same starts",
        "",
        "Both programs go on for 200 iterations from the same files: the potential with which pacehpc ends the first "
        "cycle, disturbed as between cycles. Each program reports the loss at the start as well.",
        "",
        "| noise | pacehpc: at the start | at the end | pacemaker: at the start | at the end | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        us, them = row["pacehpc"], row["pacemaker"]
        parts.append(
            f"| {row['seed']} | {us['start']:.4e} | {us['loss']:.4e} | {them['start']:.4e} | {them['loss']:.4e} | "
            f"{us['loss'] / them['loss']:.3f} |"
        )
    us, them = (np.median([row[program]["loss"] for row in rows]) for program in PROGRAMS)
    return [*parts, f"| median | | {us:.4e} | | {them:.4e} | {us / them:.3f} |"]


def first_cycles_section(found: dict[str, dict]) -> list[str]:
    """Lines of the page about the ends of the first cycles."""
    if not found:
        return []
    parts = [
        "",
        "## From the ends of both first cycles of Cu",
        "",
        "The first cycle has no random numbers: all fits of a program share its end. Here pacehpc goes on from the "
        "ends of both programs, two cycles with each of the same noises.",
        "",
        "| first cycle of | loss at its end | noises | lower quartile of the final losses | median | upper quartile |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for program, row in found.items():
        quartiles = " | ".join(f"{q:.4e}" for q in np.quantile(row["losses"], [0.25, 0.5, 0.75]))
        parts.append(f"| {program} | {row['first']:.4e} | {len(row['losses'])} | {quartiles} |")
    return parts


def draw(results: dict) -> None:
    """Losses over iterations, one panel a case, one line a seed."""
    from matplotlib.figure import Figure

    cases = results["cases"]
    figure = Figure(figsize=(4 * len(cases), 3.2), layout="constrained")
    for axes, (case, runs) in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases.items(), strict=True):
        for program, colour in zip(PROGRAMS, ("#1f5a94", "#d1600a"), strict=True):
            for k, run in enumerate(runs[program]):
                label = None if k else program
                axes.semilogy(run["losses"], color=colour, lw=0.9, alpha=0.8, label=label)
        axes.set(title=TITLES[case], xlabel="Iteration, all steps and cycles", ylabel="Loss")
        axes.legend(frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
