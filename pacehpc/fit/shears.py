"""Whether the shear stresses in the data stand in the order and with the sign that this program takes them in."""

from __future__ import annotations

import itertools
import logging

import numpy as np

from pacehpc.metrics import GPA

log = logging.getLogger("pacehpc")

FEWEST = 5  # structures of a group that are judged
BETTER = 0.25  # of the squared error as given: so small another order or sign must make it
SMALL = 1e-4  # eV/Å³: shears below say nothing
_NAMES = ("yz", "xz", "xy")


def warn_of_shears(reference: np.ndarray, predicted: np.ndarray, groups: np.ndarray, which: str) -> None:
    """Warn of groups of structures whose shears agree far better in another order, or with the other sign.

    Args:
        reference: (n_structures, 6) stress of the data, xx yy zz yz xz xy, eV/Å³; rows of NaN are left out.
        predicted: (n_structures, 6) of the fitted potential, which knows energies and forces as well.
        groups: (n_structures,) the group of each structure.
        which: the data set, for the message.
    """
    known = np.isfinite(reference).all(axis=1) & np.isfinite(predicted).all(axis=1)
    for group in dict.fromkeys(groups[known].tolist()):
        rows = known & (groups == group)
        given, shears = reference[rows, 3:], predicted[rows, 3:]
        if len(given) < FEWEST or np.sqrt(np.mean(given**2)) < SMALL:
            continue
        order, sign, error = better_order(given, shears)
        as_given = np.mean((given - shears) ** 2)
        if error < BETTER * as_given:
            where = f"of the group {group!r} " if len(set(groups)) > 1 else ""
            log.warning(
                "Stress (%s): the shears %sagree better with the predictions if the last three of the six numbers are "
                "%s%s (RMSE %.3g GPa, as given %.3g GPa). Expected are xx yy zz yz xz xy in ASE's sign; VASP prints "
                "xx yy zz xy yz zx. Reorder them in the data, or give nine numbers", which, where,
                "-" if sign < 0 else "", " ".join(_NAMES[k] for k in order), GPA * np.sqrt(error),
                GPA * np.sqrt(as_given),
            )  # fmt: skip


def better_order(given: np.ndarray, shears: np.ndarray) -> tuple[tuple[int, ...], int, float]:
    """What the three columns of the data are by the predictions, their sign, and the mean squared difference then.

    Args:
        given: (n, 3) shears of the data.
        shears: (n, 3) predicted yz, xz, xy.
    """
    found = [
        (float(np.mean((given - sign * shears[:, order]) ** 2)), order, sign)
        for order in itertools.permutations(range(3))
        for sign in (1, -1)
    ]
    error, order, sign = min(found)
    return order, sign, error
