"""The potential in memory: embeddings, bonds, radial coefficients and blocks of functions.

Sources: Drautz, Phys. Rev. B 99, 014104 (2019); Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pacehpc.basis import element_names, resolve
from pacehpc.errors import PacehpcError
from pacehpc.physics.parameters import Bond, Embedding
from pacehpc.physics.radial import radial_basis
from pacehpc.potential import tables
from pacehpc.potential.blocks import Block, Pair, sorted_pairs
from pacehpc.potential.check import check_bonds, check_coefficients, check_elements, check_embedding, check_spline

if TYPE_CHECKING:
    import pandas


@dataclass(eq=False, repr=False)
class Potential:
    """A PACE potential.

    elements: alphabetical; an element's position is its species index
    embeddings: one for each element
    bonds: every ordered pair; (A, B) and (B, A) are equal
    radcoefficients: c_nlk of the sorted pairs (A <= B), (nradmax, lmax + 1, nradbase) float64
    blocks: alphabetical, without empty ones
    """

    elements: tuple[str, ...]
    embeddings: dict[str, Embedding]
    bonds: dict[Pair, Bond]
    radcoefficients: dict[Pair, np.ndarray]
    blocks: list[Block]
    metadata: dict[str, str] = field(default_factory=dict)
    delta_spline_bins: float = 0.001

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Potential:
        """Read a B-basis YAML file or a .yace file; see `pacehpc.potential.io.load_potential`."""
        from pacehpc.potential.io import load_potential

        return load_potential(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a B-basis YAML file; see `pacehpc.potential.io.save_potential`."""
        from pacehpc.potential.io import save_potential

        save_potential(self, path)

    def __repr__(self) -> str:
        return f"<Potential {' '.join(self.elements)}: {self.n_functions} functions, {self.n_parameters} parameters>"

    def copy(self) -> Potential:
        """An independent copy; only the immutable functions and bonds are shared."""
        return Potential(
            self.elements,
            dict(self.embeddings),
            dict(self.bonds),
            {pair: c.copy() for pair, c in self.radcoefficients.items()},
            [Block(block.elements, list(block.functions), block.coefficients.copy()) for block in self.blocks],
            dict(self.metadata),
            self.delta_spline_bins,
        )

    @property
    def pairs(self) -> list[Pair]:
        """The sorted pairs in alphabetical order: the order of the radial parameters."""
        return sorted_pairs(self.elements)

    @property
    def cutoff(self) -> float:
        """The largest rcut, Å."""
        return max(bond.rcut for bond in self.bonds.values())

    @property
    def n_functions(self) -> int:
        """Number of B functions in all blocks."""
        return sum(len(block.functions) for block in self.blocks)

    @property
    def n_parameters(self) -> int:
        """Length of `parameters`."""
        return sum(array.size for array in self._arrays())

    def _arrays(self) -> list[np.ndarray]:
        """The coefficient arrays in the order of the parameters vector."""
        return [self.radcoefficients[pair] for pair in self.pairs] + [block.coefficients for block in self.blocks]

    def _slices(self) -> list[slice]:
        ends = np.cumsum([0] + [array.size for array in self._arrays()]).tolist()
        return [slice(start, stop) for start, stop in pairwise(ends)]

    @property
    def parameters(self) -> np.ndarray:
        """All coefficients, (n_parameters,) float64, a new array.

        First c_nlk of each sorted pair in alphabetical order, C order (n, l, k); then the blocks, C order (function,
        density). Assigning a vector of that length sets all coefficients.
        """
        return np.concatenate([array.ravel() for array in self._arrays()])

    @parameters.setter
    def parameters(self, vector: np.ndarray) -> None:
        vector = np.asarray(vector, dtype=np.float64)
        if vector.shape != (self.n_parameters,):
            raise PacehpcError(
                f"potential.parameters: expected {self.n_parameters} numbers, got an array of shape {vector.shape}"
            )
        for array, where in zip(self._arrays(), self._slices(), strict=True):
            array[...] = vector[where].reshape(array.shape)

    @property
    def radial_slices(self) -> dict[Pair, slice]:
        """Where each sorted pair's radial coefficients stand in `parameters`."""
        return dict(zip(self.pairs, self._slices()[: len(self.pairs)], strict=True))

    @property
    def block_slices(self) -> list[slice]:
        """Where each block's coefficients stand in `parameters`."""
        return self._slices()[len(self.pairs) :]

    def parameter_table(self) -> pandas.DataFrame:
        """A row for each parameter: kind 'radial' (bond, n, l, k) or 'func' (block, type, nr, nl, lint, density).

        n, k and nr count from 1, l and density from 0; what does not apply is missing.
        """
        return tables.parameter_table(self.radcoefficients, self.blocks)

    def functions_table(self) -> pandas.DataFrame:
        """A row for each function: block, type, rank, nr, nl, lint, c (tuple over densities)."""
        return tables.functions_table(self.blocks)

    def bond_pair(self, bond: str | Sequence[str]) -> Pair:
        """The ordered pair that "AlNi", "Al Ni", ("Al", "Ni") or "Al" (for Al-Al) names."""
        names = element_names(bond, self.elements, "bond")
        if len(names) > 2:
            raise PacehpcError(f"bond '{bond}' names {len(names)} elements; a bond has one or two")
        return names[0], names[-1]

    def radial(self, bond: str | Sequence[str], r: np.ndarray) -> np.ndarray:
        """g_k(r) of a bond with its cutoffs, (len(r), nradbase); r in Å."""
        values, _ = radial_basis(self.bonds[self.bond_pair(bond)], np.asarray(r, dtype=np.float64))
        return values

    def set_core_repulsion(
        self,
        bond: str | Sequence[str] = "ALL",
        r_in: float | None = None,
        delta_in: float | None = None,
        core_repulsion: Sequence[float] | None = None,
        rho_core_cut: float | None = None,
        drho_core_cut: float | None = None,
        inner_cutoff_type: str | None = None,
    ) -> None:
        """Change inner cutoff and core repulsion of a bond ("ALL", "UNARY", "BINARY" or elements); None keeps a value.

        r_in, delta_in in Å; core_repulsion is (prefactor, λ). rho_core_cut and drho_core_cut (eV) belong to the atoms:
        they are set for the elements of the bond. All bonds must end with the same inner_cutoff_type.
        """
        new = {"r_in": r_in, "delta_in": delta_in, "core_repulsion": core_repulsion}
        new = {key: value for key, value in new.items() if value is not None}
        if inner_cutoff_type is not None:
            new["inner_cutoff_type"] = inner_cutoff_type
        if core_repulsion is not None:
            new["core_repulsion"] = tuple(float(value) for value in core_repulsion)
        cuts = {"rho_core_cut": rho_core_cut, "drho_core_cut": drho_core_cut}
        cuts = {key: value for key, value in cuts.items() if value is not None}
        key = bond if isinstance(bond, str) else tuple(bond)
        chosen = resolve({key: {"chosen": True}}, self.bonds, self.elements, "bonds", "bonds")
        changed = self.copy()
        for pair in (pair for pair in self.bonds if chosen[pair]):
            changed.bonds[pair] = replace(self.bonds[pair], **new)
            for element in pair:
                changed.embeddings[element] = replace(self.embeddings[element], **cuts)
        changed.check("set_core_repulsion")
        self.bonds, self.embeddings = changed.bonds, changed.embeddings

    def check(self, name: str) -> None:
        """Raise PacehpcError, starting with `name`, where the potential is not one that can be evaluated."""
        check_elements(self.elements, name)
        check_spline(self.delta_spline_bins, name)
        for element in self.elements:
            check_embedding(self.embeddings[element], f"{name}: embedding of {element}")
        check_bonds(self.bonds, self.blocks, name)
        check_coefficients(self.radcoefficients, self.blocks, name)
