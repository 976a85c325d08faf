"""`pace_timing`: how fast a potential is on one core of this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii

from pacehpc.backends import create_evaluator, resolve
from pacehpc.backends.interface import Evaluator, EvaluatorOptions, LossWeights
from pacehpc.calculator import Neighbourhood
from pacehpc.errors import PacehpcError
from pacehpc.machine import processor
from pacehpc.potential import Potential
from pacehpc.speed import seconds
from pacehpc.structures import Structures
from pacehpc.utilities.command import command

ATOMS = 250


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Time each file."""
    parser = argparse.ArgumentParser(
        prog="pace_timing", description="Time a potential on a single core, and on the GPU where there is one."
    )
    parser.add_argument("potential_file", nargs="+", help="potential file (.yaml or .yace)")
    parser.add_argument("-n", "--nstructures", type=int, default=10, help="number of structures; default: %(default)s")
    arguments = parser.parse_args(argv)
    if arguments.nstructures < 1:
        raise PacehpcError(f"-n {arguments.nstructures}: at least one structure is needed.")
    print(f"Machine: {processor()}, one core")
    for name in arguments.potential_file:
        potential = Potential.load(name)
        print(f"\n{name}: {' '.join(potential.elements)}, {potential.n_functions} functions")
        print(f"{'structure':10s} {'atoms':>6s} {'neighbours':>11s} {'E+F':>10s} {'loss+gradient':>14s}   µs/atom")
        for backend in available_backends():
            for row in time_potential(potential, arguments.nstructures, backend):
                print("{:10s} {:6d} {:11.1f} {:10.2f} {:14.2f}   {}".format(*row, backend), flush=True)
    return 0


def available_backends() -> list[str]:
    """cpu, and cuda where it can run."""
    try:
        return ["cpu", resolve("cuda")]
    except PacehpcError:
        return ["cpu"]


def time_potential(potential: Potential, n: int, backend: str) -> Iterator[tuple[str, int, float, float, float]]:
    """(lattice, atoms, neighbours per atom, µs/atom of energies and forces, of loss and gradient), medians over n.

    E+F is what a step of molecular dynamics costs without neighbour lists, new bond vectors included; loss and gradient
    are those of a fit with κ = 0.5, whose moments of the bonds are kept.
    """
    rng = np.random.default_rng(0)
    options = EvaluatorOptions(threads=1)
    x = potential.parameters
    for lattice in ("fcc", "bcc"):
        rows = []
        for _ in range(-(-n // 2)):
            neighbourhood = Neighbourhood(potential)
            neighbourhood.follow(crystal(potential, lattice, rng))
            s = neighbourhood.structures()
            evaluator = create_evaluator(backend, potential, s, LossWeights(), options)

            def step(s: Structures = s, evaluator: Evaluator = evaluator) -> None:
                evaluator.update(s.bond_vector)
                evaluator.predict(x)

            forces = seconds(step)
            fit = create_evaluator(backend, potential, with_targets(s), LossWeights(kappa=0.5), options)
            rows.append(
                (
                    s.n_bonds / s.n_atoms,
                    forces / s.n_atoms * 1e6,
                    seconds(lambda f=fit: f.evaluate(x)) / s.n_atoms * 1e6,
                )
            )
        yield lattice, s.n_atoms, *np.median(rows, axis=0)


def crystal(potential: Potential, lattice: str, rng: np.random.Generator) -> Atoms:
    """A periodic solid solution of all elements at about the density of solids, atoms off their sites by 2 %."""
    elements = rng.choice(potential.elements, 4 * ATOMS)
    distance = 2.1 * np.mean([covalent_radii[atomic_numbers[element]] for element in elements])
    a = distance * (np.sqrt(2) if lattice == "fcc" else 2 / np.sqrt(3))
    repeat = round((ATOMS / (4 if lattice == "fcc" else 2)) ** (1 / 3))
    atoms = bulk("Cu", lattice, a=a, cubic=True) * repeat
    atoms.symbols = elements[: len(atoms)]
    atoms.positions += rng.normal(scale=0.02 * distance, size=atoms.positions.shape)
    return atoms


def with_targets(s: Structures) -> Structures:
    """The same structure with energies and forces to be fitted."""
    return Structures(
        s.atom_offsets, s.species, s.bond_offsets, s.bond_atom, s.bond_vector, s.volumes,
        energy=np.zeros(1), forces=np.zeros((s.n_atoms, 3)), w_energy=np.ones(1),
        w_forces=np.full(s.n_atoms, 1 / s.n_atoms), low=np.ones(1, bool),
    )  # fmt: skip
