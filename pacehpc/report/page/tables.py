"""Tables of the page, as texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from pacehpc.potential import Potential
from pacehpc.report.groups import group_rows, worst_rows
from pacehpc.report.page.rows import Table, error, number, seconds_text, set_name, span
from pacehpc.report.potential_tables import block_rows, bond_rows, embedding_rows
from pacehpc.report.predictions import Compared
from pacehpc.report.summary import FitSummary

ERRORS = (
    ("Energy RMSE", "rmse_epa", 1000.0, "meV/atom"),
    ("Energy MAE", "mae_epa", 1000.0, "meV/atom"),
    ("Energy, largest", "max_ae_epa", 1000.0, "meV/atom"),
    ("Force RMSE", "rmse_f_comp", 1000.0, "meV/Å"),
    ("Force MAE", "mae_f_comp", 1000.0, "meV/Å"),
    ("Force, largest", "max_ae_f", 1000.0, "meV/Å"),
    ("Stress RMSE", "rmse_stress", 1.0, "GPa"),
)


def errors_table(summary: FitSummary, data: Sequence[Compared]) -> Table:
    """Final errors, a row for each quantity."""
    sets = list(summary.errors)
    stresses = {one.which: _stress_rmse(one) for one in data}
    rows = []
    for label, key, factor, unit in ERRORS:
        values = [stresses.get(which, np.nan) if unit == "GPa" else summary.errors[which][key] for which in sets]
        if np.isfinite(values).any():
            rows.append((f"{label} ({unit})", *(error(factor * value) for value in values)))
    return Table("Errors of the potential as it was written", ["", *map(set_name, sets)], rows)


def _stress_rmse(one: Compared) -> float:
    known = one.known_stress
    return float(np.sqrt(np.mean((one.stress_pred[known] - one.stress[known]) ** 2))) if known.any() else np.nan


def element_table(data: Sequence[Compared]) -> Table:
    """Atoms, structures and force errors of each element."""
    rows = []
    for one in data:
        squares = (one.forces_pred - one.forces) ** 2
        for z in np.unique(one.numbers).tolist():
            mine = one.numbers == z
            structures = len(np.unique(one.structure_of_atom[mine]))
            with np.errstate(invalid="ignore"):
                known = mine & one.known_forces
                rmse = 1000 * np.sqrt(squares[known].mean()) if known.any() else np.nan
            rows.append((one.which, chemical_symbols[z], number(mine.sum(), 9), number(structures, 9), error(rmse)))
    columns = ["set", "element", "atoms", "structures with it", "force RMSE (meV/Å)"]
    return Table("Elements", columns, rows, frozenset({0, 1}))


def ranges_table(data: Sequence[Compared]) -> Table:
    """Sizes of the sets and of their groups, and the ranges of energies, volumes and distances."""
    rows = []
    for one in data:
        names = one.errors.group_names if one.has_groups else []
        for name in ["all", *names]:
            mine = np.ones(len(one), bool) if name == "all" else one.groups == name
            atoms = one.atoms[mine]
            with np.errstate(invalid="ignore"):
                volumes = np.where(one.volumes[mine] > 0, one.volumes[mine] / atoms, np.nan)
            forces = np.linalg.norm(one.forces[np.repeat(mine, one.atoms)], axis=1)
            rows.append(
                (
                    one.which, name, number(mine.sum(), 9), number(atoms.sum(), 9), span(one.energy[mine]),
                    span(volumes, "{:.2f}"), span(one.nn_min[mine], "{:.2f}"),
                    "–" if not np.isfinite(forces).any() else f"{np.nanmax(forces):.2f}",
                )
            )  # fmt: skip
    columns = [
        "set", "group", "structures", "atoms", "energy (eV/atom)", "volume (Å³/atom)", "shortest distance (Å)",
        "largest force (eV/Å)",
    ]  # fmt: skip
    return Table("Sizes and ranges, by group of structures", columns, rows, frozenset({0, 1}))


def group_errors_table(data: Sequence[Compared]) -> Table | None:
    """Errors of each group; None without groups."""
    rows = []
    for one in data:
        if not one.has_groups:
            continue
        for row in group_rows(one.errors):
            values = ("rmse_epa", "mae_epa", "max_ae_epa", "rmse_f_comp", "mae_f_comp", "max_ae_f")
            errors = [error(1000 * row[key]) for key in values]
            rows.append((one.which, row["group"], number(row["structures"], 9), *errors))
    if not rows:
        return None
    columns = ["set", "group", "structures", "E RMSE", "E MAE", "E largest", "F RMSE", "F MAE", "F largest"]
    return Table("Errors by group: energies in meV/atom, force components in meV/Å", columns, rows, frozenset({0, 1}))


def worst_table(one: Compared) -> Table:
    """The worst structures of a set."""
    several = len(set(one.files)) > 1
    rows = []
    for row in worst_rows(one.errors):
        label = f"row {row['label']}" + (f" of {row['file']}" if several and row["file"] else "")
        words = [label, row["name"], row["group"]] if one.has_groups else [label, row["name"]]
        errors = [1000 * row[key] for key in ("energy_error_per_atom", "rmse_f_comp", "max_ae_f")]
        rows.append((*words, number(row["atoms"], 9), f"{errors[0]:+.2f}", *map(error, errors[1:])))
    words = ["structure", "name", "group"] if one.has_groups else ["structure", "name"]
    columns = [*words, "atoms", "ΔE (meV/atom)", "F RMSE (meV/Å)", "F largest (meV/Å)"]
    if not any(one.names) or list(one.names) == one.groups.tolist():
        rows, columns = [[*row[:1], *row[2:]] for row in rows], columns[:1] + columns[2:]
        words.pop()
    caption = f"The worst structures of the {set_name(one.which)}: the largest errors in energy or forces"
    return Table(caption, columns, rows, frozenset(range(len(words))))


def potential_tables(potential: Potential) -> list[Table]:
    """The basis: functions by block and rank, bonds, embeddings."""
    blocks = list(block_rows(potential))
    filled, name = [], ""
    for row in blocks[1:]:
        name = row[0] or name
        filled.append((name, *row[1:]))
    bonds, embeddings = list(bond_rows(potential)), list(embedding_rows(potential))
    return [
        Table("Functions by block and order (number of neighbours in a function)",
              ["block", "order", *blocks[0][2:]], filled, frozenset({0})),
        Table("Bonds; lengths in Å", bonds[0], bonds[1:], frozenset({0, 1, 2})),
        Table("Embeddings", embeddings[0], embeddings[1:], frozenset({0, 2, 3})),
    ]  # fmt: skip


def time_tables(summary: FitSummary) -> list[Table]:
    """Where the fit ran, and where its time went."""
    hosts = ", ".join(f"{host} ({ranks})" for host, ranks in summary.hosts.items())
    per_atom = 1e6 * summary.evaluation_seconds / summary.atoms
    cores = summary.ranks * summary.threads
    rows: list[Sequence[str]] = [
        ("Ranks", number(summary.ranks, 9)),
        ("Hosts (ranks on each)", hosts),
        ("Processor", summary.processor),
        ("Threads of each rank", number(summary.threads, 9)),
        ("Backend", summary.backend),
        ("Evaluations of loss and gradient", number(summary.evaluations, 9)),
        ("Time of one evaluation", seconds_text(summary.evaluation_seconds)),
        ("Wall time per atom and evaluation", f"{number(per_atom, 3)} µs"),
        ("The same times the number of cores", f"{number(per_atom * cores, 3)} µs"),
    ]
    if summary.imbalance is not None:
        rows.append(("Imbalance of the ranks (largest over mean time)", f"{summary.imbalance:.3f}"))
    total = max(summary.wall_seconds, 1e-9)
    spent = [
        (name, seconds_text(seconds), f"{100 * seconds / total:.0f} %") for name, seconds in summary.seconds.items()
    ]
    spent.append(("all", seconds_text(total), "100 %"))
    title = "Wall time of the last start, which resumed the fit" if summary.resumed else "Wall time"
    return [
        Table("The run", ["", ""], rows, frozenset({0, 1})),
        Table(title, ["spent on", "time", "share"], spent),
    ]


def scaling_text(summary: FitSummary) -> str:
    """What more ranks could save at best."""
    total = summary.wall_seconds
    parallel = summary.seconds.get("evaluation", 0.0)
    if total <= 0 or parallel <= 0:
        return ""
    return (
        f"Evaluations, which the ranks share, took {100 * parallel / total:.0f} % of the time. If they halved on twice "
        f"as many ranks, this run would take {seconds_text(total - parallel / 2)} in place of {seconds_text(total)}."
    )
