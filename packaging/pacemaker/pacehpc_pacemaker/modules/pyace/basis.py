"""Basis sets as far as programs convert files with them."""

from __future__ import annotations

import os

from pacehpc import Potential
from pacehpc.potential import export_yace


class ACECTildeBasisSet:
    """A potential that is saved as LAMMPS reads it (.yace)."""

    def __init__(self, source: str | os.PathLike[str] | Potential) -> None:
        self.potential = source if isinstance(source, Potential) else Potential.load(source)

    def save_yaml(self, filename: str | os.PathLike[str]) -> None:
        """Write the .yace file `filename`."""
        export_yace(self.potential, filename)


class ACEBBasisSet:
    """A potential in the B basis (.yaml)."""

    def __init__(self, source: str | os.PathLike[str] | Potential) -> None:
        self.potential = source if isinstance(source, Potential) else Potential.load(source)

    def to_ACECTildeBasisSet(self) -> ACECTildeBasisSet:
        """The same potential for LAMMPS."""
        return ACECTildeBasisSet(self.potential)

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the B-basis file `filename`."""
        self.potential.save(filename)
