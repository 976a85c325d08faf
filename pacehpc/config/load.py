"""From an input file and command-line values to checked settings, or to one message with every mistake in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pacehpc.basis import KEYWORDS
from pacehpc.config.models import POLICIES, Settings
from pacehpc.errors import PacehpcError
from pacehpc.potential.section import plain_form
from pacehpc.schema.kinds import nearest, shown
from pacehpc.schema.section import Path, dotted, problem
from pacehpc.yamlio import load_yaml

_SAME_IN_CONFIG = ("filename", "ignore_weights", "datapath", "seed")
_QUERY_KEYS = ("element", "calculator", "ref_energy", "query_limit", "cache_ref_df")
_HELD = {"energy": "energies", "forces": "forces"}


def load_settings(
    path: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    needs: tuple[str, ...] = (),
) -> Settings:
    """Checked settings of an input file.

    path: the input file; None: defaults only. overrides: values of the command line by dotted path, such as
    {"backend.evaluator": "cpu", "data.filename": ["a.pckl.gzip"], "potential": "x.yaml"}; they win over the file, None
    counts as not given. needs: of "data" and "potential", what must be there.

    Raises:
        PacehpcError: all mistakes, each with line, path of the key and what to do.
    """
    reader = _Reader(str(path) if path is not None else "command line")
    raw = load_yaml(path, reader.lines) if path is not None else {}
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise PacehpcError(f"{path}: must be keys and values such as `cutoff: 7`, not {shown(raw)}; see docs/input.md")
    if "species" in raw:
        raise PacehpcError(f"{path}: is a potential, not an input file; name it after -p.")
    return reader.settings(raw, dict(overrides or {}), needs)


class _Reader:
    """Collects what is found wrong or worth a line while an input becomes settings."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Path, int] = {}
        self.moved: dict[Path, Path] = {}  # where the user wrote what now stands elsewhere
        self.problems: list[tuple[Path, str]] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.overridden: dict[Path, Any] = {}

    def settings(self, raw: dict[str, Any], overrides: dict[str, Any], needs: tuple[str, ...]) -> Settings:
        self._short_forms(raw)
        for key, value in overrides.items():
            if value is not None:
                self._override(raw, tuple(key.split(".")), value)
        if isinstance(raw.get("data"), dict):
            self._data(raw["data"])
        if isinstance(raw.get("potential"), dict):
            self._potential(raw, raw["potential"])
        if isinstance(raw.get("fit"), dict):
            self._fit(raw["fit"])
        result = None
        try:
            result = Settings.model_validate(raw)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                self.problems.append(self._problem(one))
        if result is not None:
            self._check(result, needs)
        if self.problems:
            raise PacehpcError(self._message())
        self._say_unused(result, ())
        self._say_meant(raw, result)
        for where, value in self.overridden.items():
            self.notes.append(f"{dotted(where)}: {shown(value)} (command line)")
        return result.finished(self.notes, self.warnings)

    # ------------------------------------------------------------------------------ forms of the same thing

    def _short_forms(self, raw: dict[str, Any]) -> None:
        for key in ("data", "potential"):
            if isinstance(raw.get(key), str) or (key == "data" and isinstance(raw.get(key), list)):
                raw[key] = {"filename": raw[key]}
                self.moved[(key, "filename")] = (key,)

    def _override(self, raw: dict[str, Any], where: Path, value: Any) -> None:
        if where in (("data",), ("potential",)) and not isinstance(value, Mapping):
            if where == ("potential",):
                raw["potential"] = {}
            where = (*where, "filename")
        inner = raw
        for key in where[:-1]:
            if not isinstance(inner.get(key), dict):
                inner[key] = {}
            inner = inner[key]
        inner[where[-1]] = value
        if where == ("data", "filename") and isinstance(inner.get("config"), dict):
            for key in ("filename", *_QUERY_KEYS):
                inner["config"].pop(key, None)
        self.overridden[where] = value

    def _data(self, data: dict[str, Any]) -> None:
        for key in _QUERY_KEYS[3:]:
            if key in data and isinstance(data.get("config"), dict):
                self.moved[("data", "config", key)] = ("data", key)
                data["config"].setdefault(key, data.pop(key))
        config = data.get("config")
        if not isinstance(config, dict):
            return
        for key in _SAME_IN_CONFIG:
            if key not in config:
                continue
            value = config.pop(key)
            if key in data and data[key] != value and ("data", key) not in self.overridden:
                self.problems.append((("data", "config", key), f"is also given as data.{key}; remove one of them"))
            elif key not in data:
                data[key] = value
                self.moved[("data", key)] = ("data", "config", key)
                self.notes.append(f"data.config.{key}: old form of data.{key}")
        if not config:
            del data["config"]

    def _potential(self, raw: dict[str, Any], potential: dict[str, Any]) -> None:
        form = plain_form(potential)
        raw["potential"] = form.section
        self.moved |= form.moved
        self.problems += form.problems
        self.notes += form.notes
        self.warnings += form.warnings

    def _fit(self, fit: dict[str, Any]) -> None:
        weighting = fit.get("weighting")
        uniform = ("uniform", "UniformWeightingPolicy")
        if weighting in uniform or (
            isinstance(weighting, dict) and weighting.get("type") in uniform and len(weighting) == 1
        ):
            fit["weighting"] = None
        options = fit.get("options")
        if isinstance(options, dict) and "disp" in options:
            self.notes.append("fit.options.disp: accepted, no meaning here: the log shows the progress")

    # -------------------------------------------------------------------------------------- what is found

    def _check(self, settings: Settings, needs: tuple[str, ...]) -> None:
        """What concerns several sections."""
        queries = settings.data.config is not None and settings.data.config.element is not None
        if "data" in needs and settings.data.filename is None and not queries:
            self.problems.append((("data", "filename"), "is missing; name the file with the data here or after -d"))
        if "potential" in needs and settings.potential is None:
            self.problems.append((("potential",), "is missing; describe the potential or name a file here or after -p"))
        elements = (settings.potential or {}).get("elements")
        for name in _named_elements(settings.fit.trainable_parameters) if elements else ():
            if name not in elements:
                message = f"the element {name} is not among potential.elements, [{', '.join(elements)}]"
                self.problems.append((("fit", "trainable_parameters"), message))

    def _say_unused(self, model: BaseModel, where: Path) -> None:
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            if isinstance(value, BaseModel):
                self._say_unused(value, (*where, name))
            elif isinstance(value, list):
                for number, one in enumerate(value):
                    if isinstance(one, BaseModel):
                        self._say_unused(one, (*where, name, number))
            elif value is not None and "unused" in (field.json_schema_extra or {}):
                self.notes.append(f"{dotted((*where, name))}: {field.description}")

    def _say_meant(self, raw: dict[str, Any], settings: Settings) -> None:
        evaluator = (raw.get("backend") or {}).get("evaluator")
        if evaluator in ("tensorpot", "pyace"):
            self.notes.append(f"backend.evaluator: {evaluator} means {settings.backend.evaluator} here")
        given = settings.data
        for column in ("energy", "forces"):
            name = getattr(given, f"{column}_key")
            if name is not None:
                self.notes.append(f"data.{column}_key: the column `{name}` holds the {_HELD[column]}")
        if settings.fit.min_relative_test_loss_per_iter is not None and given.test_filename is given.test_size is None:
            self.notes.append("fit.min_relative_test_loss_per_iter: no meaning without a test set")
        potential = settings.potential or {}
        n_elements = len(potential.get("elements", []))
        for section in ("bonds", "functions"):
            for key in potential.get(section, {}):
                if n_elements and key in KEYWORDS and KEYWORDS.index(key) > n_elements:
                    self.notes.append(
                        f"potential.{section}.{key}: no meaning here: the potential has {n_elements} element(s)"
                    )

        fit = settings.fit
        names = ("noise_relative_sigma", "noise_absolute_sigma", "randomize_func_coeffs")
        disturbing = [name for name in names if getattr(fit, name)]
        if disturbing and fit.fit_cycles == 1:
            self.notes.append(f"fit.{', fit.'.join(disturbing)}: disturb cycles after the first, but fit_cycles is 1")

    def _problem(self, error: dict[str, Any]) -> tuple[Path, str]:
        where = tuple(part for part in error["loc"] if part not in POLICIES)
        kind, given = error["type"], error.get("input")
        is_choice = kind in ("union_tag_invalid", "union_tag_not_found")
        if is_choice or (where == ("fit", "weighting") and kind not in ("value_error", "extra_forbidden", "missing")):
            name = given.get("type") if isinstance(given, dict) else given
            close = nearest(name, POLICIES) if name else None
            hint = f"; did you mean `{close}`?" if close else ""
            return (*where, "type"), f"must be {' or '.join(POLICIES)}, not {shown(name)}{hint}"
        return problem({**error, "loc": where}, Settings)

    def _message(self) -> str:
        texts = []
        for where, message in dict.fromkeys(self.problems):
            origin = next(
                (self.moved[where[:n]] + where[n:] for n in range(len(where), 0, -1) if where[:n] in self.moved), where
            )
            if any(where[: len(o)] == o for o in self.overridden):
                texts.append((-1, origin, message))
                continue
            line = next((self.lines[origin[:n]] for n in range(len(origin), 0, -1) if origin[:n] in self.lines), None)
            texts.append((line or 0, origin, message))
        texts.sort(key=lambda text: text[0])
        places = ["command line: " if n < 0 else f"line {n}: " if n else "" for n, _, _ in texts]
        lines = [f"{place}{dotted(text[1])}: {text[2]}" for place, text in zip(places, texts, strict=True)]
        if len(lines) == 1:
            return f"{self.name}, {lines[0]}" if lines[0].startswith("line ") else f"{self.name}: {lines[0]}"
        return f"{self.name}: {len(lines)} mistakes\n" + "\n".join(f"  {line}" for line in lines)


def _named_elements(trainable: Any) -> list[str]:
    """Elements that `trainable_parameters` names."""
    entries = trainable if isinstance(trainable, list | dict) else [trainable]
    names = [name for entry in entries for name in (entry if isinstance(entry, dict) else [entry])]
    return sorted({e for name in names if name not in (*KEYWORDS, "radial", "func") for e in name.split()})
