"""GN-BFGS beside BFGS: evaluations and time to the losses that BFGS has after 500, 1000, 2000 and 4000 evaluations.

    python benchmarks/optimizer.py run CASE SPLIT METHOD [SEED] [--ranks 2]  # one run, into results/optimizer/
    python benchmarks/optimizer.py all [--cases cu_82 ...]          # every run of the plan that is not there yet
    python benchmarks/optimizer.py wall CASE...                     # wall time on 1 and 2 ranks of an idle machine
    python benchmarks/optimizer.py page                             # docs/performance.md and its figure from the runs

`page` keeps what results/optimizer.json says of cases whose runs are not there.

A run is one minimisation with one thread per rank; what counts first are its evaluations, which do not depend on the
load of the machine. A fifth of the structures, drawn by the number of the split, are the test set (the Zuo 2020 data
have test sets of their own). Renewals of GN-BFGS are charged with the evaluations that the program predicts for them;
the table shows beside it what they took, in processor time over that of the run's median evaluation. Nothing is chosen
after the fact: the plan is below.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from compare import replace_between_marks
from evaluation import machine

from pacehpc import Objective, Ranks, load_dataset
from pacehpc.backends.interface import EvaluatorOptions
from pacehpc.config.optimizers import check_options
from pacehpc.fit.bfgs import InverseHessian, Iterate
from pacehpc.fit.gauss_newton import Renewals, split_options
from pacehpc.fit.optimizers import minimize
from pacehpc.fit.renewal_plan import plan_of, renewals_of
from pacehpc.potential import build_potential
from pacehpc.yamlio import load_yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "optimizer.json"
SHARED = ROOT.parent / "shared"
RUNS = ROOT / "benchmarks" / "results" / "optimizer"
MARKS = (500, 1000, 2000, 4000)  # evaluations of BFGS
TEST_SHARE = 0.2
BASELINE, METHOD = "BFGS", "GN-BFGS"


@dataclass(frozen=True)
class Case:
    """An input, its data, and the runs that are made of it."""

    splits: tuple[int, ...]
    seeds: tuple[int, ...]
    input: Path | None = None
    data: str = ""
    test: str = ""
    """A test set of its own; "": a share of the data, drawn by the number of the split."""
    reference: dict[str, float] | None = None
    element: str = ""
    """Of the Zuo 2020 benchmark, whose potential is made here."""
    loss: dict[str, float] | None = None
    """None: that of the input."""


def _bench(name: str, data: str, splits: tuple[int, ...], seeds: tuple[int, ...]) -> Case:
    return Case(splits, seeds, SHARED / "bench" / f"{name}.yaml", str(SHARED / "data" / data))


def _zuo(element: str, free_atom: float, seeds: tuple[int, ...]) -> Case:
    train, test = (str(SHARED / "zuo2020" / f"{element}_{part}.extxyz.gz") for part in ("train", "test"))
    return Case((0,), seeds, None, train, test, {element: free_atom}, element)


COPPER = "Cu_df1_A1_A2_A3_EV_elast_phon.pckl.gzip"
AL_NI = ROOT / "examples" / "al_ni"
CASES = {
    "cu_82": _bench("cu_82", COPPER, (0, 1, 2), (1, 2, 3)),
    "cu_529": _bench("cu_529", COPPER, (0, 1, 2), (1, 2, 3)),
    "al_ni": Case(
        (0, 1, 2),
        (1, 2, 3),
        AL_NI / "input.yaml",
        str(AL_NI / "al_ni.pckl.gzip"),
        "",
        {"Al": 3.28, "Ni": 4.44},
        loss={"kappa": 0.3, "L1_coeffs": 1e-8, "L2_coeffs": 1e-8},
    ),
    "ethanol_756": _bench("ethanol_756", "ethanol.pckl.gzip", (0, 1), (1, 2)),
    "ethanol_4836": _bench("ethanol_4836", "ethanol.pckl.gzip", (0,), (1,)),
    "hea_435": _bench("hea_435", "HEA_randII_example.pckl.gzip", (0, 1), (1, 2)),
    "zuo_mo": _zuo("Mo", -4.62, (1, 2, 3)),
    "zuo_si": _zuo("Si", -0.87, (1, 2, 3)),
}


def zuo_input(element: str) -> dict:
    """500 functions up to body order 6."""
    return {
        "potential": {
            "deltaSplineBins": 0.001,
            "elements": [element],
            "embeddings": {
                "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}
            },
            "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 5.5, "dcut": 0.01}},
            "functions": {
                "number_of_functions_per_element": 500,
                "ALL": {"nradmax_by_orders": [15, 6, 4, 3, 2], "lmax_by_orders": [0, 4, 3, 2, 1]},
            },
        },
        "fit": {"loss": {"kappa": 0.02, "L1_coeffs": 1e-8, "L2_coeffs": 1e-8}},
    }


def objective_of(name: str, split: int, ranks: Ranks | None = None) -> Objective:
    """Loss of a case, its test set included; one thread per rank."""
    case = CASES[name]
    settings = zuo_input(case.element) if case.element else load_yaml(case.input)
    potential = build_potential(settings["potential"])
    data = load_dataset(case.data, elements=potential.elements, reference_energy=case.reference)
    if case.test:
        train, test = data, load_dataset(case.test, elements=potential.elements, reference_energy=case.reference)
    else:
        order = np.random.default_rng(split).permutation(len(data))
        n_test = round(TEST_SHARE * len(data))
        train, test = data.subset(np.sort(order[n_test:])), data.subset(np.sort(order[:n_test]))
    options = EvaluatorOptions(threads=1)
    return Objective(
        potential,
        train,
        loss=case.loss or settings["fit"]["loss"],
        backend="cpu",
        ranks=ranks,
        test=test,
        options=options,
    )


class Trace:
    """The objective as an optimizer sees it; remembers the lowest loss, and the point, by evaluation."""

    def __init__(self, objective: Objective, targets: dict[str, float], limit: int) -> None:
        """targets: losses whose first point is wanted; without, the marks by evaluation. limit: evaluations."""
        self.objective, self.limit = objective, limit
        self.open = dict(targets)
        self.marks: tuple[int, ...] = () if targets else MARKS
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.best, self.x, self.metrics = np.inf, objective.x, {}
        self.found: dict[str, dict] = {}
        self.renewals: list[dict] = []

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray, dict[str, float]]:
        start = time.process_time()
        loss, gradient, metrics = self.objective.evaluate(x)
        self.seconds.append(time.process_time() - start)
        if loss < self.best:
            self.best, self.x, self.metrics = loss, x.copy(), metrics
        self.losses.append(self.best)
        count = len(self.losses)
        for name in [name for name, target in self.open.items() if self.best <= target]:
            del self.open[name]
            self._note(name)
        if count in self.marks:
            self._note(str(count))
        return loss, gradient, metrics

    def timed(self, renewals: Renewals) -> Renewals:
        """With the time of each renewal, without its probes, in `renewals`."""
        original = renewals.renew

        def renew(f: Callable, iterate: Iterate, failed: bool) -> InverseHessian | None:
            count, start, elsewhere = renewals.count, time.process_time(), sum(self.seconds)
            found = original(f, iterate, failed)
            if renewals.count > count:
                seconds = time.process_time() - start - (sum(self.seconds) - elsewhere)
                self.renewals.append(
                    {"evaluations": len(self.losses), "mu": renewals.mu, "failed": failed, "seconds": seconds}
                )
            return found

        renewals.renew = renew
        return renewals

    def _note(self, name: str) -> None:
        test = self.objective.evaluate_test(self.x)
        errors = {
            f"{of}{key}": metrics[key]
            for of, metrics in (("", self.metrics), ("test_", test))
            for key in ("rmse_epa", "rmse_f_comp")
        }
        self.found[name] = {
            "loss": self.best,
            "evaluations": len(self.losses),
            "renewals": len(self.renewals),
            "renewal_seconds": sum(r["seconds"] for r in self.renewals),
            "evaluation_seconds": sum(self.seconds),
            "wall_seconds": time.perf_counter() - self.began,
            "processor_seconds": time.process_time() - self.began_processor,
            "largest_coefficient": float(np.abs(self.x).max()),
            **errors,
        }

    def minimise(self, method: str, options: dict, **further: object) -> str:
        """Until `limit` evaluations, or all targets are reached; returns why it ended."""
        self.began, self.began_processor = time.perf_counter(), time.process_time()
        wanted = bool(self.open)

        def enough(x: np.ndarray, metrics: dict, iteration: int, evaluations: int) -> bool:
            return evaluations >= self.limit or (wanted and not self.open)

        message = minimize(self, self.objective.x, method, 10**6, options, enough, **further).message
        for mark in self.marks:  # ended before: its last loss counts, with the evaluations that it took
            if mark > len(self.losses):
                self._note(str(mark))
        return message


def path_of(name: str, split: int, method: str, seed: int = 0, ranks: int = 1) -> Path:
    """Of the result of a run."""
    parts = [name, split, method] + [seed] * (method == METHOD) + [f"{ranks}ranks"] * (ranks > 1)
    return RUNS / ("_".join(map(str, parts)) + ".json")


def run(name: str, split: int, method: str, seed: int = 0) -> None:
    """One run by all ranks of this job; its result goes to `path_of`."""
    ranks = Ranks.world()
    objective = objective_of(name, split, ranks)
    if not ranks.root:
        objective.serve()
        return
    targets, limit, further, chosen = {}, max(MARKS) + 40, {}, None
    options = check_options(method, {})
    if method == METHOD:
        base = json.loads(path_of(name, split, BASELINE).read_text())
        targets = {mark: found["loss"] for mark, found in base["found"].items()}
        limit = round(1.1 * max(int(mark) for mark in targets))
    trace = Trace(objective, targets, limit)
    if method == METHOD:
        own, options = split_options(options)
        chosen = plan_of(objective, own)
        further["renewals"] = trace.timed(renewals_of(objective, own, chosen, seed))
    load = os.getloadavg()[0]
    message = trace.minimise(method, options, **further)
    objective.close()
    result = {
        "case": name, "split": split, "method": method, "seed": seed, "ranks": ranks.size, "message": message,
        "plan": None if chosen is None else asdict(chosen),
        "parameters": len(objective.x), "structures": objective.sizes.n_structures,
        "atoms": int(objective.sizes.species.sum()), "bonds": objective.sizes.n_bonds,
        "load": [load, os.getloadavg()[0]],
        "evaluations": len(trace.losses), "loss": trace.best, "wall_seconds": time.perf_counter() - trace.began,
        "median_evaluation_seconds": float(np.median(trace.seconds)),
        "evaluation_seconds": float(sum(trace.seconds)),
        "found": trace.found, "renewals": trace.renewals,
        "losses": trace.losses[:100] + trace.losses[100::10],
    }  # fmt: skip
    RUNS.mkdir(parents=True, exist_ok=True)
    path_of(name, split, method, seed, ranks.size).write_text(json.dumps(result) + "\n")
    print(f"{name} {split} {method} {seed}: {trace.best:.4e} after {len(trace.losses)}: {message}", flush=True)


def plan(names: list[str], methods: list[str]) -> list[tuple[str, int, str, int]]:
    """Runs in order: baselines first."""
    runs: list[tuple[str, int, str, int]] = []
    for method in methods:
        for name in names:
            case = CASES[name]
            seeds = case.seeds if method == METHOD else (0,)
            runs += [(name, split, method, seed) for split in case.splits for seed in seeds]
    return runs


def gather() -> dict:
    """What the runs say, for the page: factors and ratios of test errors of every run at every mark, and curves."""
    cases = {}
    for name, case in CASES.items():
        rows, curves = [], []
        for split in case.splits:
            if not path_of(name, split, BASELINE).exists():
                continue
            base = json.loads(path_of(name, split, BASELINE).read_text())
            ours = [
                json.loads(p.read_text()) for p in (path_of(name, split, METHOD, s) for s in case.seeds) if p.exists()
            ]
            rows += [compared(base, one) for one in ours]
            curves += [curve(one) for one in (base, *ours)] if split == case.splits[0] else []
        if rows:
            first = json.loads(path_of(name, case.splits[0], BASELINE).read_text())
            about = {key: first[key] for key in ("parameters", "structures", "atoms")}
            cases[name] = about | {"date": date.today().isoformat(), "runs": rows, "curves": curves}
    return cases


def curve(found: dict) -> dict:
    """Evaluations, renewals charged, and the lowest loss, at about a hundred points of a run."""
    losses = np.array(found["losses"])
    counts = np.concatenate([np.arange(1, 101), np.arange(101, found["evaluations"] + 1, 10)])[: len(losses)].astype(
        float
    )
    if found["method"] == METHOD:
        at = np.array([renewal["evaluations"] for renewal in found["renewals"]])
        counts += found["plan"]["cost"] * np.searchsorted(at, counts)
    kept = np.unique(np.geomspace(1, len(losses), 120).astype(int)) - 1
    return {
        "method": found["method"], "seed": found["seed"],
        "evaluations": counts[kept].round(1).tolist(), "losses": [float(f"{loss:.4g}") for loss in losses[kept]],
    }  # fmt: skip


def compared(base: dict, ours: dict) -> dict:
    """A run of GN-BFGS beside BFGS on the same data."""
    found = {"split": ours["split"], "seed": ours["seed"], "marks": {}}
    found["renewal"] = {
        "predicted": ours["plan"]["cost"],
        "measured": float(np.median([r["seconds"] for r in ours["renewals"]])) / ours["median_evaluation_seconds"],
        "rows": ours["plan"]["n_rows"],
        "interval": ours["plan"]["interval"],
    }
    for mark, theirs in base["found"].items():
        if mark not in ours["found"]:
            found["marks"][mark] = {"missed": True, "evaluations": ours["evaluations"], "bfgs": theirs["evaluations"]}
            continue
        reached = ours["found"][mark]
        charged = reached["evaluations"] + reached["renewals"] * ours["plan"]["cost"]
        found["marks"][mark] = {
            "loss": theirs["loss"],
            "bfgs": theirs["evaluations"],
            "evaluations": reached["evaluations"],
            "renewals": reached["renewals"],
            "factor": theirs["evaluations"] / charged,
            # at the same time of an evaluation, and with nothing charged for BFGS's own updates
            "time": theirs["evaluations"] * ours["median_evaluation_seconds"] / reached["processor_seconds"],
            "test_energy": reached["test_rmse_epa"] / theirs["test_rmse_epa"],
            "test_forces": reached["test_rmse_f_comp"] / theirs["test_rmse_f_comp"],
        }
    return found


def geometric(values: list[float]) -> float:
    """Geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


