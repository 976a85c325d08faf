"""An active set: for each element the inverse matrix that turns an atom's row into its extrapolation grade.

Podryabinkin and Shapeev, Comput. Mater. Sci. 140, 171 (2017);
Lysogorskiy et al., Phys. Rev. Materials 7, 043801 (2023).
"""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pacehpc.active.order import column_functions, column_order
from pacehpc.backends.interface import Evaluator
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential
from pacehpc.replacing import replace_file

log = logging.getLogger("pacehpc")

TOLERANCE = 1.01
"""Largest grade that the search for an active set leaves among the data: atoms above it extrapolate."""
FULL_SUFFIX = ".asi.nonlinear"
"""Name of the files of full active sets, whose rows are derivatives of the energy by the function coefficients."""


@dataclass(frozen=True)
class ActiveSet:
    """The inverses A_e⁻¹ of the chosen rows, by element.

    Args:
        inverses: (n, n) float64 per element; n is the number of the element's functions, times ndensity in a full set.
        full: rows are ∂E_i/∂c instead of B functions.
    """

    inverses: Mapping[str, np.ndarray]
    full: bool = False

    def grades(self, element: str, rows: np.ndarray) -> np.ndarray:
        """Return γ = max_k |(B A⁻¹)_k| of each row.

        Args:
            element: element of the atoms.
            rows: (n_atoms, n) in the order of `column_order`.
        """
        if len(rows) == 0:
            return np.zeros(0)
        return np.abs(rows @ self.inverses[element]).max(axis=1)

    def in_order_of(self, potential: Potential) -> ActiveSet:
        """Return the set for rows in the potential's order of functions, as evaluators compute them."""
        inverses = {}
        for element, inverse in self.inverses.items():
            densities = potential.embeddings[element].ndensity if self.full else 1
            inverses[element] = np.empty_like(inverse)
            inverses[element][_columns(potential, element, densities)] = inverse
        return ActiveSet(inverses, self.full)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .asi file: an uncompressed .npz with one array per element, as LAMMPS and pacemaker read it."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: np.ascontiguousarray(a) for name, a in self.inverses.items()})
        replace_file(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str], potential: Potential) -> ActiveSet:
        """Read an .asi file that belongs to `potential`.

        Raises:
            PacehpcError: the file cannot be read, lacks an element, or has been made for another basis.
        """
        name = os.fspath(path)
        try:
            with np.load(name, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
        except FileNotFoundError as error:
            raise PacehpcError(f"{name}: there is no such file; `pacehpc activeset` writes one.") from error
        except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
            raise PacehpcError(f"{name}: not an active set (.asi), which is an .npz of NumPy: {error}") from error
        full = name.endswith(".nonlinear")
        for element in potential.elements:
            n = len(column_functions(potential, element)) * (potential.embeddings[element].ndensity if full else 1)
            if n == 0:
                continue
            if element not in arrays:
                raise PacehpcError(f"{name}: no active set of {element}; it holds {', '.join(arrays) or 'nothing'}.")
            if arrays[element].shape != (n, n) or arrays[element].dtype.kind != "f":
                raise PacehpcError(
                    f"{name}: the set of {element} has shape {arrays[element].shape}; this potential has {n} "
                    "functions there. The file belongs to another potential."
                )
        return cls({e: np.ascontiguousarray(a, np.float64) for e, a in arrays.items()}, full)


def _columns(potential: Potential, element: str, densities: int) -> np.ndarray:
    """Positions, in the potential's order, of the columns of an active set with rows of so many densities."""
    order = column_order(potential, element)
    return np.concatenate([order + k * len(order) for k in range(densities)])


def sorted_columns(potential: Potential, element: str, rows: np.ndarray) -> np.ndarray:
    """Bring rows from the potential's order of functions to that of active sets.

    Args:
        potential: whose functions the columns are.
        element: centre of the functions.
        rows: (n_atoms, n_functions) of B functions, or (n_atoms, ndensity * n_functions), density after density.
    """
    n = len(column_functions(potential, element))
    return rows[:, _columns(potential, element, rows.shape[1] // n)] if n else rows


def grades_of(evaluator: Evaluator, potential: Potential, active_set: ActiveSet, n_atoms: int) -> np.ndarray:
    """Return the extrapolation grades of all atoms of an evaluator's structures.

    Args:
        evaluator: of the structures.
        potential: of the evaluator.
        active_set: in the order of the potential, see `ActiveSet.in_order_of`.
        n_atoms: of the structures together.
    """
    grades = np.zeros(n_atoms)
    for run in evaluator.atom_rows(potential.parameters, "full" if active_set.full else "basis"):
        for element, atoms, rows in zip(potential.elements, run.atoms, run.values, strict=True):
            if len(atoms):
                grades[atoms] = active_set.grades(element, rows)
    return grades


def warn_of_extrapolation(grades: np.ndarray, where: str) -> bool:
    """Warn that standard deviations promise nothing for atoms with grades (n_atoms,) outside the data.

    where: what the message begins with. Returns whether there are any.
    """
    outside = np.count_nonzero(grades > TOLERANCE)
    if outside:
        log.warning(
            "%s%d of %d atoms extrapolate (grades up to %.1f): their standard deviations were calibrated on structures "
            "like the training data and promise nothing here", where, outside, len(grades), grades.max(),
        )  # fmt: skip
    return outside > 0
