"""From settings to each rank's structures: the root reads the users' files, every rank gets its own part."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pacehpc import parallel
from pacehpc.dataset import Dataset, weights
from pacehpc.dataset.dataset import read_dataset, weighted
from pacehpc.errors import PacehpcError
from pacehpc.objective import Shard, cut

if TYPE_CHECKING:
    from pacehpc.config.models import Settings
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")


def load_data(settings: Settings, potential: Potential) -> tuple[Dataset, Dataset | None]:
    """(train, test or None): selection and weights are made on both together, then normalised in each.

    `reference_energy: auto` takes the reference energies from the potential's metadata where a former fit left them.
    Raises PacehpcError for whatever is wrong with the data.
    """
    given = settings.data
    reference = given.reference_energy
    if reference == "auto" and "reference_energy" in potential.metadata:
        reference = json.loads(potential.metadata["reference_energy"])
        log.info("reference energies: from the metadata of the potential: %s", reference)
    files = list(given.filename)
    n_train_files = len(files)
    files += given.test_filename or []
    data = read_dataset(files, potential.elements, None, reference, given.datapath, given.stress_units)
    is_test = np.zeros(len(data), dtype=bool)
    if given.test_filename:
        is_test = data.source >= n_train_files
    elif given.test_size is not None:
        n_test = round(given.test_size * len(data)) if given.test_size < 1 else int(given.test_size)
        if not 0 < n_test < len(data):
            raise PacehpcError(
                f"data.test_size: {given.test_size} of {len(data)} structures leaves no train or test set."
            )
        is_test[np.random.default_rng(given.seed).permutation(len(data))[:n_test]] = True
    test_rows = data.rows[is_test]
    policy = None if settings.fit.weighting is None else settings.fit.weighting.model_dump(exclude_none=True)
    data = weighted(data, policy, given.datapath, given.ignore_weights, given.aug_factor, settings.seed)
    if not len(test_rows):
        return data, None
    is_test = np.isin(data.rows, test_rows)
    parts = [data.subset(~is_test), data.subset(is_test)]
    for part, name in zip(parts, ("train", "test"), strict=True):
        if len(part) == 0:
            raise PacehpcError(f"fit.weighting leaves no structure of the {name} set.")
        part.w_energy, part.flat_w_forces = weights.normalise(part.w_energy, part.flat_w_forces, f"the {name} set")
    log.info("data: %d structures to fit, %d to test", len(parts[0]), len(parts[1]))
    return parts[0], parts[1]


def distribute(data: Dataset | None, potential: Potential, comm: Any | None) -> Shard:
    """This rank's part of the root's data, with its neighbour lists."""
    if comm is None:
        return Shard(data.structures(potential), np.arange(len(data)))
    pieces = None
    if parallel.is_root(comm):
        rows = cut(data.atoms_per_structure, comm.size)
        pieces = [(data.subset(part), part) for part in rows]
    piece, rows = comm.scatter(pieces, root=0)
    return Shard(piece.structures(potential), rows)


def nearest_distances(shard: Shard, comm: Any | None) -> np.ndarray | None:
    """Smallest distance between neighbours in each structure (n_structures,), Å, in the order of the data, on the root.

    inf where no two atoms are neighbours.
    """
    s = shard.structures
    r = np.linalg.norm(s.bond_vector, axis=1)
    bonds = s.bond_offsets[s.atom_offsets]
    shortest = np.array([r[a:b].min(initial=np.inf) for a, b in pairwise(bonds)])
    parts = parallel.gather((shard.rows, shortest), comm)
    if parts is None:
        return None
    order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
    return np.concatenate([values for _, values in parts])[order]


def shortest_bonds(shard: Shard, potential: Potential, comm: Any | None) -> dict[tuple[str, str], float]:
    """Smallest distance of each sorted pair of elements in all data, Å, on every rank; absent without bonds."""
    s = shard.structures
    n = len(potential.elements)
    shortest = np.full(n * n, np.inf)
    r = np.linalg.norm(s.bond_vector, axis=1)
    centre = np.repeat(s.species, np.diff(s.bond_offsets)).astype(np.int64)
    other = s.species[s.bond_atom].astype(np.int64)
    np.minimum.at(shortest, np.minimum(centre, other) * n + np.maximum(centre, other), r)
    everyone = parallel.broadcast(parallel.gather(shortest, comm), comm)
    smallest = np.min(everyone, axis=0)
    names = [(a, b) for a in potential.elements for b in potential.elements]
    return {pair: float(d) for pair, d in zip(names, smallest, strict=True) if np.isfinite(d)}
