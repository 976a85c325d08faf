"""The parameters of the physical formulas: a bond's radial basis and cutoffs, an atom's embedding.

The numbers of the enums are those of the kernels' enums of the same names (kernels/problem.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Family(IntEnum):
    """Families of radial functions: what `Bond.radbase` can be."""

    ChebExpCos = 0
    ChebPow = 1
    ChebLinear = 2
    SBessel = 3


class InnerCutoff(IntEnum):
    """What `Bond.inner_cutoff_type` does to the radial functions; zbl leaves them as they are."""

    zbl = 0
    distance = 1
    density = 2


class CoreKind(IntEnum):
    """The core repulsion of a `Bond.inner_cutoff_type`."""

    distance = 0
    density = 1
    zbl = 2


class EmbeddingKind(IntEnum):
    """Embedding functions: what `Embedding.npot` can be."""

    FinnisSinclairShiftedScaled = 0
    FinnisSinclair = 1


FAMILIES = tuple(Family.__members__)
INNER_CUTOFF_TYPES = ("distance", "density", "zbl")
EMBEDDINGS = tuple(EmbeddingKind.__members__)
OLD_NAMES = {"TEST_SBessel": "SBessel"}
"""Names of families in old files and inputs, and what they mean."""


@dataclass(frozen=True)
class Embedding:
    """F(ρ_1, ..., ρ_ndensity) of one element and the cutoff of its core repulsion (eV)."""

    npot: str
    fs_parameters: tuple[float, ...]
    ndensity: int
    rho_core_cut: float = 1e5
    drho_core_cut: float = 250.0


@dataclass(frozen=True)
class Bond:
    """Radial basis and cutoffs of an ordered pair of elements (lengths in Å) and the sizes of its coefficients."""

    radbase: str
    radparameters: tuple[float, ...]
    rcut: float
    dcut: float
    r_in: float = 0.0
    delta_in: float = 0.0
    inner_cutoff_type: str = "distance"
    core_repulsion: tuple[float, float] = (0.0, 1.0)
    nradbase: int = 0
    nradmax: int = 0
    lmax: int = 0
