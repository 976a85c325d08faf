"""Table, JSON and figures of a validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pacehpc.replacing import replace_file, replacing
from pacehpc.validate.properties import unit
from pacehpc.validate.tasks import Validation


def table(validation: Validation, reference: Mapping[str, Mapping[str, float]]) -> str:
    """Format the values beside the reference's, a block of lines per crystal or pair.

    Args:
        validation: what was computed.
        reference: values by crystal and property; may be empty.
    """
    lines = []
    for label in dict.fromkeys([*validation.values, *validation.failures]):
        lines.append(f"{label}")
        known = reference.get(label, {})
        for name, value in validation.values.get(label, {}).items():
            line = f"  {name:26s} {value:12.4f} {unit(name):10s}"
            if name in known:
                difference = value - known[name]
                relative = f" ({100 * difference / abs(known[name]):+.1f} %)" if known[name] else ""
                line += f" reference {known[name]:12.4f}  {difference:+.4f}{relative}"
            lines.append(line.rstrip())
        lines += [f"  {name}: not computed: {why}" for name, why in validation.failures.get(label, {}).items()]
    return "\n".join(lines)


def save(validation: Validation, reference: Mapping[str, Mapping[str, float]], folder: Path, title: str) -> None:
    """Write validation.json and the figures of curves into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "potential": title,
        "values": validation.values,
        "reference": {k: dict(v) for k, v in reference.items()},
        "failures": validation.failures,
        "curves": validation.curves,
    }
    replace_file(folder / "validation.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    _draw(validation, folder, title)


def _draw(validation: Validation, folder: Path, title: str) -> None:
    from matplotlib.figure import Figure

    kinds = (
        ("eos", "volume", "volume, Å³/atom", "energy, eV/atom", "energy-volume.png"),
        ("dimer", "distance", "distance, Å", "energy, eV", "dimers.png"),
    )
    for name, axis_key, x_label, y_label, file in kinds:
        curves = {label: found[name] for label, found in validation.curves.items() if name in found}
        if not curves:
            continue
        figure = Figure(figsize=(6, 4), layout="constrained")
        axis = figure.add_subplot()
        for label, curve in curves.items():
            axis.plot(curve[axis_key], curve["energy"], marker=".", markersize=3, label=label)
        if name == "dimer":
            lowest = min(min(curve["energy"]) for curve in curves.values())
            axis.set_ylim(1.2 * min(lowest, -0.5), 30.0)
            axis.set_yscale("symlog", linthresh=1.0)
        axis.set(xlabel=x_label, ylabel=y_label, title=title)
        axis.legend(frameon=False)
        with replacing(folder / file) as beside:
            figure.savefig(beside, format="png", dpi=150)
