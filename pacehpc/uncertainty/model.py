"""The file of uncertainties that stands beside a potential, and standard deviations of rows.

    s² = fᵀ (JᵀWJ + R)⁻¹ f,    σ² = α² s² + b²,

f the derivative of an energy or a force component by the parameters, J the Jacobian of the training data. This is the
Laplace approximation of a Bayesian fit, whose 1/s² has been called the prediction rigidity (Chong, Bigi, Grasselli,
Loche, Kellner, Ceriotti, Faraday Discuss. 256, 322 (2025); Bigi, Chong, Ceriotti, Grasselli, Mach. Learn.: Sci.
Technol. 5, 045018 (2024)).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dtpttr, dtrttp

from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential
from pacehpc.potential.bbasis_yaml import format_bbasis
from pacehpc.replacing import replace_file
from pacehpc.uncertainty.calibration import KINDS, LEVELS, Scale

VERSION = 1
SUFFIX = ".uq.npz"


def uq_name(potential: str | os.PathLike[str]) -> str:
    """The name of the file of uncertainties that belongs to a potential file."""
    return str(Path(potential).with_suffix(SUFFIX))


def potential_hash(potential: Potential) -> str:
    """SHA-256 of everything in a potential but its metadata."""
    bare = potential.copy()
    bare.metadata = {}
    return hashlib.sha256(format_bbasis(bare).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """What standard deviations of a potential's predictions are made of.

    Attributes:
        potential: hash of the potential.
        trainable: which parameters were fitted, bool (n_parameters,).
        factor: L of S (JᵀWJ + R) S = L Lᵀ, (n_trainable, n_trainable), lower triangle, Fortran order.
        scales: the diagonal of S, (n_trainable,).
        energies: scale of energies per atom, eV; None where the data have none.
        forces: scale of force components, eV/Å; None where the data have none.
        groups: names of the groups in the rows of the quantiles, behind the first row, which is of all.
        origin: program, data and settings that it was made with.
    """

    potential: str
    trainable: np.ndarray
    factor: np.ndarray
    scales: np.ndarray
    energies: Scale | None
    forces: Scale | None
    groups: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    def whitened(self, rows: np.ndarray) -> np.ndarray:
        """L⁻¹ S f of rows f (n_rows, n_parameters), as columns (n_trainable, n_rows)."""
        columns = (rows[:, self.trainable] * self.scales).T
        return solve_triangular(self.factor, columns, lower=True, overwrite_b=True, check_finite=False)

    def s(self, rows: np.ndarray) -> np.ndarray:
        """Standard deviations without factor of rows (n_rows, n_parameters), (n_rows,)."""
        found = self.whitened(rows)
        return np.sqrt(np.einsum("kr,kr->r", found, found))

    def quantiles(self, kind: str, group: str | None) -> np.ndarray:
        """Factors of σ in intervals at `LEVELS` of a group, of all structures where it has none of its own."""
        scale: Scale = getattr(self, kind)
        if group in self.groups:
            own = scale.quantiles[1 + self.groups.index(group)]
            if np.isfinite(own).all():
                return own
        return scale.quantiles[0]

    def check(self, potential: Potential, name: str, potential_name: str = "the potential") -> None:
        """Raise PacehpcError, starting with `name`, where this does not belong to a potential."""
        if potential_hash(potential) != self.potential:
            raise PacehpcError(
                f"{name}: belongs to another potential than {potential_name}: the coefficients, or the form they were "
                "saved in (.yaml, .yace), differ. Give the .yaml file that it was made for, or make it again with "
                "`pacehpc uq build`."
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz; the same bytes for the same content."""
        packed, info = dtrttp(self.factor, uplo="L")
        assert info == 0
        arrays = {
            "version": np.array(VERSION),
            "potential": np.array(self.potential),
            "trainable": self.trainable,
            "factor": packed,
            "scales": self.scales,
            "groups": np.array(self.groups, dtype=str),
            "levels": np.array(LEVELS),
            "units": np.array("energies: eV/atom; forces: eV/angstrom"),
            "origin": np.array(json.dumps(self.origin, sort_keys=True, ensure_ascii=False)),
        }
        for kind in KINDS:
            scale = getattr(self, kind)
            if scale is not None:
                arrays |= {f"{kind}/{name}": np.asarray(value) for name, value in vars(scale).items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        replace_file(Path(path), buffer.getvalue())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], potential: Potential, potential_name: str = "the potential"
    ) -> Uncertainty:
        """Read a file of `save`.

        Raises:
            PacehpcError: it is missing, of another kind or version, or belongs to another potential.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            if int(arrays["version"]) != VERSION:
                raise PacehpcError(
                    f"{path}: written in version {int(arrays['version'])} of this format; this program reads version "
                    f"{VERSION}. Make it again with `pacehpc uq build`."
                )
            scales = arrays["scales"]
            factor, info = dtpttr(len(scales), arrays["factor"], uplo="L")
            if info != 0 or not np.isfinite(arrays["factor"]).all():
                raise ValueError("damaged")
            found = cls(
                str(arrays["potential"]), arrays["trainable"], factor, scales, _scale(arrays, "energies"),
                _scale(arrays, "forces"), tuple(arrays["groups"].tolist()), json.loads(str(arrays["origin"])),
            )  # fmt: skip
        except FileNotFoundError as error:
            raise PacehpcError(
                f"{path}: there is no such file; `pacehpc uq build` or `fit: {{uncertainty: true}}` makes it."
            ) from error
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, AttributeError) as error:
            raise PacehpcError(f"{path}: not a file of uncertainties, which `pacehpc uq build` writes.") from error
        found.check(potential, str(path), potential_name)
        return found


def _scale(arrays: Mapping[str, np.ndarray], kind: str) -> Scale | None:
    if f"{kind}/alpha" not in arrays:
        return None
    numbers = (float(arrays[f"{kind}/{name}"]) for name in ("alpha", "floor", "cut"))
    return Scale(*numbers, arrays[f"{kind}/quantiles"], float(arrays[f"{kind}/rmse"]))
