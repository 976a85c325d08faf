"""The page of a fit."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from bokeh.models import Span

from pacehpc.potential import Potential
from pacehpc.report.colours import COLOURS, Colours
from pacehpc.report.groups import group_rows
from pacehpc.report.iterations import global_iterations, starts_of
from pacehpc.report.page import charts, tables
from pacehpc.report.page.charts import Chart, Points
from pacehpc.report.page.html import write_html
from pacehpc.report.page.rows import error, files_text, number, seconds_text, set_name, span
from pacehpc.report.page.sample import sample, sample_text
from pacehpc.report.predictions import Compared
from pacehpc.report.summary import FitSummary

CURVES = (
    ("loss", 1.0, "loss"),
    ("rmse_epa", 1000.0, "RMSE energy (meV/atom)"),
    ("rmse_f_comp", 1000.0, "RMSE force (meV/Å)"),
    ("rmse_stress", 1.0, "RMSE stress (GPa)"),
)
Curves = Mapping[str, Mapping[str, np.ndarray]]


def write_page(folder: str | os.PathLike[str], summary: FitSummary, data: Sequence[Compared], curves: Curves) -> Path:
    """Write report/index.html in the folder of a fit.

    Args:
        folder: of the fit; holds the potential.
        summary: of the fit.
        data: its data sets with predictions.
        curves: the columns of metrics.txt ("train") and test_metrics.txt ("test"), {} where there are none.
    """
    folder = Path(folder)
    potential = Potential.load(folder / summary.potential)
    page = _Page(data)
    curve_charts = {"linear": _curves(curves, False), "log": _curves(curves, True)}
    sections = {
        "distributions": _distributions(data),
        "parity": [chart for one in data for chart in page.parities(one)],
        "stress": [chart for one in data for chart in page.stress(one)],
        "groups": _groups(data),
        "grades": [chart for one in data for chart in page.grades(one)],
        "uncertainty": [chart for one in data for chart in page.uncertainty(one)],
    }
    all_charts = [*curve_charts["linear"], *curve_charts["log"], *(c for found in sections.values() for c in found)]
    path = folder / "report" / "index.html"
    path.parent.mkdir(exist_ok=True)
    write_html(
        path,
        "fit.html",
        all_charts,
        page.known(),
        contents=_contents(sections, bool(curve_charts["linear"])),
        folder=folder.resolve().name,
        title=f"{' '.join(potential.elements)}: {summary.functions} functions",
        summary=summary,
        numbers=_numbers(summary),
        errors=tables.errors_table(summary, data),
        files=_files(summary),
        ranges=tables.ranges_table(data),
        elements=tables.element_table(data),
        basis=tables.potential_tables(potential),
        curves=curve_charts,
        marks=_marks(curves["train"]),
        sections=sections,
        legend=page.legend(),
        notes=page.notes,
        group_errors=tables.group_errors_table(data),
        worst=[tables.worst_table(one) for one in data],
        time=tables.time_tables(summary),
        scaling=tables.scaling_text(summary),
        commands=_commands(summary),
    )
    return path


class _Page:
    """Figures whose points are structures or atoms, and what their hovers look up."""

    def __init__(self, data: Sequence[Compared]) -> None:
        self.notes: dict[str, list[str]] = {}
        everything = np.concatenate([one.groups for one in data]) if data else np.array([])
        self._colours = Colours.of(everything)
        ends = np.cumsum([len(one) for one in data])
        self._colour_of = {
            one.which: np.zeros(len(one), int) if self._colours is None else self._colours.number[end - len(one) : end]
            for one, end in zip(data, ends, strict=True)
        }
        self._palette = COLOURS[: 1 if self._colours is None else len(self._colours.names)]
        self._shown: dict[str, dict[int, int]] = {one.which: {} for one in data}  # structure -> its number in the page
        self._data = {one.which: one for one in data}

    def legend(self) -> list[tuple[str, str]]:
        """Name and colour of each group; [] without groups."""
        return [] if self._colours is None else list(zip(self._colours.names, self._palette, strict=True))

    def known(self) -> dict:
        """What hovers look up: the structures that are drawn, and symbols of elements."""
        structures = {}
        for which, shown in self._shown.items():
            one, several = self._data[which], len(set(self._data[which].files)) > 1
            text = []
            for k in shown:
                of = f" of {one.files[k]}" if several and one.files[k] else ""
                text.append(", ".join(filter(None, (f"row {one.labels[k]}{of}", str(one.names[k])))))
            structures[which] = {"text": text, "group": [str(one.groups[k]) for k in shown]}
        return {"structures": structures, "symbols": chemical_symbols}

    def parities(self, one: Compared) -> list[Chart]:
        """Predicted over reference energies and force components."""
        found = []
        structures = np.flatnonzero(one.known_energy)
        if len(structures):
            errors = 1000 * (one.energy_pred - one.energy)[structures]
            more = {} if one.energy_std is None else {"std": 1000 * one.energy_std[structures]}
            points = self._points(
                one, "parity", "structures", one.energy[structures], one.energy_pred[structures], errors, structures,
                more,
            )  # fmt: skip
            plot = charts.parity(points, self._palette, "energy", "eV/atom", "meV/atom")
            found.append(_parity_chart(plot, one, "energy", "Energies", errors, "meV/atom"))
        components = self._force_components(one)
        if len(components):
            atoms = components // 3
            reference, predicted = (np.ravel(values)[components] for values in (one.forces, one.forces_pred))
            errors = 1000 * (predicted - reference)
            more = self._atoms(one, atoms)
            if one.forces_std is not None:
                more["std"] = 1000 * np.ravel(one.forces_std)[components]
            points = self._points(
                one, "parity", "force components", reference, predicted, errors, one.structure_of_atom[atoms], more
            )
            plot = charts.parity(points, self._palette, "force component", "eV/Å", "meV/Å")
            found.append(_parity_chart(plot, one, "force", "Force components", errors, "meV/Å"))
        return found

    def stress(self, one: Compared) -> list[Chart]:
        """Predicted over reference stress components."""
        structures = np.flatnonzero(one.known_stress)
        if not len(structures):
            return []
        reference, predicted = one.stress[structures].ravel(), one.stress_pred[structures].ravel()
        errors = predicted - reference
        points = self._points(
            one, "stress", "stress components", reference, predicted, errors, np.repeat(structures, 6), {}
        )
        plot = charts.parity(points, self._palette, "stress component", "GPa", "GPa")
        return [_parity_chart(plot, one, "stress", "Stress components", errors, "GPa")]

    def grades(self, one: Compared) -> list[Chart]:
        """Errors of the atoms' forces over their grades."""
        if one.grades is None:
            return []
        errors = 1000 * np.linalg.norm(one.forces_pred - one.forces, axis=1)
        atoms = np.flatnonzero((one.grades > 0) & (errors > 0))
        if not len(atoms):
            return []
        points = self._points(
            one, "grades", "atoms", one.grades[atoms], errors[atoms], errors[atoms], one.structure_of_atom[atoms],
            self._atoms(one, atoms, grade=False),
        )  # fmt: skip
        plot = charts.error_over(points, self._palette, "extrapolation grade γ", "|ΔF| (meV/Å)", "meV/Å")
        plot.add_layout(Span(location=1, dimension="height", line_color=charts.TEXT, line_dash="dashed"))
        above = np.count_nonzero(one.grades > 1)
        return [
            charts.chart(
                f"grade-{one.which}", plot, f"Errors of the atoms' forces over their grades, {set_name(one.which)}",
                f"Scatter of force errors over extrapolation grades; {above} of {len(one.grades)} atoms have grades "
                "above 1",
            )
        ]  # fmt: skip

    def uncertainty(self, one: Compared) -> list[Chart]:
        """|Errors| over predicted standard deviations, of energies and force components."""
        found = []
        if one.energy_std is not None:
            errors = 1000 * np.abs(one.energy_pred - one.energy)
            chosen = np.flatnonzero((one.energy_std > 0) & (errors > 0))
            found += self._over_std(one, "energy", 1000 * one.energy_std[chosen], errors[chosen], chosen, {})
        if one.forces_std is not None:
            errors, std = 1000 * np.abs(one.forces_pred - one.forces).ravel(), 1000 * np.ravel(one.forces_std)
            chosen = np.flatnonzero((std > 0) & (errors > 0))
            atoms = chosen // 3
            more = self._atoms(one, atoms)
            found += self._over_std(one, "force", std[chosen], errors[chosen], one.structure_of_atom[atoms], more)
        return found

    def _over_std(
        self, one: Compared, kind: str, std: np.ndarray, errors: np.ndarray, structures: np.ndarray, more: dict
    ) -> list[Chart]:
        if not len(std):
            return []
        unit = {"energy": "meV/atom", "force": "meV/Å"}[kind]
        what = {"energy": "structures", "force": "force components"}[kind]
        points = self._points(one, "uncertainty", what, std, errors, errors, structures, more)
        plot = charts.error_over(
            points,
            self._palette,
            f"predicted σ ({unit})",
            f"|Δ{'E' if kind == 'energy' else 'F'}| ({unit})",
            ("", unit),
        )
        low, high = max(std.min(), errors.min()), min(std.max(), errors.max())
        if low < high:
            plot.line([low, high], [low, high], color=charts.TEXT, line_width=1.5)
        inside = np.mean(errors < std)
        return [
            charts.chart(
                f"std-{kind}-{one.which}", plot,
                f"{'Energies' if kind == 'energy' else 'Force components'}, {set_name(one.which)}: "
                f"{100 * inside:.0f} % of the errors are below σ (68 % if errors are normal and σ is right)",
                f"Scatter of errors over predicted standard deviations; {100 * inside:.0f} % lie below the diagonal",
            )
        ]  # fmt: skip

    def _force_components(self, one: Compared) -> np.ndarray:
        """Numbers of the components that have a reference value, in the flat (3 n_atoms,) forces."""
        return np.flatnonzero(np.repeat(one.known_forces, 3))

    def _atoms(self, one: Compared, atoms: np.ndarray, grade: bool = True) -> dict[str, np.ndarray]:
        """Columns that say which atoms points are of."""
        first = one.atom_offsets[one.structure_of_atom[atoms]]
        more = {"element": one.numbers[atoms].astype(np.int32), "atom": (atoms - first).astype(np.int32)}
        if grade and one.grades is not None:
            more["grade"] = one.grades[atoms].astype(np.float32)
        return more

    def _points(
        self, one: Compared, section: str, what: str, x: np.ndarray, y: np.ndarray, errors: np.ndarray,
        structures: np.ndarray, more: dict[str, np.ndarray],
    ) -> Points:  # fmt: skip
        """The points that are drawn; what is left out is noted."""
        kept = sample(errors)
        note = sample_text(len(kept), len(errors), f"{what} of the {set_name(one.which)}")
        if note:
            self.notes.setdefault(section, []).append(note)
        shown = self._shown[one.which]
        numbers = [shown.setdefault(k, len(shown)) for k in structures[kept].tolist()]
        kind = np.float64 if what == "structures" else np.float32  # energies differ in late digits
        return Points(
            one.which, x[kept].astype(kind), y[kept].astype(kind), errors[kept].astype(np.float32),
            np.array(numbers, np.int32), self._colour_of[one.which][structures[kept]],
            {name: values[kept] for name, values in more.items()},
        )  # fmt: skip


