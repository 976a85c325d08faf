"""The end of a fit with `fit.uncertainty`: the file of uncertainties, and the standard deviations of its data."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

import pacehpc
from pacehpc.backends.interface import LossWeights
from pacehpc.dataset.groups import group_labels
from pacehpc.errors import PacehpcError
from pacehpc.fit.plan import Plan
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential
from pacehpc.shard import Shard
from pacehpc.uncertainty.build import build, compile_for_deviations
from pacehpc.uncertainty.deviations import deviations
from pacehpc.uncertainty.model import Uncertainty, uq_name

log = logging.getLogger("pacehpc")

Spread = tuple[np.ndarray, list[np.ndarray]]
"""Standard deviations of energies, (n_structures,), eV, and of the forces of each structure, (n_atoms, 3), eV/Å."""


def write_uncertainty(
    name: str,
    potential: Potential,
    plan: Plan | None,
    shards: Mapping[str, Shard],
    ranks: Ranks,
    backend: str,
    loss: LossWeights,
    trainable: np.ndarray,
    predict: bool,
) -> dict[str, Spread]:
    """Build the uncertainty of a fitted potential from the data of its fit and write it. By all ranks together.

    A fit does not fail for it: what prevents it is a warning.

    Args:
        name: of the potential's file.
        potential: as that file holds it.
        plan: on the root.
        shards: this rank's structures.
        ranks: all of them.
        backend: that all ranks agreed on.
        loss: weights of forces and stresses in the fit.
        trainable: which parameters were fitted.
        predict: whether standard deviations of the data are wanted.

    Returns:
        On the root, standard deviations of the data by the name in `shards`, where they were wanted and cost no more
        than the uncertainty itself.
    """
    labels = group_labels(plan.train.names, plan.train.info) if ranks.root else None
    origin = {"pacehpc": pacehpc.__version__, "data_sha256": plan.train.sha256} if ranks.root else None
    try:
        made = build(potential, shards["train"], ranks, backend, loss, labels, trainable, origin)
    except PacehpcError as error:
        if ranks.root:
            log.warning("%s is not written: %s", uq_name(name), error)
        return {}

    def write() -> None:
        made.save(uq_name(name))
        log.info("Uncertainties of its energies and forces: %s", uq_name(name))

    ranks.on_root(write)
    made = ranks.broadcast(made)
    if not predict or not made.origin["every_row"]:
        return {}
    compile_for_deviations(backend, potential, ranks)
    return {
        which: found for which, shard in shards.items() if (found := _spread(made, potential, shard, ranks, backend))
    }


def _spread(made: Uncertainty, potential: Potential, shard: Shard, ranks: Ranks, backend: str) -> Spread | None:
    """Standard deviations of a data set in the order of the data, on the root; None on other ranks."""
    found = [one for piece in shard.pieces(potential) for one in deviations(made, potential, backend, piece)]
    parts = ranks.gather((shard.rows, [one.energy for one in found], [one.forces for one in found]))
    if parts is None:
        return None
    order = np.argsort(np.concatenate([rows for rows, _, _ in parts]), kind="stable")
    energies = np.concatenate([values for _, values, _ in parts])[order]
    forces = [values for _, _, part in parts for values in part]
    return energies, [forces[k] for k in order]
