"""The ASE calculator."""

from __future__ import annotations

import os
from typing import Any

from pacehpc import PaceCalculator, Potential
from pyace.basis import ACEBBasisSet, ACECTildeBasisSet

EVALUATORS = ("recursive_evaluator", "recursive", "fast_nl", "verbose")
"""Keywords that choose among the evaluators of python-ace; all give what `PaceCalculator` gives."""


class PyACECalculator(PaceCalculator):
    """pacehpc's `PaceCalculator` under the name that callers of pacemaker use.

    Args:
        basis_set: the name of a potential, B basis (.yaml) or .yace, or a basis set of this module.
        kwargs: of `PaceCalculator`; keywords that choose an evaluator of python-ace have no meaning.
    """

    def __init__(
        self, basis_set: str | os.PathLike[str] | Potential | ACEBBasisSet | ACECTildeBasisSet, **kwargs: Any
    ) -> None:
        if isinstance(basis_set, ACEBBasisSet | ACECTildeBasisSet):
            basis_set = basis_set.potential
        super().__init__(basis_set, **{name: value for name, value in kwargs.items() if name not in EVALUATORS})