def _contents(sections: Mapping[str, Sequence[Chart]], curve: bool) -> list[tuple[str, str]]:
    """Anchors and names of the sections that are there."""
    names = {
        "errors": "Errors", "stress": "Stress", "groups": "Groups", "worst": "Worst structures", "grades": "Grades",
        "uncertainty": "Uncertainty", "curve": "Learning curve", "data": "Data", "basis": "Basis", "time": "Time",
        "settings": "Settings", "next": "What to do next",
    }  # fmt: skip
    absent = {anchor for anchor in ("stress", "groups", "grades", "uncertainty") if not sections[anchor]}
    absent |= set() if curve else {"curve"}
    return [(anchor, name) for anchor, name in names.items() if anchor not in absent]


def _marks(train: Mapping[str, np.ndarray]) -> str:
    """What the lines across the learning curve are."""
    starts = starts_of(train) if train else {}
    steps = {step for step, _ in starts}
    said = ["Solid, numbered lines: ladder steps."] if len(steps) > 1 else []
    return " ".join([*said, *(["Dotted lines: cycles."] if len(starts) > len(steps) else [])])


def _parity_chart(plot: object, one: Compared, kind: str, what: str, errors: np.ndarray, unit: str) -> Chart:
    rmse, mae = np.sqrt(np.mean(errors**2)), np.mean(np.abs(errors))
    numbers = f"RMSE {error(rmse)} {unit}, MAE {error(mae)} {unit}"
    return charts.chart(
        f"{kind}-{one.which}", plot, f"{what}, {set_name(one.which)}, {len(one):,} structures: {numbers}",
        f"Scatter of predicted over reference values: {what.lower()} of the {set_name(one.which)}. {numbers}",
    )  # fmt: skip


