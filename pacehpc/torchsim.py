"""A potential as a model of TorchSim (optional: `pip install 'pacehpc[torchsim]'`).

TorchSim: https://torchsim.github.io/torch-sim; states hold many systems, which one call of the kernels evaluates.
"""

from __future__ import annotations

import os

import numpy as np
from ase import Atoms

from pacehpc.errors import PacehpcError
from pacehpc.moving_atoms import MovingAtoms
from pacehpc.potential import Potential

try:
    import torch
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise PacehpcError(
        f"pacehpc.torchsim needs TorchSim, which cannot be imported ({error}): pip install torch-sim-atomistic."
    ) from error


class PaceModel(ModelInterface):
    """Energies, forces and stresses of a PACE potential, computed in float64 on the CPU.

    Args:
        potential: a Potential, or the name of its file (.yaml or .yace).
        dtype: of the tensors that are returned, as that of the states; the kernels compute in float64.
        skin: Å added to the cutoffs of the neighbour lists, which are used again while atoms move less than half of it.
        threads: of the kernels.
        compute_stress: stresses as well, eV/Å³, 0 of systems that are not periodic in three directions.

    Raises:
        PacehpcError: elements that the potential lacks.
    """

    def __init__(
        self,
        potential: Potential | str | os.PathLike[str],
        dtype: torch.dtype = torch.float64,
        skin: float = 1.0,
        threads: int = 1,
        compute_stress: bool = True,
    ) -> None:
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), dtype
        self._compute_forces, self._compute_stress = True, compute_stress
        if not isinstance(potential, Potential):
            potential = Potential.load(potential)
        self._moving = MovingAtoms(potential, skin, threads)

    def forward(self, state: object, **_: object) -> dict[str, torch.Tensor]:
        """Evaluate all systems of a state.

        Args:
            state: a SimState on the CPU with n_atoms atoms in n_systems systems.

        Returns:
            energy (n_systems,), eV; forces (n_atoms, 3), eV/Å; stress (n_systems, 3, 3), eV/Å³.

        Raises:
            PacehpcError: elements that the potential lacks, or positions that are not numbers.
        """
        frames = _frames(state)
        predictions = self._moving.predict(frames)
        forces = np.concatenate([p.forces for p in predictions])
        results = {"energy": np.array([p.energies.sum() for p in predictions]), "forces": forces}
        if self._compute_stress:
            results["stress"] = np.array([_stress(a, p.virials[0]) for a, p in zip(frames, predictions, strict=True)])
        return {name: torch.as_tensor(value, dtype=self._dtype) for name, value in results.items()}


def _frames(state: object) -> list[Atoms]:
    """The systems of a state as structures; TorchSim keeps cell vectors as columns."""
    positions, cells = (np.asarray(t.detach(), np.float64) for t in (state.positions, state.cell.mT))
    numbers, system = (np.asarray(t) for t in (state.atomic_numbers, state.system_idx))
    periodic = np.asarray(state.pbc, bool)
    ends = np.cumsum(np.bincount(system, minlength=len(cells)))[:-1]
    parts = zip(np.split(numbers, ends), np.split(positions, ends), cells, strict=True)
    return [Atoms(z, r, cell=cell, pbc=periodic) for z, r, cell in parts]


def _stress(atoms: Atoms, virial: np.ndarray) -> np.ndarray:
    return virial / atoms.get_volume() if atoms.pbc.all() else np.zeros((3, 3))
