"""`fit.repulsion: auto`: a ZBL core below the shortest distances of the data."""

from __future__ import annotations

import logging
from dataclasses import replace

from ase.data import atomic_numbers, covalent_radii

from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")


def without_core(potential: Potential) -> Potential:
    """Take out inner cutoffs and core repulsion before the fit, since ZBL replaces them after it.

    So the fitted coefficients are those of the potential that is deployed.
    """
    given = {}
    for (a, b), bond in potential.bonds.items():
        if a <= b and bond.r_in > 0:
            given[f"{a} {b}"] = f"r_in {bond.r_in:g}"
        elif a <= b and bond.inner_cutoff_type == "density" and bond.core_repulsion[0] != 0:
            given[f"{a} {b}"] = "core-repulsion"
    if not given:
        return potential
    log.info(
        "repulsion: auto replaces %s: the fit is made without, and ZBL is set after it below the shortest distances",
        ", ".join(f"{what} of {pair}" for pair, what in given.items()),
    )
    potential = potential.copy()
    for pair, bond in potential.bonds.items():
        potential.bonds[pair] = replace(bond, inner_cutoff_type="distance", r_in=0.0, delta_in=0.0)
    return potential


def check_dcut(potential: Potential) -> None:
    """Raise PacehpcError where a bond has no dcut, which ZBL needs."""
    for (a, b), bond in potential.bonds.items():
        if bond.dcut == 0:
            raise PacehpcError(
                f"fit.repulsion: auto, but the bond {a} {b} has dcut 0, and ZBL needs a positive one, such as 0.01."
            )


def with_zbl(potential: Potential, shortest: dict[tuple[str, str], float]) -> Potential:
    """Put ZBL below the shortest distance of each bond.

    Args:
        potential: copied.
        shortest: of each sorted pair of elements in the data, Å. ZBL of a bond that is absent from the data begins at
            the sum of the covalent radii.
    """
    potential = potential.copy()
    for a, b in potential.bonds:
        pair = (min(a, b), max(a, b))
        r_in = shortest.get(pair, covalent_distance(a, b))
        potential.bonds[a, b] = replace(
            potential.bonds[a, b], inner_cutoff_type="zbl", r_in=r_in, delta_in=0.1, core_repulsion=(1.0, 1.0)
        )
        if a <= b:
            log.info("repulsion: %s %s below %.3f Å%s", a, b, r_in, "" if pair in shortest else " (not in the data)")
    for element, embedding in potential.embeddings.items():
        potential.embeddings[element] = replace(embedding, rho_core_cut=1.0, drho_core_cut=1.0)
    return potential


def check_zbl(potential: Potential, shortest: dict[tuple[str, str], float]) -> None:
    """Raise PacehpcError where ZBL would begin at or beyond a cutoff."""
    for (a, b), bond in potential.bonds.items():
        if (min(a, b), max(a, b)) not in shortest and covalent_distance(a, b) >= bond.rcut:
            raise PacehpcError(
                f"fit.repulsion: auto, but no bond {a} {b} is in the data, and the sum of the covalent radii "
                f"({covalent_distance(a, b):.2f} Å), where ZBL would begin, is not smaller than its rcut "
                f"({bond.rcut:g} Å): make rcut larger."
            )


def covalent_distance(a: str, b: str) -> float:
    """Sum of the covalent radii of two elements, Å."""
    return float(covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]])
