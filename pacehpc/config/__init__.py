"""Settings of a run: the input file, checked, with the command line's values."""

from __future__ import annotations

from pacehpc.config.data_keys import Data
from pacehpc.config.load import load_settings
from pacehpc.config.models import (
    Backend,
    EnergyBasedWeighting,
    ExternalWeighting,
    Fit,
    GpuConfig,
    Loss,
    Settings,
)

__all__ = [
    "Backend",
    "Data",
    "EnergyBasedWeighting",
    "ExternalWeighting",
    "Fit",
    "GpuConfig",
    "Loss",
    "Settings",
    "load_settings",
]
