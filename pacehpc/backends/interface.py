"""What every backend takes and gives: loss weights, predictions, sums; the structures are `pacehpc.structures`.

Units: Å, eV, eV/Å, eV/Å³. All arrays are C-contiguous float64 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from pacehpc import fixed_point
from pacehpc.structures import Structures


@dataclass(frozen=True)
class LossWeights:
    """Factors of the data part of the loss, (1 - kappa) e_loss + kappa f_loss + stress * s_loss, and its kind."""

    kappa: float = 0.0
    stress: float = 0.0
    energy_delta: float = 0.0
    """eV/atom: larger errors of energies per atom count linearly (Huber), see `metrics.huber`; 0: squares."""
    force_delta: float = 0.0
    """eV/Å: the same for lengths of errors of forces."""


@dataclass(frozen=True)
class EvaluatorOptions:
    """How structures are evaluated, beside the potential and the loss; a backend reads what concerns it.

    The last six fields are of the cuda backend alone. None: the backend decides.
    """

    virials: bool | None = None
    """Predict virials; by default where the loss has a stress term or there is nothing to fit."""
    radial_gradient: bool = True
    """Gradient of the radial coefficients; without it they count as fixed, and their gradient is 0."""
    store_moments: bool | None = None
    """Keep the moments G of every atom instead of computing them again for each batch (cpu, cuda)."""
    threads: int | None = None
    """Threads of this rank (cpu)."""
    batch_atoms: int | None = None
    """Atoms that go through both passes together (cpu)."""
    bondwise: bool | None = None
    """Radial functions bond by bond instead of moments; by default where that costs less (cpu)."""
    device: int | None = None
    """Index among the visible GPUs; by default local_rank modulo their number, shared by ranks_per_node."""
    local_rank: int = 0
    ranks_per_node: int = 1
    memory_limit: int = 0
    """Bytes on the GPU of one evaluator; 0: its share of what is free."""
    batch_bytes: int | None = None
    """Work arrays of one batch on the GPU."""
    block: int | None = None
    """Threads per block."""
    profile: bool = False
    """NVTX ranges for a profiler."""


def predicts_virials(loss: LossWeights, structures: Structures, options: EvaluatorOptions) -> bool:
    """Whether an evaluator has to make virials."""
    return loss.stress > 0 or (structures.energy is None if options.virials is None else options.virials)


@dataclass
class Prediction:
    """Energies, forces and virials of a set of structures."""

    energies: np.ndarray
    """(n_atoms,): atomic energies E_i in eV."""
    forces: np.ndarray
    """(n_atoms, 3): -dE/dr_i in eV/Å."""
    virials: np.ndarray
    """(n_structures, 3, 3): sum over bonds of dE_i/dr_ij,a r_ij,b in eV; stress = virial / volume."""


@dataclass
class Sums:
    """One evaluation on one rank, ready to be added over ranks: encoded sums (see fixed_point) and maxima."""

    encoded_terms: np.ndarray
    """int64 (3, len(metrics.TERMS)): e_loss, f_loss, s_loss and the sums behind the metrics."""
    maxima: np.ndarray
    """(len(metrics.MAXIMA),): combined with max."""
    encoded_gradient: np.ndarray | None = None
    """int64 (3, n): of (1 - kappa) e_loss + kappa f_loss + stress * s_loss, in the order of the backend's tables."""
    in_parameters: Callable[[np.ndarray], np.ndarray] = field(default=lambda gradient: gradient, repr=False)
    """From a decoded gradient (n,) to the order of potential.parameters, (n_parameters,)."""

    @classmethod
    def of(cls, encoded_terms: np.ndarray, maxima: np.ndarray, gradient: np.ndarray | None) -> Sums:
        """Sums of a gradient given in the order of the parameters, (n_parameters,)."""
        encoded = None
        if gradient is not None:
            encoded, too_large = fixed_point.encode_checked(gradient)
            maxima = maxima.copy()
            maxima[-1] = max(maxima[-1], float(too_large))
        return cls(encoded_terms, maxima, encoded)

    @property
    def terms(self) -> np.ndarray:
        """(len(metrics.TERMS),): the terms of this rank alone."""
        return fixed_point.decode(self.encoded_terms)

    @property
    def gradient(self) -> np.ndarray | None:
        """(n_parameters,): the gradient of this rank alone."""
        return None if self.encoded_gradient is None else self.in_parameters(fixed_point.decode(self.encoded_gradient))


class Rows(NamedTuple):
    """Rows of the linearised model for a run of structures."""

    structures: slice
    """The structures, in the order of the evaluator's."""
    values: np.ndarray
    """(n_structures of the run, n_rows, n_parameters), C order."""


class AtomRows(NamedTuple):
    """Rows of the atoms of a run of structures, element by element."""

    atoms: list[np.ndarray]
    """For each element, int64 (n_atoms_e,): its atoms in the run, by their index in the evaluator's structures."""
    values: list[np.ndarray]
    """For each element, (n_atoms_e, n_columns_e), C order."""


