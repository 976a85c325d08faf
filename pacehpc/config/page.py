"""The page of the input's keys, docs/input.md, from the models: python -m pacehpc.config.page > docs/input.md"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pacehpc.config import data_keys, models, optimizers, scan_keys
from pacehpc.potential import section
from pacehpc.schema.kinds import Kind

_INTRODUCTION = """\
# The input file

Generated from the program by `python -m pacehpc.config.page > docs/input.md`; edit the models, not this page.

`pacehpc input.yaml` reads one YAML file (YAML 1.2: `1e-8` is a number, `No` and `Y` are words). Every key is checked at
the start: an unknown key is an error that proposes the nearest known one, and all mistakes are shown at once with their
lines. A key without a value means its default. Inputs of pacemaker run as they are.

The smallest input of a fit:

```yaml
potential:
  elements: [Al, Ni]
  embeddings: {ALL: {npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}
  bonds: {ALL: {radbase: SBessel, radparameters: [5.25], rcut: 6, dcut: 0.01}}
  functions: {ALL: {nradmax_by_orders: [10, 3, 2], lmax_by_orders: [0, 2, 1]}}
data: {filename: df.pckl.gzip}
fit: {loss: {kappa: 0.3}}
```

Energies are in eV, lengths in Å, forces in eV/Å.
"""
_POTENTIAL = """
Keys of `embeddings`, `bonds` and `functions` are keywords or elements: ALL < UNARY < BINARY < TERNARY < QUATERNARY <
QUINARY < elements such as `AlNi`, `Al Ni` or `(Al, Ni)`; later ones override earlier ones key by key. For embeddings
and bonds one element means itself or its own pair, and a pair holds for both directions. In `functions` the first
element is the centre, the others are neighbours: `AlNi` names the block of Al with Ni around it.

The old form for one element (`element`, and all keys directly under `potential`) is understood as well.
"""
_RESIDUAL = """
`fit.loss.forces` takes the same keys. Without these sections errors count as squares; those of stresses always do.
[Outliers](strategies.md#outliers) has an example.
"""
_SCHEDULE = """
[Schedules](strategies.md#schedules) explains them.
"""
_SECTIONS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("Top level", models.Settings, ""),
    ("data", data_keys.Data, ""),
    ("data.config", data_keys.DatabaseQuery, ""),
    ("potential", section.PotentialKeys, _POTENTIAL),
    ("potential.embeddings", section.EmbeddingKeys, ""),
    ("potential.bonds", section.BondKeys, ""),
    ("potential.functions", section.FunctionKeys, ""),
    ("fit", models.Fit, ""),
    ("fit.loss", models.Loss, ""),
    ("fit.loss.energy", models.Residual, _RESIDUAL),
    ("fit.schedule", models.Stage, _SCHEDULE),
    (
        "fit.weighting: EnergyBasedWeightingPolicy",
        models.EnergyBasedWeighting,
        "\nColumns `w_energy` and `w_forces` of the data win over this section unless `data.ignore_weights` is true.\n",
    ),
    ("fit.weighting: ExternalWeightingPolicy", models.ExternalWeighting, ""),
    ("backend", models.Backend, ""),
    ("backend.gpu_config", models.GpuConfig, ""),
    ("checkpoint", models.Checkpoint, ""),
    ("scan", scan_keys.Scan, ""),
)


def page() -> str:
    """The page as Markdown."""
    parts = [_INTRODUCTION]
    for title, model, text in _SECTIONS:
        rows = [_row(field.alias or name, field) for name, field in model.model_fields.items() if name != "blocks"]
        if model is section.FunctionKeys:
            field = section.FunctionsKeys.model_fields[section.PER_ELEMENT]
            rows.append(_row(f"{section.PER_ELEMENT} (beside the blocks)", field))
        table = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows)
        parts.append(f"## {title}\n\n{model.__doc__}\n{text}\n{table}\n")
    parts.append(_options())
    return "\n".join(parts)


def _row(name: str, field: FieldInfo) -> str:
    meaning = field.description or ""
    cells = (f"`{name}`", _type(field), _default(field), meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict):
        return str(extra["is"])
    for item in field.metadata:
        if isinstance(item, Kind):
            return item.text
    return _annotation_text(field.annotation)


def _annotation_text(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(get_args(annotation))
    for inner in get_args(annotation):
        if isinstance(inner, Kind):
            return inner.text
    texts = [_annotation_text(inner) for inner in get_args(annotation) if inner is not type(None)]
    return next((text for text in texts if text != "section"), "section")


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "–" if field.default_factory is not None else "needed"
    value = field.default
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.annotation is int and value >= 2**30 and value % 2**30 == 0:
        return f"{value // 2**30} GiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _options() -> str:
    lines = [
        "## fit.options",
        "",
        "Besides `maxiter` (the same as fit.maxiter), the options of the chosen `fit.optimizer`; their meaning and",
        f"defaults are those of scipy.optimize.minimize, except for `gtol`, whose default is {optimizers.GTOL:g} as in",
        "pacemaker. `scipy-BFGS` is scipy's own BFGS; `BFGS` takes the same path in less time. For COBYLA, `maxiter`",
        "is a number of evaluations of the loss, not of iterations. `GN-BFGS` is this program's own",
        "([its method](optimizer.md)): it takes the options of BFGS and those of the second table.",
        "",
        "| optimizer | options |",
        "| --- | --- |",
    ]
    lines += [
        f"| {name} | {', '.join(f'`{option}`' for option in known)} |" for name, known in optimizers.OPTIONS.items()
    ]
    lines += ["", "| option of GN-BFGS | value | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{name}` | {_annotation_text(annotation)} | {default:g} | {meaning} |"
        for name, (annotation, default, meaning) in optimizers.GAUSS_NEWTON.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