def measure_wall(name: str) -> None:
    """Wall time of both methods to the last mark of BFGS, first split and seed, into the results of a case."""
    case = CASES[name]
    rows = []
    for ranks in (1, 2):
        row: dict[str, float] = {"ranks": ranks, "load": os.getloadavg()[0]}
        for method, seed in ((BASELINE, 0), (METHOD, case.seeds[0])):
            launch(ranks, name, case.splits[0], method, seed)
            found = json.loads(path_of(name, case.splits[0], method, seed, ranks).read_text())["found"]
            row[method] = found[max(found, key=int)]["wall_seconds"]
        rows.append(row)
    results = json.loads(RESULTS.read_text())
    results["cases"][name]["wall"] = {"date": date.today().isoformat(), "rows": rows}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def wall_table(cases: dict) -> str:
    """Wall time of cases that have been measured."""
    lines = ["| input | ranks | BFGS, s | GN-BFGS, s | times sooner |", "| --- | --- | --- | --- | --- |"]
    for name, case in cases.items():
        for row in case.get("wall", {"rows": []})["rows"]:
            numbers = f"{row[BASELINE]:.0f} | {row[METHOD]:.0f} | {row[BASELINE] / row[METHOD]:.1f}"
            lines.append(f"| {name} | {row['ranks']} | {numbers} |")
    return "\n".join(lines)