class Evaluator(Protocol):
    """A backend bound to a potential's shape and to structures; only parameters change between calls.

    parameters: (n_parameters,), in the order of potential.parameters.
    """

    name: str

    @property
    def report(self) -> str:
        """Batches and memory in one line for the log; empty where there is nothing to say."""
        ...

    def evaluate(self, parameters: np.ndarray, gradient: bool = True) -> Sums:
        """Evaluate the data part of the loss and, with gradient, its gradient."""
        ...

    def predict(self, parameters: np.ndarray) -> Prediction:
        """Predict energies, forces and virials."""
        ...

    def update(self, bond_vector: np.ndarray) -> None:
        """Replace the vectors of the bonds, (n_bonds, 3) in Å; those not shorter than their rcut count as absent.

        Only of an evaluator without reference values: the bonds of a fit stay as they are.
        """
        ...

    def rows(
        self, parameters: np.ndarray, kind: str, directions: np.ndarray | None = None, strains: np.ndarray | None = None
    ) -> Iterator[Rows]:
        """Derivatives of each structure's energy, and of combinations of its forces, by the parameters.

        A row costs about half of an evaluation of loss and gradient. The values of a structure do not depend on ranks
        or threads.

        Args:
            parameters: (n_parameters,).
            kind: "energy": one row for each structure, ∂E_s/∂θ; "forces": q rows, ∂/∂θ Σ_i∈s u_ki·F_i, plus
                ∂/∂θ Σ_ab ε_kab V_ab with strains, V the virial; "energy+forces": both, energy first.
            directions: u, (q, n_atoms, 3).
            strains: ε, (q, n_structures, 3, 3); only the symmetric part counts.

        Yields:
            Runs of whole structures in order, so that little memory is needed.
        """
        ...

    def atom_rows(self, parameters: np.ndarray, kind: str) -> Iterator[AtomRows]:
        """Values of the functions of each atom, or derivatives of its energy by their coefficients.

        Columns follow the functions of the element's blocks in the order of the potential (`element_functions`).

        Args:
            parameters: (n_parameters,).
            kind: "basis": B of each function, (n_functions_e,) per atom, whatever ndensity is; "full": ∂E_i/∂c,
                (ndensity_e * n_functions_e,) per atom, [∂E_i/∂ρ_1 B, ..., ∂E_i/∂ρ_P B].

        Yields:
            Runs of whole structures in order, so that little memory is needed.
        """
        ...

    def stage_seconds(self, parameters: np.ndarray) -> dict[str, float]:
        """Seconds of each stage of one loss and gradient."""
        ...


ROWS, ATOM_ROWS = ("energy", "forces", "energy+forces"), ("basis", "full")


def check_rows(
    structures: Structures, kind: str, directions: np.ndarray | None, strains: np.ndarray | None
) -> tuple[int, int]:
    """Rows of energies (0 or 1) and of forces of each structure that `Evaluator.rows` is asked for.

    Raises:
        ValueError: an unknown kind, or arrays that do not have the shapes that `Evaluator.rows` names.
    """
    if kind not in ROWS:
        raise ValueError(f"rows of kind {kind!r}: choose one of {', '.join(ROWS)}")
    if kind == "energy":
        if directions is not None or strains is not None:
            raise ValueError("rows of kind 'energy' take no directions and no strains")
        return 1, 0
    if directions is None:
        raise ValueError(f"rows of kind {kind!r} need directions")
    q = len(directions)
    if np.shape(directions) != (q, structures.n_atoms, 3):
        raise ValueError(f"directions {np.shape(directions)}: ({q}, {structures.n_atoms}, 3) expected")
    if strains is not None and np.shape(strains) != (q, structures.n_structures, 3, 3):
        raise ValueError(f"strains {np.shape(strains)}: ({q}, {structures.n_structures}, 3, 3) expected")
    return int(kind != "forces"), q


def motions(
    kind: str, directions: np.ndarray | None, strains: np.ndarray | None, structures: slice, atoms: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors of the energy, motions of atoms and strains of the rows of a run of structures.

    Returns:
        Factors (n_rows,); directions (n_rows, n_atoms, 3); symmetric strains (n_rows, n_structures, 3, 3).
    """
    n_energies, q = int(kind != "forces"), 0 if directions is None else len(directions)
    factors = np.r_[np.ones(n_energies), np.zeros(q)]
    moving = np.zeros((n_energies + q, atoms.stop - atoms.start, 3))
    strained = np.zeros((n_energies + q, structures.stop - structures.start, 3, 3))
    if directions is not None:
        moving[n_energies:] = directions[:, atoms]
    if strains is not None:
        own = strains[:, structures]
        strained[n_energies:] = 0.5 * (own + np.swapaxes(own, 2, 3))
    return factors, moving, strained
