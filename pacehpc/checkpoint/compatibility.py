"""What a fit depends on, and what a difference means for resuming it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HARMLESS = "harmless"
"""Changes no number."""
ROUNDING = "rounding"
"""The same fit; its numbers agree to round-off, not bit for bit."""
OTHER_KERNELS = "other kernels"
"""The same fit, but its numbers now differ from the recorded ones: it resumes from the best point."""
ANOTHER_FIT = "another fit"
"""The loss or the strategy differs."""
ANOTHER_SHAPE = "another shape"
"""The parameter vector has a different layout; nothing can be carried over."""

# Beginnings of dotted names; the longest that fits counts.
_MEANING = {
    "": ANOTHER_FIT,
    "settings.metadata": HARMLESS,
    "settings.backend": HARMLESS,
    "settings.backend.memory_limit": ROUNDING,
    "settings.checkpoint": HARMLESS,
    "settings.data.filename": HARMLESS,  # the contents count
    "settings.data.test_filename": ANOTHER_FIT,
    "settings.data.datapath": HARMLESS,
    "settings.potential": ANOTHER_SHAPE,
    "settings.potential.metadata": HARMLESS,
    "settings.fit.ladder_step": ANOTHER_SHAPE,
    "settings.fit.ladder_type": ANOTHER_SHAPE,
    "settings.fit.trainable_parameters": ANOTHER_SHAPE,
    "settings.fit.uncertainty": HARMLESS,
    "potential files": ANOTHER_SHAPE,
    "ranks": ROUNDING,
    "backend": OTHER_KERNELS,
    "processors": ROUNDING,
    "kernels": ROUNDING,
    "versions": ROUNDING,
}
# Sums of these backends have the same bits on any number of ranks; the cpu's, whether or not the data stay in memory.
_NOTHING_TO = {"cpu": ("ranks", "settings.backend.memory_limit"), "cuda": ("ranks",)}


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was."""

    name: str
    before: Any
    now: Any
    meaning: str

    def __str__(self) -> str:
        if len(f"{self.before}{self.now}") > 160:
            return f"{self.name} has changed"
        return f"{self.name}: {self.before} before, {self.now} now"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What differs between two nested mappings, by dotted name; `backend` in both says whether ranks matter."""
    old, new = flat(before), flat(now)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if "backend" in names:
        names = [name for name in names if name != "kernels"]  # of course
    backend = new.get("backend") if old.get("backend") == new.get("backend") else None
    meanings = {name: meaning(name, backend) for name in names}
    step = "settings.backend.display_step"  # it says when an early stop by the test set looks
    if step in meanings and new.get("settings.fit.min_relative_test_loss_per_iter") is not None:
        meanings[step] = ANOTHER_FIT
    return [Difference(name, old.get(name, "–"), new.get(name, "–"), meanings[name]) for name in names]


def meaning(name: str, backend: str | None = None) -> str:
    """What a difference in `name` means; backend: whose the kernels were and are, None if they differ."""
    if name in _NOTHING_TO.get(backend, ()):
        return HARMLESS
    fitting = [key for key in _MEANING if key == "" or name == key or name.startswith(key + ".")]
    return _MEANING[max(fitting, key=len)]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def content_hash(files: Iterable[Path]) -> str:
    """SHA-256 over the contents of files, in their order; "" without files."""
    digest, number = hashlib.sha256(), 0
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        number += 1
    return digest.hexdigest() if number else ""
