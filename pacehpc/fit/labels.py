"""What a loss needs of the energies, forces and stresses in the data, and whether they are there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pacehpc.dataset import Store
from pacehpc.errors import PacehpcError

if TYPE_CHECKING:
    from pacehpc.config.models import Fit
    from pacehpc.dataset import Dataset

log = logging.getLogger("pacehpc")

STRESS_SHARE = 0.95  # of the first loss
LONELY = 1e-3  # eV/atom: what float32 leaves of the energy of a free atom


def needed_by(fit: Fit) -> list[str]:
    """What the loss of some stage uses: without energies kappa is 1, without forces 0."""
    losses = [stage.loss for stage in fit.stages]
    used = {
        "energy": any(loss.kappa != 1 for loss in losses),
        "forces": any(loss.kappa != 0 for loss in losses),
        "stress": any(loss.stress > 0 for loss in losses),
    }
    return [name for name, needed in used.items() if needed]


def warn_of_stress_share(metrics: Mapping[str, float]) -> None:
    """Warn where a loss is nothing but stress, as with stresses in other units; `metrics`: of the first evaluation."""
    if metrics["loss"] > 0 and metrics["s_loss_contrib"] > STRESS_SHARE * metrics["loss"]:
        log.warning(
            "the stress is %.0f %% of the first loss, so that energies and forces hardly count: are the stresses in "
            "the units of data.stress_units, and fit.loss.stress what is meant?",
            100 * metrics["s_loss_contrib"] / metrics["loss"],
        )


def check_labels(fit: Fit, train: Dataset, path: Path) -> None:
    """Check energies and stresses of the data to fit against what a potential can give.

    Args:
        fit: whose stages say what is needed.
        train: the data to fit.
        path: the prepared file of it, which has the neighbour lists.

    Raises:
        PacehpcError: the loss has a stress term, but no structure that takes part has a stress.
    """
    weight = max(stage.loss.stress for stage in fit.stages)
    known = np.zeros(len(train), bool) if train.stress is None else np.isfinite(train.stress).all(axis=1)
    if weight and not (known & (train.volumes > 0)).any():
        cause = train.unusable.get("stress", f"{', '.join(train.sources)}: no periodic structure has a stress")
        raise PacehpcError(
            f"fit.loss.stress: {weight:g}, but {cause.rstrip('.')}. Name the stresses or virials in the data with "
            "data.keys: {stress: NAME} or {virial: NAME}, or remove fit.loss.stress."
        )
    with Store(path) as store:
        alone = store.without_bonds()
    off = alone[np.abs(train.energy_corrected[alone]) > LONELY * train.atoms_per_structure[alone]]
    if len(off):
        per_atom = train.energy_corrected[off[0]] / train.atoms_per_structure[off[0]]
        log.warning(
            "%d structures of atoms without neighbours have an energy to fit other than zero (%s: %.4g eV/atom), which "
            "no potential gives them. For free atoms, data.reference_energy should be their energies (auto takes those "
            "in the data); atoms further apart than the cutoff need a larger one, or leave them out",
            len(off), train.where(int(off[0])), per_atom,
        )  # fmt: skip