def table(cases: dict) -> str:
    """Factors by case and mark, and test errors at equal training loss."""
    marks = [str(mark) for mark in MARKS]
    lines = [
        "| input | parameters | atoms | runs | " + " | ".join(marks) + " |",
        "| --- |" + " --- |" * (3 + len(marks)),
    ]
    rest = ["| input | time | a renewal costs | test energies | test forces |", "| --- |" + " --- |" * 4]
    means: dict[str, list[float]] = {mark: [] for mark in marks}
    for name, case in cases.items():
        cells = []
        for mark in marks:
            found = [run["marks"][mark] for run in case["runs"] if mark in run["marks"]]
            if not found:
                cells.append("not run")
                continue
            factors = [one["factor"] for one in found if "factor" in one]
            missed = len(found) - len(factors)
            if not factors:
                cells.append("not reached")
                continue
            means[mark].append(geometric(factors))
            spread = f" ({min(factors):.1f}–{max(factors):.1f})" if len(factors) > 1 else ""
            cells.append(f"{geometric(factors):.1f}{spread}" + f", {missed} not reached" * bool(missed))
        last = max((mark for run in case["runs"] for mark in run["marks"]), key=int)
        ends = [run["marks"][last] for run in case["runs"] if "factor" in run["marks"].get(last, {})]
        errors = [
            f"{np.median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if values else "–"
            for values in ([end[key] for end in ends] for key in ("test_energy", "test_forces"))
        ]
        seconds = f"{geometric([end['time'] for end in ends]):.1f}" if ends else "–"
        renewal = [run["renewal"] for run in case["runs"]]
        cost = f"{renewal[0]['predicted']:.0f} ({np.median([r['measured'] for r in renewal]):.0f})"
        lines.append(
            f"| {name} | {case['parameters']} | {case['atoms']} | {len(case['runs'])} | " + " | ".join(cells) + " |"
        )
        rest.append("| " + " | ".join([name, seconds, cost, *errors]) + " |")
    overall = [f"**{geometric(means[mark]):.1f}**" if means[mark] else "–" for mark in marks]
    lines.append("| geometric mean | | | | " + " | ".join(overall) + " |")
    return "\n".join([*lines, "", *rest])


