"""C-tilde files (.yace), which LAMMPS' pair_style pace reads.

The functions with equal neighbours, n and l are merged: their products of A_{μnlm} are the same, so that one
coefficient for each set of m and each density remains (Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021), eq. 11).
"""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np

from pacehpc.basis import merged_terms
from pacehpc.physics.parameters import Bond, Embedding
from pacehpc.potential.files import format_list, format_number, write_atomically
from pacehpc.potential.model import Potential
from pacehpc.potential.padding import padded

Factors = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def write_yace(potential: Potential, path: str | os.PathLike[str]) -> None:
    """Write the file; the same potential always gives the same bytes."""
    potential.check("export to .yace")
    write_atomically(path, format_yace(potential))


def format_yace(potential: Potential) -> str:
    """The text of a .yace file, in which all elements have the same number of densities."""
    potential = padded(potential)
    elements = potential.elements
    lines = [
        f"elements: [{', '.join(elements)}]",
        f"E0: [{', '.join('0' for _ in elements)}]",
        f"deltaSplineBins: {format_number(potential.delta_spline_bins)}",
        "embeddings:",
    ]
    lines += [f"  {mu}: {_embedding(potential.embeddings[element])}" for mu, element in enumerate(elements)]
    lines.append("bonds:")
    for i, first in enumerate(elements):
        for j, second in enumerate(elements):
            coefficients = potential.radcoefficients[min((first, second), (second, first))]
            lines.append(f"  [{i}, {j}]: {_bond(potential.bonds[first, second], coefficients)}")
    lines.append("functions:")
    for mu, element in enumerate(elements):
        functions = _functions(potential, mu, element)
        lines.append(f"  {mu}:" if functions else f"  {mu}: []")
        lines += functions
    return "\n".join(lines) + "\n"


def _embedding(embedding: Embedding) -> str:
    return (
        f"{{ndensity: {embedding.ndensity}, FS_parameters: {format_list(embedding.fs_parameters)}, "
        f"npoti: {embedding.npot}, rho_core_cutoff: {format_number(embedding.rho_core_cut)}, "
        f"drho_core_cutoff: {format_number(embedding.drho_core_cut)}}}"
    )


def _bond(bond: Bond, coefficients: np.ndarray) -> str:
    return (
        f"{{nradmax: {bond.nradmax}, lmax: {bond.lmax}, nradbasemax: {bond.nradbase}, radbasename: {bond.radbase}, "
        f"radparameters: {format_list(bond.radparameters)}, radcoefficients: {format_list(coefficients.tolist())}, "
        f"prehc: {format_number(bond.core_repulsion[0])}, lambdahc: {format_number(bond.core_repulsion[1])}, "
        f"rcut: {format_number(bond.rcut)}, dcut: {format_number(bond.dcut)}, rcut_in: {format_number(bond.r_in)}, "
        f"dcut_in: {format_number(bond.delta_in)}, inner_cutoff_type: {bond.inner_cutoff_type}}}"
    )


def _functions(potential: Potential, mu: int, centre: str) -> list[str]:
    """The lines of one centre, ordered by (rank, neighbours, ns, ls)."""
    ndensity = potential.embeddings[centre].ndensity
    species = {element: index for index, element in enumerate(potential.elements)}
    merged: dict[Factors, list[tuple[tuple, np.ndarray]]] = {}
    for block in potential.blocks:
        if block.elements[0] != centre:
            continue
        for (elements, ns, ls, LS), c in zip(block.functions, block.coefficients, strict=True):
            mus = tuple([species[element] for element in elements[1:]])
            factors = list(zip(mus, ns, ls, strict=True))
            order = tuple(range(len(ns)))
            if any(a > b for a, b in pairwise(factors)):
                order = tuple(sorted(order, key=factors.__getitem__))
                mus, ns, sorted_ls = zip(*[factors[t] for t in order], strict=True)
            else:
                sorted_ls = ls
            merged.setdefault((mus, ns, sorted_ls), []).append(((ls, LS, order), c))
    lines = []
    for mus, ns, ls in sorted(merged, key=lambda factors: (len(factors[0]), factors)):
        factors = list(zip(mus, ns, ls, strict=True))
        classes = tuple([factors.index(factor) for factor in factors])
        couplings, rows = zip(*merged[mus, ns, ls], strict=True)
        ms, values = merged_terms(couplings, classes)
        ctildes = values.T @ np.array(rows)
        numbers = ", ".join([format_number(value) for value in ctildes.ravel().tolist()])
        lines.append(
            f"    - {{mu0: {mu}, rank: {len(ns)}, ndensity: {ndensity}, num_ms_combs: {len(ms)}, mus: {list(mus)}, "
            f"ns: {list(ns)}, ls: {list(ls)}, ms_combs: {ms.ravel().tolist()}, ctildes: [{numbers}]}}"
        )
    return lines
