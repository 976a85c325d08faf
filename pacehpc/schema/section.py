"""Sections of keys, such as those of the input file, and messages about mistakes in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pacehpc.schema.kinds import KeyedError, nearest, shown

Path = tuple[Any, ...]
"""Keys from the whole input down to one value."""


class Section(BaseModel):
    """A mapping of the input file: unknown keys are errors, empty values mean the default."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}

        def empty(key: Any, value: Any) -> bool:
            return key in fields and (value is None or (value == "None" and fields[key].default is None))

        return {key: value for key, value in values.items() if not empty(key, value)}


def unused(text: str, reason: str) -> Any:
    """A key that pacemaker knows and that has no meaning here; said in one line."""
    extra = {"unused": reason, "is": text}
    return Field(None, exclude=True, description=f"accepted, no meaning here: {reason}", json_schema_extra=extra)


def dotted(where: Path) -> str:
    """A path as users write it: fit.loss.kappa, data.filename[0]."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (f"({', '.join(map(str, part))})" if isinstance(part, tuple) else str(part))
    return text


def keys_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys of a section as users write them."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """All sections inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_of(inner)]


def problem(error: Mapping[str, Any], root: type[BaseModel], above: Path = ()) -> tuple[Path, str]:
    """Where a mistake stands, and a message about it.

    Args:
        error: one of pydantic's `ValidationError.errors()`.
        root: the model that was validated.
        above: where in the input `root` stands.
    """
    where = tuple(part for part in error["loc"] if part != "blocks")
    kind, given = error["type"], error.get("input")
    if kind == "value_error":
        cause = error["ctx"]["error"]
        return (*above, *where, *(cause.path if isinstance(cause, KeyedError) else ())), str(cause)
    if kind == "extra_forbidden":
        return (*above, *where), _unknown_key(where, root, above)
    if kind == "missing":
        return (*above, *where), "is missing"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return (*above, *where), f"must hold keys and values, not {shown(given)}"
    return (*above, *where), error["msg"]


def _unknown_key(where: Path, root: type[BaseModel], above: Path) -> str:
    key = where[-1]
    known = [name for model in _models_at(where[:-1], root) for name in keys_of(model)]
    close = nearest(key, known)
    if close:
        return f"unknown key; did you mean `{close}`?"
    elsewhere = next((path for path, name in _all_keys(root) if name == key), None)
    if elsewhere is not None:
        return f"unknown key; it belongs to {dotted((*above, *elsewhere, key))}"
    return f"unknown key; known here: {', '.join(known)}"


def _models_at(where: Path, root: type[BaseModel]) -> list[type[BaseModel]]:
    """The models of the section at a path."""
    models: list[type[BaseModel]] = [root]
    for part in where:
        inner = []
        for model in models:
            field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
            field = field or model.model_fields.get("blocks")
            inner += models_of(field.annotation) if field is not None else []
        models = inner or models
    return models


def _all_keys(model: type[BaseModel], where: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every key, but for those below names that the user chooses, and the section that it belongs to."""
    for name, field in model.model_fields.items():
        if _has_free_names(field.annotation):
            continue
        yield where, field.alias or name
        for inner in models_of(field.annotation):
            yield from _all_keys(inner, (*where, name))


def _has_free_names(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(get_origin(inner) is dict for inner in get_args(annotation))