def draw(cases: dict) -> None:
    """Loss by evaluations of both methods, the first split of every case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(12, 6))
    for axis, (name, case) in zip(axes.flat, cases.items(), strict=False):
        labelled = set()
        for one in case["curves"]:
            method, losses = one["method"], np.array(one["losses"])
            label = None if method in labelled else method
            axis.loglog(one["evaluations"], losses, color="0.5" if method == BASELINE else "C0", label=label)
            labelled.add(method)
        axis.set_title(f"{name}, {case['parameters']} parameters", fontsize=9)
        axis.set_xlim(30, 4200)
        early = np.searchsorted(one["evaluations"], 30)
        axis.set_ylim(0.8 * losses[-1], 1.5 * losses[min(early, len(losses) - 1)])
    for axis in axes.flat[len(cases) :]:
        axis.set_axis_off()
    axes.flat[0].legend()
    figure.supxlabel("evaluations, renewals charged")
    figure.supylabel("training loss")
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "figures" / "gn_bfgs.png", dpi=110)


def page() -> None:
    """The results in one file, docs/performance.md and its figure."""
    known, found = json.loads(RESULTS.read_text())["cases"] if RESULTS.exists() else {}, gather()
    for name in set(found) & set(known):
        found[name] |= {"wall": known[name]["wall"]} if "wall" in known[name] else {}
    cases = {name: (known | found)[name] for name in CASES if name in known or name in found}
    results = {"date": date.today().isoformat(), "machine": machine(), "cases": cases}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    m = results["machine"]
    dates = " and ".join(sorted({case["date"] for case in cases.values()}))
    note = f"\n\n{m['processor']}, {m['cores']} cores, {dates}, one rank with one thread."
    replace_between_marks("gn_bfgs", table(cases) + note)
    replace_between_marks("gn_bfgs wall", wall_table(cases))
    if all("curves" in case for case in cases.values()):
        draw(cases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("case", choices=CASES)
    one.add_argument("split", type=int)
    one.add_argument("method", choices=(BASELINE, METHOD))
    one.add_argument("seed", type=int, nargs="?", default=0)
    one.add_argument("--ranks", type=int, default=1)
    every = commands.add_parser("all")
    every.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    every.add_argument("--methods", nargs="+", choices=(BASELINE, METHOD), default=[BASELINE, METHOD])
    wall = commands.add_parser("wall")
    wall.add_argument("cases", nargs="+", choices=CASES)
    commands.add_parser("page")
    arguments = parser.parse_args()
    if arguments.command == "page":
        page()
    elif arguments.command == "wall":
        for name in arguments.cases:
            measure_wall(name)
    elif arguments.command == "all":
        for chosen in plan(arguments.cases, arguments.methods):
            if not path_of(*chosen).exists():
                launch(1, *chosen)
    elif arguments.ranks > 1:
        launch(arguments.ranks, arguments.case, arguments.split, arguments.method, arguments.seed)
    else:
        run(arguments.case, arguments.split, arguments.method, arguments.seed)


def launch(ranks: int, *of_run: object) -> None:
    """A run in processes of its own."""
    mpirun = [str(Path(sys.executable).parent / "mpirun"), "-n", str(ranks)] if ranks > 1 else []
    subprocess.run(
        [*mpirun, sys.executable, __file__, "run", *map(str, of_run)],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


if __name__ == "__main__":
    main()
