"""Errors of forces against extrapolation grades: a figure of report/, and numbers by group."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pacehpc.report.colours import COLOURS, Colours
from pacehpc.report.layout import lay_out, save_figure, styled

LIMITS = (1.01, 10.0)  # of grades that the table counts


def save_grades(
    folder: str | os.PathLike[str], prefix: str, grades: np.ndarray, errors: np.ndarray, groups: np.ndarray
) -> Path:
    """Write {prefix}_F-grade.png: the error of each atom's force over its grade, both on logarithmic axes.

    Args:
        folder: of the report.
        prefix: train or test.
        grades: of the atoms, (n_atoms,).
        errors: |F - F_ref| in eV/Å, (n_atoms,).
        groups: of the atoms, (n_atoms,) of str.
    """
    path = Path(folder) / f"{prefix}_F-grade.png"
    colours = Colours.of(groups)
    with styled():
        figure = Figure(figsize=(5.0, 4.0))
        axes = figure.subplots()
        known = (grades > 0.0) & (errors > 0.0)
        if colours is None:
            axes.scatter(grades[known], 1000 * errors[known], s=4, alpha=0.6, lw=0, rasterized=True)
        else:
            for number, colour in zip(range(len(colours.names)), COLOURS, strict=False):
                mine = known & (colours.number == number)
                axes.scatter(grades[mine], 1000 * errors[mine], s=4, color=colour, alpha=0.6, lw=0, rasterized=True)
        axes.axvline(1.0, color="0.5", lw=0.7)
        axes.set(xscale="log", yscale="log", xlabel="extrapolation grade γ", ylabel="|ΔF| (meV/Å)")
        lay_out(figure, f"{prefix}, {len(grades)} atoms", colours)
        return save_figure(figure, path)


def grade_table(grades: np.ndarray, groups: np.ndarray, errors: np.ndarray | None = None) -> list[str]:
    """Return a line per group: atoms, median and largest grade, atoms above 1 and 10, and the RMSE of forces.

    Args:
        grades: of the atoms, (n_atoms,).
        groups: of the atoms, (n_atoms,) of str.
        errors: |F - F_ref| in eV/Å, (n_atoms,); None: no errors are shown.
    """
    sizes = Counter(groups.tolist())
    width = max([5, *(len(name) for name in sizes)])
    lines = [f"{'group':{width}s} {'atoms':>8s} {'median':>9s} {'largest':>9s} {'above 1':>8s} {'above 10':>8s}"]
    lines[0] += "" if errors is None else f" {'RMSE F, meV/Å':>14s}"
    for name, size in sizes.most_common():
        mine = groups == name
        of_group = grades[mine]
        above = " ".join(f"{int((of_group > limit).sum()):8d}" for limit in LIMITS)
        line = f"{name:{width}s} {size:8d} {np.median(of_group):9.3g} {of_group.max():9.3g} {above}"
        if errors is not None:
            line += f" {1000 * np.sqrt(np.mean(errors[mine] ** 2) / 3):14.2f}"
        lines.append(line)
    return lines
