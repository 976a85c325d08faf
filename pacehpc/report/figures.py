"""Figures of report/: predictions against reference data, errors, distributions of the data, the learning curve.

Matplotlib's object interface throughout: no pyplot, no global figure, no display.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, NullLocator

from pacehpc.report.colours import COLOURS, Colours
from pacehpc.report.iterations import global_iterations, starts_of
from pacehpc.report.layout import lay_out, save_figure, styled, text_width
from pacehpc.report.predictions import Predictions

MANY = 5000  # points from which a panel shows counts per cell instead of points
_BLUE, _ORANGE, _GREY = "#1f5a94", "#d1600a", "#7f7f7f"
_E_LABEL, _DE_LABEL = "eV/atom", "meV/atom"
_F_LABEL, _DF_LABEL = "eV/Å", "meV/Å"


def save_predictions(
    folder: str | os.PathLike[str], data: Predictions, prefix: str = "train", imagetype: str = "png"
) -> list[Path]:
    """Write {prefix}_EF-pairplots, _E-dE-dist, _F-dF-dist, _Fi-dFi-dist and _E-dE-nn; returns their paths.

    Args:
        folder: of the report.
        data: reference and predicted values.
        prefix: train or test.
        imagetype: ending of the files.
    """
    energy, energy_pred = np.ravel(data.energy), np.ravel(data.energy_pred)
    forces, forces_pred = np.reshape(data.forces, (-1, 3)), np.reshape(data.forces_pred, (-1, 3))
    de, df = 1000 * (energy_pred - energy), 1000 * (forces_pred - forces)
    norm, dnorm = np.linalg.norm(forces, axis=1), np.linalg.norm(df, axis=1)
    of_structures, of_atoms = Colours.of(data.groups), Colours.of(data.atom_groups, data.groups)
    of_components = of_atoms and of_atoms.repeated(3)
    title = data_title(prefix, len(energy))
    paths = []

    def save(figure: Figure, name: str) -> None:
        paths.append(save_figure(figure, Path(folder) / f"{prefix}_{name}.{imagetype}"))

    with styled():
        figure = Figure(figsize=(7.2, 3.6 if of_structures is None else 4.2))
        left, right = figure.subplots(1, 2)
        _pair(left, energy, energy_pred, de, "Energy", _E_LABEL, _DE_LABEL, of_structures)
        _pair(
            right,
            forces.ravel(),
            forces_pred.ravel(),
            df.ravel(),
            "Force component",
            _F_LABEL,
            _DF_LABEL,
            of_components,
        )
        lay_out(figure, title, of_structures, between=0.8)
        save(figure, "EF-pairplots")
        for name, x, error, x_label, label, unit, signed, colours in (
            (
                "E-dE-dist",
                energy,
                de,
                f"Reference energy ({_E_LABEL})",
                f"ΔE ({_DE_LABEL})",
                _DE_LABEL,
                True,
                of_structures,
            ),
            (
                "F-dF-dist",
                forces.ravel(),
                df.ravel(),
                f"Reference force component ({_F_LABEL})",
                f"ΔF ({_DF_LABEL})",
                _DF_LABEL,
                True,
                of_components,
            ),
            (
                "Fi-dFi-dist",
                norm,
                dnorm,
                f"Reference force |Fᵢ| ({_F_LABEL})",
                f"|ΔFᵢ| ({_DF_LABEL})",
                _DF_LABEL,
                False,
                of_atoms,
            ),
            (
                "E-dE-nn",
                np.ravel(data.nn_min),
                de,
                "Shortest distance (Å)",
                f"ΔE ({_DE_LABEL})",
                _DE_LABEL,
                True,
                of_structures,
            ),
        ):
            figure, errors = _error_figure(x, error, x_label, label, unit, signed, colours)
            lay_out(figure, f"{title}\n{errors}", colours, top=0.52)
            save(figure, name)
    return paths


def data_title(prefix: str, n_structures: int) -> str:
    """What a figure shows: `Training set, 80 structures`."""
    kind = {"train": "Training set", "test": "Test set"}.get(prefix, prefix)
    return f"{kind}, {n_structures:,} structure{'s' if n_structures != 1 else ''}"


def save_stress(
    folder: str | os.PathLike[str],
    stress: np.ndarray,
    stress_pred: np.ndarray,
    prefix: str = "train",
    imagetype: str = "png",
    groups: np.ndarray | None = None,
) -> Path:
    """Write {prefix}_S-pairplot: predicted stress over the reference, and the errors; returns its path.

    Args:
        folder: of the report.
        stress, stress_pred: all components, (n_structures, 6), GPa.
        prefix: train or test.
        imagetype: ending of the file.
        groups: of the structures, (n_structures,) of str; they are told apart by colour.
    """
    colours = Colours.of(groups)
    colours = colours and colours.repeated(6)
    stress, stress_pred = np.ravel(stress), np.ravel(stress_pred)
    with styled():
        figure = Figure(figsize=(7.2, 3.4))
        left, right = figure.subplots(1, 2)
        _pair(left, stress, stress_pred, stress_pred - stress, "Stress component", "GPa", "GPa", colours)
        error = stress_pred - stress
        limits = _limits(stress), _limits(error, around_zero=True)
        right.axhline(0, color=_GREY, lw=0.7, zorder=0)
        _points(right, stress, error, *limits, colours=colours)
        right.set(xlim=limits[0], ylim=limits[1], xlabel="Stress component, reference (GPa)", ylabel="Δσ (GPa)")
        lay_out(figure, data_title(prefix, len(stress) // 6), colours, between=0.8)
        return save_figure(figure, Path(folder) / f"{prefix}_S-pairplot.{imagetype}")


def save_groups(
    folder: str | os.PathLike[str],
    names: Sequence[str],
    energy: np.ndarray,
    force: np.ndarray,
    prefix: str = "train",
    imagetype: str = "png",
    n_structures: int = 0,
) -> Path:
    """Write {prefix}_groups: the errors of each group as bars; returns its path.

    Args:
        folder: of the report.
        names: of the groups.
        energy: RMSE of energies per atom, (n_groups,), eV.
        force: RMSE of force components, (n_groups,), eV/Å.
        prefix: train or test.
        imagetype: ending of the file.
        n_structures: for the title.
    """
    with styled():
        figure = Figure(figsize=(7.2, 1.3 + 0.19 * len(names)))
        panels = figure.subplots(1, 2, sharey=True)
        for axes, values, label in zip(
            panels, (energy, force), (f"RMSE energy ({_DE_LABEL})", f"RMSE force ({_DF_LABEL})"), strict=True
        ):
            lengths = np.zeros(2 * len(names) - 1)  # bars, and gaps between
            lengths[::2] = np.nan_to_num(1000 * np.asarray(values))
            edges = np.arange(len(names))[:, None] + [-0.4, 0.4]
            axes.stairs(lengths, edges.ravel(), orientation="horizontal", fill=True, color=_BLUE)
            axes.set(xlabel=label, yticks=[], xlim=(0, None))
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        beside = panels[0].get_yaxis_transform()
        texts = [
            panels[0].text(-0.02, k, name, transform=beside, ha="right", va="center") for k, name in enumerate(names)
        ]
        lay_out(figure, data_title(prefix, n_structures), left=0.15 + text_width(figure, texts))
        return save_figure(figure, Path(folder) / f"{prefix}_groups.{imagetype}")


def save_distributions(
    folder: str | os.PathLike[str],
    energy: np.ndarray,
    forces: np.ndarray,
    prefix: str = "train",
    imagetype: str = "png",
) -> Path:
    """Write {prefix}_ef-distributions: histograms of the reference values; returns its path.

    Args:
        folder: of the report.
        energy: per atom, (n_structures,), eV.
        forces: (n_atoms, 3), eV/Å.
        prefix: train or test.
        imagetype: ending of the file.
    """
    forces = np.reshape(forces, (-1, 3))
    with styled():
        figure = Figure(figsize=(7.2, 2.8))
        panels = figure.subplots(1, 3)
        for axes, values, label, unit in zip(
            panels,
            (np.ravel(energy), np.linalg.norm(forces, axis=1), forces.ravel()),
            (f"Energy ({_E_LABEL})", f"Force |Fᵢ| ({_F_LABEL})", f"Force component ({_F_LABEL})"),
            ("structures", "atoms", "components"),
            strict=True,
        ):
            values = values[np.isfinite(values)]
            limits = _limits(values)
            _histogram(axes, values, limits)
            axes.set(xlim=limits, xlabel=label, ylabel=f"Number of {unit}")
            axes.xaxis.set_major_locator(MaxNLocator(5))
            if len(values) > 100:
                axes.set_yscale("log")
                _plain_ticks(axes.yaxis, minor=False)
                axes.set_ylim(bottom=0.7)
            axes.set_title(f"{len(values):,} {unit}")
        lay_out(figure, data_title(prefix, len(np.ravel(energy))), top=0.5, between=0.7)
        return save_figure(figure, Path(folder) / f"{prefix}_ef-distributions.{imagetype}")


def save_learning_curve(
    folder: str | os.PathLike[str],
    train: Mapping[str, np.ndarray],
    test: Mapping[str, np.ndarray] | None = None,
    imagetype: str = "png",
) -> Path | None:
    """Write learning_curve: loss and RMSE over all iterations, with ladder steps and cycles marked.

    Args:
        folder: of the report.
        train, test: the columns of metrics.txt and test_metrics.txt, see `tables.read_table`.
        imagetype: ending of the file.

    Returns:
        Its path; None where the table has no rows.
    """
    if not train or len(train["loss"]) == 0:
        return None
    starts = starts_of(train)
    with styled():
        figure = Figure(figsize=(7.2, 5.6))
        panels = figure.subplots(3, 1, sharex=True)
        curves = (
            ("loss", 1, "Loss"),
            ("rmse_epa", 1000, "RMSE energy\n(meV/atom)"),
            ("rmse_f_comp", 1000, "RMSE force\n(meV/Å)"),
        )
        for axes, (name, factor, label) in zip(panels, curves, strict=True):
            positive = False
            later: list[float] = []
            for table, colour, kind in ((train, _BLUE, "train"), (test, _ORANGE, "test")):
                if not table or len(table["loss"]) == 0:
                    continue
                y = factor * np.asarray(table[name])
                x = global_iterations(table, starts)
                positive |= bool((y > 0).any())
                later += y[(np.asarray(table["iter_num"]) > 0) & (y > 0)].tolist()
                marker = "o" if len(x) < 40 else None
                axes.plot(x, y, color=colour, lw=1.1, marker=marker, ms=2.5, label=kind)
            if positive:
                axes.set_yscale("log")
                _plain_ticks(axes.yaxis)
            if len(later) > 3:  # the starting points, far above the rest, leave the panel
                low, high = min(later), max(later)
                axes.set_ylim(low / (high / low) ** 0.08 / 1.05, high * (high / low) ** 0.08 * 1.05)
            axes.set_ylabel(label)
            axes.grid(alpha=0.25, lw=0.5)
        _mark_starts(panels, starts)
        panels[0].legend(loc="upper right", ncols=2)
        panels[-1].set_xlabel("Iteration")
        last = global_iterations(train, starts)[-1]
        panels[-1].set_xlim(0, 1.015 * max(last, 1))
        panels[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True))
        lay_out(figure, left=0.95, top=0.42)
        return save_figure(figure, Path(folder) / f"learning_curve.{imagetype}")


# ----------------------------------------------------------------------------------------------------- panels


def _pair(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    error: np.ndarray,
    what: str,
    unit: str,
    error_unit: str,
    colours: Colours | None = None,
) -> None:
    """Prediction over reference, with the diagonal."""
    (x, y, error), colours = _finite_points(colours, x, y, error)
    limits = _limits(np.concatenate([x, y]))
    axes.plot(limits, limits, color=_GREY, lw=0.7, zorder=0)
    _points(axes, x, y, limits, limits, colours=colours)
    axes.set(xlim=limits, ylim=limits, xlabel=f"{what}, reference ({unit})", ylabel=f"{what}, predicted ({unit})")
    axes.set_box_aspect(1)
    axes.text(0.04, 0.96, _summary(error, error_unit), transform=axes.transAxes, va="top")


def _error_figure(
    x: np.ndarray,
    error: np.ndarray,
    x_label: str,
    label: str,
    unit: str,
    signed: bool = True,
    colours: Colours | None = None,
) -> tuple[Figure, str]:
    """Errors over a quantity, and their histogram beside; returns the figure, and the errors in words."""
    (x, error), colours = _finite_points(colours, x, error)
    figure = Figure(figsize=(5.4, 3.4))
    axes, side = figure.subplots(1, 2, sharey=True, width_ratios=(3.2, 1))
    x_limits = _limits(x, from_zero=not signed)
    limits = _limits(error, around_zero=signed, from_zero=not signed)
    axes.axhline(0, color=_GREY, lw=0.7, zorder=0)
    _points(axes, x, error, x_limits, limits, bar_beside=side, colours=colours)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlim=x_limits, ylim=limits, xlabel=x_label, ylabel=label)
    _histogram(side, error, limits, "horizontal")
    side.set_xlabel("Number")
    if len(error) > 100:
        side.set_xscale("log")
        _plain_ticks(side.xaxis, minor=False)
        side.set_xlim(left=0.7)
    return figure, _summary(error, unit, ", ", norm=not signed)


def _points(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    x_limits: tuple,
    y_limits: tuple,
    bar_beside: Axes | None = None,
    colours: Colours | None = None,
) -> None:
    """Points, coloured by group, or counts per cell where there are many and no groups; a bitmap in vector formats."""
    if colours is not None:
        size = 16 if len(x) < 50 else 8 if len(x) < 500 else 4 if len(x) < MANY else 1.5
        order = list(range(len(colours.names)))  # small groups last, on top; what is summed up, below all
        for k in (order[-1:] + order[:-1]) if len(order) == len(COLOURS) else order:
            chosen = colours.number == k
            _draw_points(axes, x[chosen], y[chosen], size, COLOURS[k], len(x) > 1000)
        return
    if len(x) < MANY:
        size = 20 if len(x) < 50 else 9 if len(x) < 500 else 4
        _draw_points(axes, x, y, size, _BLUE, len(x) > 1000)
        return
    cells = axes.hexbin(
        x, y, gridsize=90, extent=(*x_limits, *y_limits), bins="log", mincnt=1, cmap="viridis", lw=0.1, rasterized=True
    )
    width, pad, shrink = (0.12, 0.12, 0.9) if bar_beside else (0.05, 0.02, 0.75)
    bar = axes.figure.colorbar(cells, ax=bar_beside or axes, aspect=30, fraction=width, pad=pad, shrink=shrink)
    bar.set_label("points per cell")


def _draw_points(axes: Axes, x: np.ndarray, y: np.ndarray, size: float, colour: str, as_bitmap: bool) -> None:
    """Points of so many square points of area; a line of markers takes a tenth of the time of a scatter."""
    axes.plot(x, y, "o", ms=size**0.5, mew=0, color=colour, alpha=0.6, rasterized=as_bitmap)


def _plain_ticks(axis: Axis, minor: bool = True) -> None:
    """Plain numbers on a logarithmic axis, a tenth of the time of powers of ten; minor: and ticks between these."""
    axis.set_major_formatter(LogFormatter())
    if minor:
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    else:
        axis.set_minor_locator(NullLocator())


def _mark_starts(panels: np.ndarray, starts: Mapping[tuple[int, int], float]) -> None:
    """Vertical lines where ladder steps (solid, numbered) and cycles (dotted) begin."""
    ladder_steps = sorted({ladder for ladder, _ in starts})
    numbered = ladder_steps[:: max(1, len(ladder_steps) // 15)]
    for (ladder, cycle), x in starts.items():
        begins_step = (ladder, cycle) == min(key for key in starts if key[0] == ladder)
        if x == 0 and len(ladder_steps) == 1:
            continue
        style = "-" if begins_step and len(ladder_steps) > 1 else ":"
        for axes in panels:
            axes.axvline(x, color=_GREY, lw=0.7, ls=style, zorder=0)
        if style == "-" and ladder in numbered:
            panels[0].annotate(
                str(ladder), (x, 1), (1, 2), xycoords=("data", "axes fraction"), textcoords="offset points"
            )
    said = []
    if len(ladder_steps) > 1:
        said.append("solid lines: ladder steps")
    if len(starts) > len(ladder_steps):
        said.append("dotted lines: cycles")
    panels[0].set_title("; ".join(said), loc="right", pad=14 if len(ladder_steps) > 1 else None)


# ------------------------------------------------------------------------------------------------------ numbers


def _finite_points(colours: Colours | None, *columns: np.ndarray) -> tuple[list[np.ndarray], Colours | None]:
    """The finite points, and their colours."""
    good = np.logical_and.reduce([np.isfinite(column) for column in columns])
    return [column[good] for column in columns], None if colours is None else colours.of_points(good)


def _limits(values: np.ndarray, around_zero: bool = False, from_zero: bool = False) -> tuple[float, float]:
    """Limits just around the data; never of zero width."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if around_zero:
        high = max(abs(low), abs(high))
        low = -high
    if from_zero:
        low = 0.0
    width = high - low
    if width <= 1e-12 * max(abs(low), abs(high)) or width < 1e-300:
        width = 0.1 * abs(high) or 1.0
        return (0.0, high + width) if from_zero else (low - width / 2, high + width / 2)
    return (0.0 if from_zero else low - 0.04 * width), high + 0.04 * width


def _histogram(axes: Axes, values: np.ndarray, limits: tuple[float, float], orientation: str = "vertical") -> None:
    """Numbers of values between the limits, drawn as one shape."""
    counts, edges = np.histogram(values, _bins(len(values)), limits)
    axes.stairs(counts, edges, orientation=orientation, fill=True, color=_BLUE)


def _bins(n: int) -> int:
    return int(np.clip(2 * n ** (1 / 3), 10, 100)) | 1  # odd: a single value stands in the middle


def _summary(error: np.ndarray, unit: str, separator: str = "\n", norm: bool = False) -> str:
    """RMSE and MAE in words; norm: of vectors."""
    if len(error) == 0:
        return "no data"
    rmse, mae = np.sqrt(np.mean(error**2)), np.mean(np.abs(error))
    kind = " of vectors" if norm else ""
    return f"RMSE{kind} {_number(rmse)} {unit}{separator}MAE {_number(mae)} {unit}"


def _number(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= value < 1e4 or value == 0 else f"{value:.3g}"
