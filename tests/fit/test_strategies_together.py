"""Options of a fit that act on each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pacehpc.dataset import load_dataset
from pacehpc.fit.plan import Tasks
from pacehpc.potential import Potential
from pacehpc.report.tables import read_table

DATA = str(Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip")
POLICY = {"type": "EnergyBasedWeightingPolicy", "DElow": 0.5, "DEup": 3.0, "wlow": 0.8, "nfit": 120}


def test_weights_are_made_on_train_and_test_together(fit):
    """Selection and weights are those of all structures, each set then with the sum 1."""
    _, folder = fit(data__test_size=0.2, fit__weighting=POLICY, fit__maxiter=0)
    every = load_dataset(
        DATA, ["Al", "Ni"], reference_energy={"Al": 3.28, "Ni": 4.44}, weighting={**POLICY, "seed": 42}
    )
    assert len(every) == 120
    w_energy = dict(zip(every.index, every.w_energy, strict=True))
    w_forces = dict(zip(every.index, every.per_structure(every.flat_w_forces), strict=True))
    seen = set()
    for name in ("fitting_data_info", "test_data_info"):
        frame = pd.read_pickle(folder / f"{name}.pckl.gzip", compression="gzip")
        joint = np.array([w_energy[label] for label in frame.index])
        np.testing.assert_allclose(frame.w_energy, joint / joint.sum(), rtol=1e-12)
        joint = np.concatenate([w_forces[label] for label in frame.index])
        np.testing.assert_allclose(np.concatenate(list(frame.w_forces)), joint / joint.sum(), rtol=1e-12)
        seen |= set(frame.index)
    assert seen == set(every.index)


def test_every_ladder_step_has_all_cycles_and_keeps_its_best(fit):
    _, folder = fit(fit__ladder_step=6, fit__fit_cycles=2, fit__noise_relative_sigma=0.1, fit__maxiter=3)
    cycles, ladder = (read_table(folder / f"{name}_metrics.txt") for name in ("cycle", "ladder"))
    steps = ladder["ladder_step"].tolist()
    assert len(steps) > 1
    assert cycles["ladder_step"].tolist() == np.repeat(steps, 2).tolist()
    assert cycles["cycle_step"].tolist() == [0, 1] * len(steps)
    np.testing.assert_array_equal(ladder["loss"], cycles["loss"].reshape(-1, 2).min(axis=1))


@pytest.mark.parametrize("noise", ["noise_relative_sigma", "noise_absolute_sigma", "randomize_func_coeffs"])
def test_cycles_disturb_trainable_parameters_only(fit, noise):
    _, folder = fit(
        Tasks(predict=False),
        fit__trainable_parameters={"Al": "func"},
        fit__fit_cycles=2,
        fit__maxiter=0,
        potential__functions={"ALL": {"nradmax_by_orders": [3, 2], "lmax_by_orders": [0, 1], "coefs_init": "random"}},
        **{f"fit__{noise}": 0.1},
    )
    before, after = (Potential.load(folder / name) for name in ("target_potential.yaml", "interim_potential_1.yaml"))
    changed = before.parameters != after.parameters
    trained = np.zeros(before.n_parameters, bool)
    for block, where in zip(before.blocks, before.block_slices, strict=True):
        trained[where] = block.elements == ("Al",)
    np.testing.assert_array_equal(changed, trained)
