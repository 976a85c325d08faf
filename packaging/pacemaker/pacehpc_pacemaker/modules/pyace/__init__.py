"""What programs import from pacemaker's Python package, with pacehpc behind it."""

from __future__ import annotations

from pyace.asecalc import PyACECalculator
from pyace.basis import ACEBBasisSet, ACECTildeBasisSet

__all__ = ["ACEBBasisSet", "ACECTildeBasisSet", "PyACECalculator"]