def _curves(curves: Curves, logarithmic: bool) -> list[Chart]:
    train = curves["train"]
    if not train or not len(train["loss"]):
        return []
    starts, found = starts_of(train), []
    for name, factor, label in CURVES:
        drawn = {}
        for which, table in curves.items():
            if table and name in table and np.isfinite(table[name]).any():
                drawn[which] = (global_iterations(table, starts), factor * table[name], table["iter_num"])
        if not any((y > 0).any() for _, y, _ in drawn.values()):
            continue
        plot = charts.learning_curve(drawn, starts, label, logarithmic)
        y = drawn["train"][1] if "train" in drawn else next(iter(drawn.values()))[1]
        change = f"{number(y[0])} at the start, {number(y[-1])} at the end"
        caption = label[0].upper() + label[1:]
        found.append(
            charts.chart(f"curve-{name}-{'log' if logarithmic else 'linear'}", plot, caption, f"{caption}: {change}")
        )
    return found


def _distributions(data: Sequence[Compared]) -> list[Chart]:
    with np.errstate(invalid="ignore"):
        columns = (
            ("energies", "energy (eV/atom)", {one.which: one.energy for one in data}),
            (
                "volumes", "volume (Å³/atom)",
                {one.which: np.where(one.volumes > 0, one.volumes / one.atoms, np.nan) for one in data},
            ),
            ("distances", "shortest distance (Å)", {one.which: one.nn_min for one in data}),
            (
                "forces", "force (eV/Å)",
                {one.which: np.linalg.norm(one.forces[one.known_forces], axis=1) for one in data},
            ),
        )  # fmt: skip
    found = []
    for key, label, values in columns:
        if not any(np.isfinite(v).any() for v in values.values()):
            continue
        of = "atoms" if key == "forces" else "structures"
        plot = charts.histogram(values, label, of)
        ranges = "; ".join(f"{set_name(which)} {span(v)}" for which, v in values.items())
        caption = label[0].upper() + label[1:]
        found.append(charts.chart(f"distribution-{key}", plot, caption, f"Histogram. {caption}: {ranges}"))
    return found


