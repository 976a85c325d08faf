"""The stages of a fit: their factors on weights, what the log says of them, and the way from one to the next."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pacehpc.dataset.groups import group_factors, log_factors, pattern_labels
from pacehpc.dataset.weights import normalise
from pacehpc.fit.labels import needed_by
from pacehpc.fit.state import FitState
from pacehpc.parallel import Ranks
from pacehpc.shard import Shard

if TYPE_CHECKING:
    from pacehpc.config.models import Fit
    from pacehpc.dataset import Dataset

log = logging.getLogger("pacehpc")

SHOWN = ("kappa", "stress", "energy", "forces", "L1_coeffs", "L2_coeffs", "w0_rad", "w1_rad", "w2_rad", "w_orth")


@dataclass(frozen=True)
class Factors:
    """On the weights of a data set in one stage, in the order of the data; the weights stay normalised.

    Attributes:
        energy: of energies and stresses, (n_structures,).
        forces: of the atoms of each structure, (n_structures,).
    """

    energy: np.ndarray
    forces: np.ndarray

    def of(self, shard: Shard) -> Shard:
        """A rank's part of the data with these weights."""
        rows = slice(None) if shard.rows is None else shard.rows
        return shard.reweighted(self.energy[rows], self.forces[rows])


def stage_factors(fit: Fit, train: Dataset, test: Dataset | None) -> list[dict[str, Factors]]:
    """For each stage, the factors by the name of the data set; {} where it leaves the weights as they are. On the root.

    Raises:
        PacehpcError: a pattern matches no structure, or nothing is left to fit.
    """
    parts = {"train": train} if test is None else {"train": train, "test": test}
    names = [name for data in parts.values() for name in data.names]
    info = [one for data in parts.values() for one in data.info]
    needed, found = needed_by(fit), []
    for number, stage in enumerate(fit.schedule or [None]):
        if stage is None or not stage.weights:
            found.append({})
            continue
        where = f"fit.schedule[{number}].weights"
        labels = pattern_labels(names, info)
        energy, forces = group_factors(labels, stage.weights, where)
        ends, made = np.cumsum([len(data) for data in parts.values()])[:-1], {}
        each = zip(parts.items(), np.split(energy, ends), np.split(forces, ends), strict=True)
        for (name, data), of_energy, of_forces in each:
            w_energy = data.w_energy * of_energy
            w_forces = data.flat_w_forces * np.repeat(of_forces, data.atoms_per_structure)
            normalise(w_energy, w_forces, f"{where}: the {name} set", needed)  # or an error
            scales = [1.0 / w.sum() if w.sum() > 0 else 1.0 for w in (w_energy, w_forces)]
            made[name] = Factors(of_energy * scales[0], of_forces * scales[1])
        log_factors(labels, energy, forces, f"stage {number + 1}")
        found.append(made)
    return found


def title(fit: Fit, number: int) -> str:
    """`Stage 2 of 3 (energies)`; number: from 0."""
    name = fit.schedule[number].name
    return f"Stage {number + 1} of {len(fit.schedule)}" + (f" ({name})" if name else "")


def summary(stage: Fit) -> str:
    """The settings of a stage in one line."""
    loss = stage.loss
    shown = []
    for key in SHOWN:
        value = getattr(loss, key)
        if key in ("energy", "forces"):
            if value is not None and value.type == "huber":
                shown.append(f"{key} huber {value.delta:g}")
        elif value or key == "kappa":
            shown.append(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}")
    return f"{stage.optimizer}, at most {stage.maxiter} iterations; {', '.join(shown)}"


def stage_of(fit: Fit, state: FitState) -> int:
    """The number of the stage that runs; 0 where there is no schedule."""
    return 0 if fit.schedule is None else state.cycle


def is_last(fit: Fit, state: FitState) -> bool:
    """Whether the ladder step, or the whole fit, ends with what runs now."""
    return fit.schedule is None or bool(state.ended) or state.cycle + 1 == len(fit.schedule)


def advance(fit: Fit, state: FitState) -> None:
    """Go to the next stage, or to the first one of the next ladder step."""
    if is_last(fit, state):
        state.ladder_step += 1
        state.cycle = 0
    else:
        state.cycle += 1


def weights_of_stage(
    ranks: Ranks, stages: Sequence[Mapping[str, Factors]] | None, shards: Mapping[str, Shard], number: int
) -> dict[str, Shard]:
    """This rank's parts of the data with the weights of a stage. Called by all ranks together.

    stages: factors of each stage; on the root.
    """
    factors = ranks.share(lambda: stages[number])
    return {name: factors[name].of(shard) if name in factors else shard for name, shard in shards.items()}


def total_iterations(stages: Sequence[Fit]) -> int:
    """Of all minimisations of a ladder step, at most."""
    return sum(stage.maxiter * stage.fit_cycles for stage in stages)
