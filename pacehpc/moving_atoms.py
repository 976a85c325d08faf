"""Structures that move, as a potential as a program sees them: atoms, periodic images, lists that last for a while."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from pacehpc.backends.interface import Prediction
from pacehpc.backends.program import Program
from pacehpc.dataset.neighbours import complete_cells, cutoff_matrix, periodic_images, species_indices
from pacehpc.errors import PacehpcError
from pacehpc.potential import Potential


class MovingAtoms:
    """Energies, forces and virials of structures, with lists that are used again while they are certain to be complete.

    Args:
        potential: what they are evaluated with; it must not change later.
        skin: what the lists reach beyond the cutoffs, Å.
        threads: of the kernels.
    """

    def __init__(self, potential: Potential, skin: float = 0.0, threads: int = 1) -> None:
        self.elements = potential.elements
        self.skin = skin
        self.cutoffs = cutoff_matrix(potential)
        self.builds = 0
        """Lists made so far."""
        self._program = Program(potential, threads)
        self._frames: list[Atoms] = []  # that the lists were made for

    def predict(self, frames: Sequence[Atoms]) -> list[Prediction]:
        """Energies, forces and virials of each structure, as it is now.

        Raises:
            PacehpcError: elements that the potential lacks, or positions that are not numbers.
        """
        if not self._holds(frames):
            self._build(frames)
        positions, sizes = self._positions(frames), self._sizes
        energies, on_all = self._program.evaluate(positions)
        if len(self._image):
            forces = on_all[self._own]
            for axis in range(3):
                forces[:, axis] += np.bincount(self._owner, on_all[self._image, axis], minlength=len(forces))
            energies = energies[self._own]
        else:  # nothing is periodic: all atoms are their structures' own, in order
            forces = on_all
        # Σ r ⊗ ∂E/∂r over a structure's atoms and images
        if len(sizes) == 1:
            return [Prediction(energies, forces, -(positions.T @ on_all)[None])]
        products = (positions[:, :, None] * on_all[:, None, :]).reshape(-1, 9)
        sums = np.concatenate((np.zeros((1, 9)), np.add.reduceat(products, self._filled, axis=0)))
        virials = -sums[self._place]
        ends = np.cumsum(sizes)
        return [
            Prediction(energies[end - size : end], forces[end - size : end], virial.reshape(1, 3, 3))
            for size, end, virial in zip(sizes, ends, virials, strict=True)
        ]

    def _positions(self, frames: Sequence[Atoms]) -> np.ndarray:
        """Of all atoms, in the cell that they were in when the lists were made, and of all images, (n, 3)."""
        positions = np.concatenate([atoms.positions for atoms in frames])
        if not self._is_shifted:
            return positions
        cells = np.concatenate([atoms.cell.array[None] for atoms in frames])
        if self._cells is None or not same_bytes(cells, self._cells):
            self._cells = cells
            self._translations = np.einsum("ak,akx->ax", self._shift, cells[self._frame])
        return positions[self._source] + self._translations

    def _build(self, frames: Sequence[Atoms]) -> None:
        reach = float(self.cutoffs.max()) + self.skin
        source, shifts, frame, own, sizes, starts = [], [], [], [], [], [0]
        for s, atoms in enumerate(frames):
            n, before = len(atoms), sum(sizes)
            if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
                raise PacehpcError(f"{atoms.get_chemical_formula()}: a position or the cell is not a number (NaN).")
            index, shift = np.arange(n), np.zeros((n, 3))
            if n and atoms.pbc.any():
                cell = complete_cells(atoms.cell.array[None], atoms.pbc[None])[0]
                atom, image_shift, home = periodic_images(atoms.positions, cell, atoms.pbc, reach)
                images = image_shift.any(axis=1)
                index = np.concatenate((index, atom[images]))
                shift = np.concatenate((-home, image_shift[images] - home[atom[images]])).astype(float)
            source.append(index + before)
            shifts.append(shift)
            frame.append(np.full(len(index), s))
            own.append(starts[-1] + np.arange(n))
            sizes.append(n)
            starts.append(starts[-1] + len(index))
        self._source, self._shift = np.concatenate(source), np.concatenate(shifts)
        self._is_shifted = bool(self._shift.any())
        self._frame, self._cells = np.concatenate(frame), None
        self._own, self._sizes, self._starts = np.concatenate(own), np.array(sizes), np.array(starts, np.int64)
        filled = np.diff(self._starts) > 0  # structures with atoms, and where each stands among these, counted from 1
        self._filled, self._place = self._starts[:-1][filled], np.where(filled, np.cumsum(filled), 0)
        is_image = np.ones(len(self._source), bool)
        is_image[self._own] = False
        self._image = np.flatnonzero(is_image)
        self._owner = self._source[self._image]
        numbers = np.concatenate([atoms.numbers for atoms in frames])
        species = species_indices(numbers, self.elements)
        self._check_elements(frames, species)
        self._program.find_neighbours(
            self._starts, self._sizes.astype(np.int64), species[self._source].astype(np.int32),
            self._positions(frames), self.skin,
        )  # fmt: skip
        self._frames = [atoms.copy() for atoms in frames] if self.skin > 0 else []
        self.builds += 1

    def _check_elements(self, frames: Sequence[Atoms], species: np.ndarray) -> None:
        if (species >= 0).all():
            return
        unknown = {s for atoms in frames for s in atoms.get_chemical_symbols()} - set(self.elements)
        where = next(atoms for atoms in frames if unknown & set(atoms.symbols))
        raise PacehpcError(
            f"{where.get_chemical_formula()} contains {', '.join(sorted(unknown))}; the potential knows "
            f"{', '.join(self.elements)} only."
        )

    def _holds(self, frames: Sequence[Atoms]) -> bool:
        return len(frames) == len(self._frames) and all(
            is_complete(old, new, float(self.cutoffs.max()), self.skin)
            for old, new in zip(self._frames, frames, strict=True)
        )


def is_complete(built: Atoms, atoms: Atoms, reach: float, skin: float) -> bool:
    """Whether no bond can be within its cutoff that was beyond cutoff and skin in the structure of the list.

    A strain of the cell shortens a distance r to s·r or more, s the smallest stretch; displacements d from the strained
    positions shorten it by 2 max d or less.
    """
    if not same_bytes(built.numbers, atoms.numbers) or not same_bytes(built.pbc, atoms.pbc):
        return False
    moves, stretch = atoms.positions - built.positions, 1.0
    if not same_bytes(built.cell.array, atoms.cell.array):
        if not atoms.pbc.all():
            return False
        strain = np.linalg.solve(built.cell.array, atoms.cell.array)
        moves = atoms.positions - built.positions @ strain
        stretch = np.linalg.svd(strain, compute_uv=False)[-1]
    moved = np.sqrt(np.einsum("ax,ax->a", moves, moves).max(initial=0.0))
    return bool(2 * moved < stretch * (reach + skin) - reach)


def same_bytes(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether two arrays hold the same: for small ones ten times faster than comparing element by element."""
    return before.tobytes() == now.tobytes()