def _groups(data: Sequence[Compared]) -> list[Chart]:
    rows = {one.which: {row["group"]: row for row in group_rows(one.errors)} for one in data if one.has_groups}
    names = list(dict.fromkeys(name for found in rows.values() for name in found))
    found = []
    for key, label in (("rmse_epa", "RMSE energy (meV/atom)"), ("rmse_f_comp", "RMSE force (meV/Å)")):
        values = {
            which: [1000 * of[name][key] if name in of else np.nan for name in names] for which, of in rows.items()
        }
        if not names or not any(np.isfinite(v).any() for v in values.values()):
            continue
        plot = charts.bars(names, values, label)
        found.append(charts.chart(f"groups-{key}", plot, f"{label} of each group", "The same numbers as in the table"))
    return found


def _files(summary: FitSummary) -> str:
    """Which files the data come from."""
    files = {which: files_text(Path(name).name for name in names) for which, names in summary.files.items()}
    if len(set(files.values())) == 1:
        return f"Data: {next(iter(files.values()))}"
    return "Data: " + "; ".join(f"{names} ({set_name(which)})" for which, names in files.items())


def _numbers(summary: FitSummary) -> list[tuple[str, str]]:
    """The first look: name and value."""
    found = []
    for which in ("test", "train"):
        errors = summary.errors.get(which)
        if errors is None:
            continue
        for key, name, unit in (("rmse_epa", "energy", "meV/atom"), ("rmse_f_comp", "force", "meV/Å")):
            found.append((f"RMSE {name}, {set_name(which)}", f"{number(1000 * errors[key], 3)} {unit}"))
    found.append(("functions", f"{summary.functions:,}"))
    found.append(("parameters", f"{summary.parameters:,}"))
    found.append(("largest cutoff", f"{summary.rcut:g} Å"))
    found.append(("wall time", seconds_text(summary.wall_seconds)))
    return found


def _commands(summary: FitSummary) -> list[tuple[str, str]]:
    """What to do next: a sentence and commands."""
    name = shlex.quote(summary.potential)
    stem = summary.potential.removesuffix(".yaml")
    asi, plugin = shlex.quote(f"{stem}.asi"), shlex.quote(f"{stem}plugin.so")
    return [
        (
            "Choose the active set, then evaluate any structures with extrapolation grades. Grades of the test set "
            "appear on this page.",
            f"pacehpc activeset {name} -d fitting_data_info.pckl.gzip\n"
            f"pacehpc predict {name} STRUCTURES -a {asi} -o pred.pckl.gzip",
        ),
        ("Compute physical properties.", f"pacehpc validate {name}"),
        (
            "Use the potential in LAMMPS: with a plugin of its own, or as a file for pair_style pace.",
            f"pacehpc lammps {name}        # writes {plugin}\npacehpc yaml2yace {name}",
        ),
        ("Measure its speed, and compare it with other fits.", f"pacehpc timing {name}\npacehpc compare . ../OTHER"),
    ]
