"""The oracle: energies, forces, virials, loss and gradient in plain NumPy, by the sums over m as the papers write them.

Nothing is shared with the kernels but the input: moments of every bond are kept as complex numbers, B functions are
sums of products of A_nlm, and derivatives follow from the product rule term by term.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers
from scipy.sparse import csr_array

from pacehpc import fixed_point
from pacehpc.backends.interface import (
    ATOM_ROWS,
    AtomRows,
    EvaluatorOptions,
    LossWeights,
    Prediction,
    Rows,
    Sums,
    check_rows,
    motions,
)
from pacehpc.backends.oracle_functions import Centre
from pacehpc.physics.core import core_repulsion, core_switch, zbl_switch
from pacehpc.physics.embedding import embed
from pacehpc.physics.harmonics import spherical_harmonics
from pacehpc.physics.radial import radial_basis
from pacehpc.structures import Structures, virial_matrix

if TYPE_CHECKING:
    from pacehpc.potential import Bond, Potential

BONDS_PER_BATCH = 4000


class ReferenceEvaluator:
    """Evaluator of the `reference` backend; structures are taken in batches to bound memory."""

    name = "reference"

    def __init__(
        self,
        potential: Potential,
        structures: Structures,
        loss: LossWeights | None = None,
        options: EvaluatorOptions = EvaluatorOptions(),
    ) -> None:
        """options: none of them matters here."""
        self.structures = self._given = structures
        self.loss = loss or LossWeights()
        self.elements = potential.elements
        self.bonds = dict(potential.bonds)
        self.radial_slices = dict(potential.radial_slices)
        self.radial_shapes = {pair: c.shape for pair, c in potential.radcoefficients.items()}
        self.centres = [Centre(potential, element) for element in potential.elements]

    def evaluate(self, parameters: np.ndarray, gradient: bool = True) -> Sums:
        """The data part of the loss; the structures must carry reference values and weights."""
        from pacehpc.metrics import MAXIMA, TERMS, huber_factors, local_sums

        kappa, stress = self.loss.kappa, self.loss.stress
        terms, maxima = np.zeros(len(TERMS)), np.zeros(len(MAXIMA))
        total = np.zeros(len(parameters)) if gradient else None
        for batch in _batches(self.structures):
            state = self._forward(batch, parameters)
            energies, forces, virials = self._collect(batch, state)
            per_structure = _sum_rows(_owners(batch.atom_offsets), energies, batch.n_structures)
            deltas = self.loss.energy_delta, self.loss.force_delta
            batch_terms, batch_maxima = local_sums(batch, per_structure, forces, virials, *deltas)
            terms += fixed_point.decode(batch_terms)
            maxima = np.maximum(maxima, batch_maxima)
            if total is None:
                continue
            counts = batch.atoms_per_structure
            a = 2.0 * (1.0 - kappa) * batch.w_energy * (per_structure - batch.energy) / counts**2
            a *= huber_factors(((per_structure - batch.energy) / counts) ** 2, self.loss.energy_delta)
            b = 2.0 * kappa * batch.w_forces[:, None] * (forces - batch.forces)
            b *= huber_factors(np.sum((forces - batch.forces) ** 2, axis=1), self.loss.force_delta)[:, None]
            tangent = b[state.bond_centre] - b[batch.bond_atom]  # of r_ij; minus, as F = -dE/dr
            if stress and batch.stress is not None:
                h = stress * _virial_slopes(batch, virials)
                tangent += np.einsum("bac,bc->ba", h[state.bond_structure], batch.bond_vector)
            self._add_gradient(batch, state, parameters, a[_owners(batch.atom_offsets)], tangent, total)
        return Sums.of(fixed_point.encode(terms), maxima, total)

    def predict(self, parameters: np.ndarray) -> Prediction:
        """Atomic energies, forces and virials."""
        energies, forces, virials = [np.zeros(0)], [np.zeros((0, 3))], [np.zeros((0, 3, 3))]
        for batch in _batches(self.structures):
            parts = self._collect(batch, self._forward(batch, parameters))
            for rows, part in zip((energies, forces, virials), parts, strict=True):
                rows.append(part)
        return Prediction(np.concatenate(energies), np.concatenate(forces), np.concatenate(virials))

    def rows(
        self, parameters: np.ndarray, kind: str, directions: np.ndarray | None = None, strains: np.ndarray | None = None
    ) -> Iterator[Rows]:
        """Derivatives of energies and of combinations of forces, see `Evaluator.rows`; one structure at a time."""
        s = self.structures
        check_rows(s, kind, directions, strains)
        for k in range(s.n_structures):
            one, atoms = s.select(slice(k, k + 1)), slice(*s.atom_offsets[k : k + 2].tolist())
            state = self._forward(one, parameters)
            factors, moving, strained = motions(kind, directions, strains, slice(k, k + 1), atoms)
            values = np.zeros((1, len(factors), len(parameters)))
            for row, factor, u, strain in zip(values[0], factors, moving, strained[:, 0], strict=True):
                tangent = u[state.bond_centre] - u[one.bond_atom] + one.bond_vector @ strain
                self._add_gradient(one, state, parameters, np.full(one.n_atoms, factor), tangent, row)
            yield Rows(slice(k, k + 1), values)

    def atom_rows(self, parameters: np.ndarray, kind: str) -> Iterator[AtomRows]:
        """Values of the functions of each atom, see `Evaluator.atom_rows`."""
        if kind not in ATOM_ROWS:
            raise ValueError(f"rows of kind {kind!r}: choose one of {', '.join(ATOM_ROWS)}")
        first = 0
        for batch in _batches(self.structures):
            state = self._forward(batch, parameters)
            atoms = [np.zeros(0, np.int64) for _ in self.centres]
            values = [np.zeros((0, c.positions.size if kind == "full" else len(c.positions))) for c in self.centres]
            for work in state.centres:
                e = batch.species[work.atoms[0]]
                atoms[e], values[e] = first + work.atoms, work.b
                if kind == "full":
                    slopes = work.df * state.switch[work.atoms, None]
                    values[e] = (slopes[:, :, None] * work.b[:, None, :]).reshape(len(work.atoms), -1)
            first += batch.n_atoms
            yield AtomRows(atoms, values)

    def update(self, bond_vector: np.ndarray) -> None:
        """Replace the vectors of the bonds, (n_bonds, 3) in Å; those not shorter than their rcut count as absent."""
        s, elements = self._given, self.elements
        rcut = np.array([[self.bonds[centre, other].rcut for other in elements] for centre in elements])
        centre = _owners(s.bond_offsets)
        seen = np.linalg.norm(bond_vector, axis=1) < rcut[s.species[centre], s.species[s.bond_atom]]
        self.structures = replace(
            s,
            bond_offsets=np.r_[0, np.cumsum(np.bincount(centre[seen], minlength=s.n_atoms))],
            bond_atom=s.bond_atom[seen],
            bond_vector=bond_vector[seen],
        )

    def stage_seconds(self, parameters: np.ndarray) -> dict[str, float]:
        """Seconds of one loss and gradient; there are no stages to tell apart."""
        start = time.perf_counter()
        self.evaluate(parameters)
        return {"evaluation": time.perf_counter() - start}

    @property
    def report(self) -> str:
        """Empty: there is nothing to say."""
        return ""

    def projections(self, parameters: np.ndarray) -> list[np.ndarray]:
        """B of every atom, (n_functions of its element,): the element's blocks in the potential's order."""
        rows: list[np.ndarray] = []
        for batch in _batches(self.structures):
            state = self._forward(batch, parameters)
            found: dict[int, np.ndarray] = {}
            for centre in state.centres:
                found.update(zip(centre.atoms.tolist(), centre.b, strict=True))
            rows += [found[i] for i in range(batch.n_atoms)]
        return rows

    def _coefficients(self, parameters: np.ndarray, centre: str, neighbour: str) -> tuple[np.ndarray, slice]:
        """c_nlk of a bond, and where it lies in the vector."""
        pair = (centre, neighbour) if centre <= neighbour else (neighbour, centre)
        where = self.radial_slices[pair]
        return parameters[where].reshape(self.radial_shapes[pair]), where

    def _forward(self, batch: Structures, parameters: np.ndarray) -> _State:
        """Everything up to atomic energies and dE_i/dr_ij of every bond."""
        state = _State(batch)
        self._add_core(batch, state)
        for index, centre in enumerate(self.centres):
            atoms = np.flatnonzero(batch.species == index)
            if len(atoms) == 0:
                continue
            place = np.full(batch.n_atoms, -1)
            place[atoms] = np.arange(len(atoms))
            work = _CentreState(atoms=atoms)
            columns = []
            for other, neighbour in enumerate(self.elements):
                bond = self.bonds[centre.element, neighbour]
                c, _ = self._coefficients(parameters, centre.element, neighbour)
                which = np.flatnonzero(
                    (batch.species[state.bond_centre] == index) & (batch.species[batch.bond_atom] == other)
                )
                owner = place[state.bond_centre[which]]
                values, slopes = self._moments(bond, batch.bond_vector[which])
                g = _sum_rows(owner, values, len(atoms))
                work.neighbours.append(_Neighbours(which, owner, slopes, g))
                columns += [g[:, :, 0], _contract(c, g).reshape(len(atoms), -1)]
            work.base = np.concatenate(columns, axis=1)

            coefficients = parameters[centre.positions]
            work.b = centre.values(work.base)
            f, df, d2f = embed(centre.embedding, work.b @ coefficients)
            work.f, work.df, work.d2f = f, df, d2f
            work.slope = centre.pullback(work.base, df @ coefficients.T)

            switch = state.switch[atoms]
            state.energies[atoms] += f * switch
            for other, part in enumerate(work.neighbours):
                w = self._moment_slopes(parameters, centre, other, work.slope)
                along = np.einsum("bakc,bkc->ba", part.slopes, w[part.owner]).real
                state.bond_slopes[part.bonds] += switch[part.owner, None] * along
                state.bond_slopes[part.bonds] += (
                    f[part.owner, None] * state.switch_slopes[part.bonds, None] * state.unit[part.bonds]
                )
            state.centres.append(work)
        return state

    def radial_basis(self, bond: Bond, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """g_k and dg_k/dr of bonds of length r (n,), (n, nradbase) each."""
        return radial_basis(bond, r)

    def _moments(self, bond: Bond, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """g_k Y_lm of each bond, (n, nradbase, (lmax+1)^2), and its gradient, (n, 3, nradbase, (lmax+1)^2)."""
        r = np.linalg.norm(vectors, axis=1)
        g, dg = self.radial_basis(bond, r)
        y, dy = spherical_harmonics(bond.lmax, vectors)
        slopes = (vectors / r[:, None])[:, :, None, None] * dg[:, None, :, None] * y[:, None, None, :]
        slopes += g[:, None, :, None] * dy[:, :, None, :]
        return g[:, :, None] * y[:, None, :], slopes

    def _moment_slopes(self, parameters: np.ndarray, centre: Centre, other: int, slope: np.ndarray) -> np.ndarray:
        """From derivatives by the atomic base to derivatives by the moments G_klm, (n_atoms, nradbase, (lmax+1)^2)."""
        c, _ = self._coefficients(parameters, centre.element, self.elements[other])
        rank_one, rest = centre.split(slope, other, c.shape)
        w = np.einsum("nck,inc->ikc", _by_column(c), rest)
        w[:, :, 0] += rank_one
        return w

    def _add_core(self, batch: Structures, state: _State) -> None:
        """Core repulsion and the switch of every atom, with derivatives by each bond's length."""
        density, slopes = np.zeros(batch.n_atoms), np.zeros(batch.n_bonds)
        gap, width = np.zeros(batch.n_bonds), np.zeros(batch.n_bonds)
        here, there = batch.species[state.bond_centre], batch.species[batch.bond_atom]
        for i, centre in enumerate(self.elements):
            for j, neighbour in enumerate(self.elements):
                which = np.flatnonzero((here == i) & (there == j))
                bond = self.bonds[centre, neighbour]
                numbers = (atomic_numbers[centre], atomic_numbers[neighbour])
                value, slopes[which] = core_repulsion(bond, numbers, state.r[which])
                density += np.bincount(state.bond_centre[which], value, minlength=batch.n_atoms)
                gap[which], width[which] = state.r[which] - (bond.r_in - bond.delta_in), bond.delta_in

        if self.bonds[self.elements[0], self.elements[0]].inner_cutoff_type != "zbl":
            for index, centre in enumerate(self.centres):
                mine = batch.species == index
                switch, dswitch = core_switch(centre.embedding, density[mine])
                state.switch[mine] = switch
                from_bond = mine[state.bond_centre]
                state.switch_slopes[from_bond] = (
                    np.repeat(dswitch, np.diff(batch.bond_offsets)[mine]) * slopes[from_bond]
                )
            state.energies += density
            core_slopes = slopes
        else:
            for i in range(batch.n_atoms):
                start, stop = batch.bond_offsets[i], batch.bond_offsets[i + 1]
                if start == stop:
                    continue
                nearest = start + np.argmin(gap[start:stop])
                switch, dswitch = zbl_switch(gap[nearest], width[nearest])
                state.switch[i], state.switch_slopes[nearest] = switch, dswitch
            state.energies += density * (1.0 - state.switch)
            core_slopes = slopes * (1.0 - state.switch[state.bond_centre])
            core_slopes -= density[state.bond_centre] * state.switch_slopes
        state.bond_slopes += core_slopes[:, None] * state.unit

    def _collect(self, batch: Structures, state: _State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Atomic energies, forces, virials."""
        f = state.bond_slopes
        forces = _sum_rows(state.bond_centre, f, batch.n_atoms) - _sum_rows(batch.bond_atom, f, batch.n_atoms)
        products = f[:, :, None] * batch.bond_vector[:, None, :]
        return state.energies, forces, _sum_rows(state.bond_structure, products, batch.n_structures)

    def _add_gradient(
        self,
        batch: Structures,
        state: _State,
        parameters: np.ndarray,
        a: np.ndarray,
        tangent: np.ndarray,
        total: np.ndarray,
    ) -> None:
        """Add the gradient of sum_i a_i E_i + sum_ij dE_i/dr_ij . tangent_ij to `total`.

        a (n_atoms,) and tangent (n_bonds, 3) are held fixed.
        """
        lengthening = np.einsum("ba,ba->b", state.unit, tangent)
        dswitch = np.bincount(state.bond_centre, state.switch_slopes * lengthening, minlength=batch.n_atoms)
        for work in state.centres:
            centre = self.centres[batch.species[work.atoms[0]]]
            coefficients = parameters[centre.positions]
            switch = state.switch[work.atoms]

            columns, dgs = [], []
            for neighbour, part in zip(self.elements, work.neighbours, strict=True):
                c, _ = self._coefficients(parameters, centre.element, neighbour)
                moving = np.einsum("bakc,ba->bkc", part.slopes, tangent[part.bonds])
                dg = _sum_rows(part.owner, moving, len(work.atoms))
                dgs.append(dg)
                columns += [dg[:, :, 0], _contract(c, dg).reshape(len(work.atoms), -1)]
            dbase = np.concatenate(columns, axis=1)
            db = centre.directional(work.base, dbase)

            drho = db @ coefficients
            plain = (a[work.atoms] * switch + dswitch[work.atoms])[:, None] * work.df
            by_rho = plain + switch[:, None] * work.d2f * drho
            by_drho = switch[:, None] * work.df
            np.add.at(total, centre.positions, work.b.T @ by_rho + db.T @ by_drho)

            by_b, by_db = by_rho @ coefficients.T, by_drho @ coefficients.T
            by_base = centre.pullback(work.base, by_b) + centre.pullback_tangent(work.base, dbase, by_db)
            by_dbase = centre.pullback(work.base, by_db)
            for other, (neighbour, part, dg) in enumerate(zip(self.elements, work.neighbours, dgs, strict=True)):
                c, where = self._coefficients(parameters, centre.element, neighbour)
                by_column = np.einsum("inc,ikc->nck", centre.split(by_base, other, c.shape)[1], part.g).real
                by_column += np.einsum("inc,ikc->nck", centre.split(by_dbase, other, c.shape)[1], dg).real
                l_of_column = np.repeat(np.arange(c.shape[1]), 2 * np.arange(c.shape[1]) + 1)
                slope = np.zeros(c.shape)
                np.add.at(slope, (slice(None), l_of_column), by_column)
                total[where] += slope.ravel()


class _State:
    """A batch with what its atoms and bonds have got so far."""

    def __init__(self, batch: Structures) -> None:
        self.bond_centre = _owners(batch.bond_offsets)
        self.bond_structure = _owners(batch.atom_offsets)[self.bond_centre]
        self.r = np.linalg.norm(batch.bond_vector, axis=1)
        self.unit = batch.bond_vector / self.r[:, None]
        self.energies = np.zeros(batch.n_atoms)
        self.switch = np.ones(batch.n_atoms)
        self.switch_slopes = np.zeros(batch.n_bonds)  # by the bond's length
        self.bond_slopes = np.zeros((batch.n_bonds, 3))  # dE_i/dr_ij
        self.centres: list[_CentreState] = []


@dataclass
class _Neighbours:
    """Bonds from the atoms of one element to those of another."""

    bonds: np.ndarray
    owner: np.ndarray
    """Position of the centre among the atoms of its element."""
    slopes: np.ndarray
    """Gradients of g_k Y_lm, (n_bonds, 3, nradbase, (lmax+1)^2)."""
    g: np.ndarray
    """Moments G_klm, (n_atoms, nradbase, (lmax+1)^2)."""


class _CentreState:
    """The atoms of one element in a batch: atomic base, B, embedding and derivatives."""

    base: np.ndarray
    b: np.ndarray
    f: np.ndarray
    df: np.ndarray
    d2f: np.ndarray
    slope: np.ndarray

    def __init__(self, atoms: np.ndarray) -> None:
        self.atoms = atoms
        self.neighbours: list[_Neighbours] = []


def _by_column(c: np.ndarray) -> np.ndarray:
    """c_nlk with l repeated for each m: (nradmax, (lmax+1)^2, nradbase)."""
    return np.repeat(c, 2 * np.arange(c.shape[1]) + 1, axis=1)


def _contract(c: np.ndarray, g: np.ndarray) -> np.ndarray:
    """A_nlm = sum_k c_nlk G_klm, (n_atoms, nradmax, (lmax+1)^2)."""
    return np.einsum("nck,ikc->inc", _by_column(c), g)


def _virial_slopes(batch: Structures, virials: np.ndarray) -> np.ndarray:
    """Derivative of s_loss = sum_s w_s sum_ab ((virial_ab - V stress_ab)/N)^2 by the virials, (n_structures, 3, 3)."""
    slopes = np.zeros_like(virials)
    for s in np.flatnonzero(batch.has_stress):
        reference = virial_matrix(batch.stress[s]) * batch.volumes[s]
        weight = 2.0 * batch.w_energy[s] / batch.atoms_per_structure[s] ** 2
        slopes[s] = weight * (virials[s] - reference)
    return slopes


def _batches(structures: Structures) -> Iterator[Structures]:
    """Runs of whole structures with some thousand bonds each."""
    bonds = structures.bond_offsets[structures.atom_offsets]
    start = 0
    while start < structures.n_structures:
        stop = int(np.searchsorted(bonds, bonds[start] + BONDS_PER_BATCH, side="right")) - 1
        stop = max(stop, start + 1)
        yield structures.select(slice(start, stop))
        start = stop


def _owners(offsets: np.ndarray) -> np.ndarray:
    """The row that each item of a CSR layout belongs to."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _sum_rows(owner: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Sum the rows of `values` that have the same owner, (n, ...)."""
    rows = np.arange(len(owner))
    matrix = csr_array((np.ones(len(owner)), (owner, rows)), shape=(n, len(owner)))
    flat = matrix @ values.reshape(len(values), int(np.prod(values.shape[1:])))
    return flat.reshape(n, *values.shape[1:])
