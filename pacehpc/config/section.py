"""What the sections of the input file have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
