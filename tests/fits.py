"""A made-up fit for tests of the page: two data sets with groups, and names that try to be HTML."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from pacehpc.report.predictions import Compared
from pacehpc.report.summary import FitSummary

GOLDEN = Path(__file__).parent / "golden" / "potentials"
HOSTILE = "</script><script>window.hacked = 1</script><b>x</b>"


def compared(which: str, n: int, seed: int = 0, atoms: int = 4, **more: np.ndarray) -> Compared:
    """n structures of Cu, with errors of 10 meV/atom and 50 meV/Å."""
    rng = np.random.default_rng(seed)
    energy, forces = rng.normal(-3, 0.5, n), rng.normal(0, 1, (atoms * n, 3))
    energy[0] = energy.max() + 0.5
    return Compared(
        which=which,
        labels=list(range(n)),
        names=[HOSTILE if k == 0 else f"cell_{k}" for k in range(n)],
        files=["data.pckl.gzip"] * n,
        groups=np.array([HOSTILE if k % 3 == 0 else "bulk" for k in range(n)], dtype=object),
        atom_offsets=atoms * np.arange(n + 1),
        numbers=np.full(atoms * n, 29),
        volumes=np.full(n, 12.0 * atoms),
        nn_min=rng.uniform(2.2, 2.6, n),
        energy=energy,
        energy_pred=energy + rng.normal(0, 0.01, n),
        forces=forces,
        forces_pred=forces + rng.normal(0, 0.05, forces.shape),
        **more,
    )


def summary(sets: list[Compared]) -> FitSummary:
    """Of a fit of `compared` sets."""
    errors = {
        one.which: {
            "rmse_epa": float(np.sqrt(np.mean((one.energy_pred - one.energy) ** 2))),
            "mae_epa": 0.008, "max_ae_epa": 0.03, "mae_f_comp": 0.04, "max_ae_f": 0.2,
            "rmse_f_comp": float(np.sqrt(np.mean((one.forces_pred - one.forces) ** 2))),
            "rmse_stress": float("nan"),
        }
        for one in sets
    }  # fmt: skip
    return FitSummary(
        version="0", potential="output_potential.yaml", log="log.txt", settings=f"seed: 42 # {HOSTILE}\n",
        files={one.which: ["data.pckl.gzip"] for one in sets}, started="2026-01-01 10:00:00", backend="cpu",
        processor="a processor", hosts={"node1": 2}, threads=1, functions=10, parameters=20, trainable=20, kappa=0.3,
        rcut=5.0, structures=len(sets[0]), atoms=len(sets[0].numbers), bonds=1000, iterations=20, evaluations=25,
        evaluation_seconds=0.01, resumed=False, imbalance=1.1, seconds={"data": 1.0, "evaluation": 3.0}, errors=errors,
    )  # fmt: skip


def curves() -> dict[str, dict[str, np.ndarray]]:
    """Two cycles of two ladder steps."""
    n = 40
    table = {
        "ladder_step": np.repeat([0, 0, 1, 1], 10),
        "cycle_step": np.repeat([0, 1, 0, 1], 10),
        "iter_num": np.tile(np.arange(10), 4),
        "loss": np.geomspace(10, 1e-3, n),
        "rmse_epa": np.geomspace(1, 1e-2, n),
        "rmse_f_comp": np.geomspace(1, 5e-2, n),
        "rmse_stress": np.full(n, np.nan),
    }
    return {"train": table, "test": {name: values[::3] for name, values in table.items()}}


def folder_with_potential(folder: Path) -> Path:
    """The folder, with a potential in it."""
    shutil.copy(sorted(GOLDEN.glob("*.yaml"))[0], folder / "output_potential.yaml")
    return folder
