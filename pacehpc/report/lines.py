"""The lines of log.txt that users' scripts and pacemaker's callers read: one per iteration, and the block of errors.

Metrics come in eV and eV/Å under the names of the columns of metrics.txt and are shown in meV.
"""

from __future__ import annotations

from collections.abc import Mapping

_MILLI = 1000.0
_MICRO = 1e6
# column -> label; shown always, or only where they contribute
_ALWAYS = (
    ("e_loss_contrib", "Energy"),
    ("f_loss_contrib", "Force"),
    ("l1_reg_contrib", "L1"),
    ("l2_reg_contrib", "L2"),
)
_IN_USE = (
    ("s_loss_contrib", "Stress"),
    ("smooth_w1", "Smooth_w1"),
    ("smooth_w2", "Smooth_w2"),
    ("smooth_w3", "Smooth_w3"),
    ("smooth_orth", "Smooth_orth"),
)
_ERRORS = (
    ("RMSE", ("rmse_epa", "low_rmse_epa", "rmse_f_comp", "low_rmse_f_comp")),
    ("MAE", ("mae_epa", "low_mae_epa", "mae_f_comp", "low_mae_f_comp")),
    ("MAX_AE", ("max_ae_epa", "low_max_ae_epa", "max_ae_f", "low_max_ae_f")),
)
_HEADER = "          Energy/at, meV/at   Energy_low/at, meV/at   Force, meV/A   Force_low, meV/A"
_WIDTHS = (13, 22, 19, 17)  # centre the numbers under the header


_RULE = 97 * "-"  # before and after the table of errors
_FRAME = 44 * "-"  # before and after a title


def iteration_line(iteration: int, evaluations: int, metrics: Mapping[str, float], seconds_per_atom: float) -> str:
    """The line of one iteration; seconds_per_atom: wall time of one evaluation divided by the number of all atoms."""
    return f"Iteration   #{iteration} ({evaluations} evals): {_errors(metrics, seconds_per_atom)}"


def initial_line(metrics: Mapping[str, float], seconds_per_atom: float, test: bool = False) -> str:
    """The line of the starting point, of the data that are fitted or of the test set."""
    return f"{'Initial(TEST)' if test else 'Initial state'}:#0    (1 evals): {_errors(metrics, seconds_per_atom)}"


def statistics(title: str, iteration: int, metrics: Mapping[str, float], seconds_per_atom: float) -> str:
    """An entry of its own whose first line is empty: the title in a frame, then the `errors_block`."""
    return f"{framed(title)}\n{errors_block(iteration, metrics, seconds_per_atom)}"


def framed(title: str) -> str:
    """An entry whose first line is empty: the title in a frame."""
    return f"\n{_FRAME}{title}{_FRAME}"


def errors_block(iteration: int, metrics: Mapping[str, float], seconds_per_atom: float) -> str:
    """Contributions to the loss, and the table of errors.

    Args:
        iteration: its number.
        metrics: of the evaluation, in eV, eV/Å and GPa; nfuncs and ncoefs: numbers of functions and parameters.
        seconds_per_atom: wall time of one evaluation divided by the number of all atoms.
    """
    total = metrics["loss"]
    head = f"Iteration:  #{iteration}   Loss:"
    lines = [head + _contribution("Total", total, total, max(33 - len(head), 8))]
    shown = list(_ALWAYS) + [(name, label) for name, label in _IN_USE if metrics.get(name, 0.0) not in (0.0, None)]
    shown = [(name, label) for name, label in shown if metrics.get(name, 0.0) == metrics.get(name, 0.0)]
    lines += [_contribution(label, metrics.get(name, 0.0), total, 33) for name, label in shown]
    counts = f"Number of params./funcs:  {int(metrics['ncoefs'])}/{int(metrics['nfuncs'])}"
    lines.append(f"{counts:<53}Avg. time: {_MICRO * seconds_per_atom:.2f} mcs/at")
    lines += [_RULE, _HEADER]
    for label, names in _ERRORS:
        values = (f"{_MILLI * metrics[name]:.2f}" for name in names)
        lines.append(
            f"{label + ':':>8}" + "".join(f"{value:>{width}}" for value, width in zip(values, _WIDTHS, strict=True))
        )
    lines.append(_RULE)
    stress = metrics.get("rmse_stress", float("nan"))
    if any(label == "Stress" for _, label in shown) and stress == stress:
        lines.append(f" Stress:  RMSE {stress:.4f} GPa")
    return "\n".join(lines)


def counted(n: int, noun: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def size_text(n: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            return f"{n:.3g} {unit}" if n < 1000 else f"{n:.0f} {unit}"
        n /= 1024
    raise AssertionError


def seconds_text(seconds: float) -> str:
    """A short time in words."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _contribution(label: str, value: float, total: float, width: int) -> str:
    share = 100.0 * value / total if total else 100.0 * (label == "Total")
    return f"{label + ':':>{width}} {value:.4e} ({share:3.0f}%)"


def _errors(metrics: Mapping[str, float], seconds_per_atom: float) -> str:
    errors = [_MILLI * metrics[name] for name in ("rmse_epa", "low_rmse_epa", "rmse_f_comp", "low_rmse_f_comp")]
    return (
        f" Loss: {metrics['loss']:.4e} | RMSE Energy(low): {errors[0]:.2f} ({errors[1]:.2f}) meV/at | "
        f"Forces(low): {errors[2]:.2f} ({errors[3]:.2f}) meV/A | Time/eval: {_MICRO * seconds_per_atom:.2f} mcs/at"
    )
