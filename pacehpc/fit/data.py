"""From settings to each rank's structures: the root prepares the users' files, every rank reads its own part."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pacehpc.backends import memory
from pacehpc.backends.costs import atom_costs
from pacehpc.backends.shape import make_shape
from pacehpc.dataset import Dataset, Store, input_hash, weights, write_store
from pacehpc.dataset.files import find_file
from pacehpc.dataset.loading import read_raw, referenced, weighted
from pacehpc.errors import PacehpcError
from pacehpc.fit.labels import check_labels, needed_by
from pacehpc.fit.query import queried
from pacehpc.late_files import retry
from pacehpc.machine import available_memory, resident_memory
from pacehpc.parallel import Ranks
from pacehpc.potential.reference import stored_reference
from pacehpc.shard import BYTES_OF_A_BOND, Shard, Stream

if TYPE_CHECKING:
    from pacehpc.config.data_keys import Data
    from pacehpc.config.models import Settings, Weighting
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

SMALLEST_ROOM = 2**26  # bytes for bonds; below this nothing fits, which evaluator_options reports
LANES = 8  # of the kernels, about
STORES = {"train": Path("prepared_data.h5"), "test": Path("prepared_test_data.h5")}


def prepare(
    settings: Settings, potential: Potential | None, rebuild: bool = False, ahead: bool = False
) -> tuple[Dataset, Dataset | None, dict[str, Path]]:
    """Prepare the data of a run; prepared files are used where they are up to date.

    Neighbour lists reach to each bond's rcut; to `settings.cutoff` where there is no potential, or with `ahead`. A file
    whose lists reach further is used as it is.

    Args:
        settings: of the run.
        potential: whose elements and cutoffs count; None: none is known yet.
        rebuild: prepare the data again even where files are up to date.
        ahead: for potentials to come.

    Returns:
        (train, test or None, the prepared file of each)

    Raises:
        PacehpcError: whatever is wrong with the data.
    """
    if settings.data.filename is None:
        with queried(settings.data, rebuild) as found:
            return prepare(settings.model_copy(update={"data": found}), potential, rebuild, ahead)
    given = settings.data
    reference, stored = given.reference_energy, stored_reference(potential)
    if stored is not None and reference == "auto":
        log.info("reference energies: those that the potential was fitted with")
        reference = stored
    policy = None if settings.fit.weighting is None else settings.fit.weighting.model_dump(exclude_none=True)
    names = ["train"] if given.test_filename is None and given.test_size is None else ["train", "test"]
    stores = {name: STORES[name] for name in names}
    files = files_of(given, settings.fit.weighting)
    for file in files:
        if any(store.exists() and store.samefile(file) for store in stores.values()):
            raise PacehpcError(f"{file}: is where this fit writes its prepared data. Rename it, here and in the input.")
    inputs = input_hash(
        files,
        {
            **given.model_dump(),
            "reference": reference,
            "stored": stored,
            "weighting": policy,
            "weights": list((given.weights or {}).items()),  # their order counts
            "seed": settings.seed,
            "needed": needed_by(settings.fit),
        },
    )
    wider = potential is not None and settings.cutoff is not None and settings.cutoff > potential.cutoff
    if potential is not None and settings.cutoff is not None and settings.cutoff < potential.cutoff:
        log.warning(
            "cutoff: %g Å is smaller than the largest rcut and not used: neighbours reach to each rcut, at most %g Å",
            settings.cutoff,
            potential.cutoff,
        )
    reach = settings.cutoff if potential is None or (ahead and wider) else potential
    if not rebuild and (found := _reuse(stores, reach, inputs)) is not None:
        check_labels(settings.fit, found["train"], stores["train"])
        return found.get("train"), found.get("test"), stores
    train, test = load_data(settings, None if potential is None else potential.elements, reference, policy, stored)
    if stored is not None and train.reference_energy is not None and _differ(stored, train.reference_energy):
        log.warning(
            "data.reference_energy: %s; the potential was fitted with %s, so its energies are shifted against the data",
            train.reference_energy,
            stored,
        )
    if wider and not ahead:
        log.info(
            "neighbour lists end at each rcut, at most %g Å; cutoff: %g counts with --prepare-data",
            potential.cutoff,
            settings.cutoff,
        )
    for name, data in (("train", train), ("test", test)):
        if data is not None:
            costs = None if potential is None else atom_costs(potential)
            write_store(stores[name], data, reach, inputs=inputs, atom_costs=costs)
    check_labels(settings.fit, train, stores["train"])
    return train, test, stores


def _reuse(stores: dict[str, Path], potential: Potential | float, inputs: str) -> dict[str, Dataset] | None:
    """The data of prepared files that fit, else None."""
    found = {}
    for name, path in stores.items():
        if not path.exists():
            return None
        try:
            with Store(path) as store:
                if store.inputs != inputs:
                    log.info("%s is out of date (data or settings changed); rebuilding it", path)
                    return None
                if not store.serves(potential):
                    log.info("%s is out of date (its neighbour lists are too short or unknown); rebuilding it", path)
                    return None
                found[name] = store.dataset()
        except PacehpcError as error:
            log.info("%s Rebuilding it", error)
            return None
    log.info("data: prepared before, in %s", ", ".join(map(str, stores.values())))
    return found


def load_data(
    settings: Settings,
    elements: Sequence[str] | None,
    reference: Any,
    policy: Mapping[str, Any] | None,
    stored: Mapping[str, float] | None = None,
) -> tuple[Dataset, Dataset | None]:
    """(train, test or None): selection and weights are made on both together, then normalised in each.

    stored: reference energies for data without `energy_corrected`, where the input says nothing.
    """
    given = settings.data
    files = list(given.filename)
    n_train_files = len(files)
    files += given.test_filename or []
    data = read_raw(files, elements, None, given.datapath, given.stress_units, given.keys)
    if reference is None and stored is not None and not np.isfinite(data.energy_corrected).all():
        log.info("reference energies: those that the potential was fitted with")
        reference = stored
    data = referenced(data, reference)
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
    needed = needed_by(settings.fit)
    data = weighted(
        data, policy, given.datapath, given.ignore_weights, given.aug_factor, settings.seed, needed, given.weights
    )
    if not len(test_rows):
        return data, None
    is_test = np.isin(data.rows, test_rows)
    parts = [data.subset(~is_test), data.subset(is_test)]
    for part, name in zip(parts, ("train", "test"), strict=True):
        if len(part) == 0:
            raise PacehpcError(f"fit.weighting leaves no structure of the {name} set.")
        part.w_energy, part.flat_w_forces = weights.normalise(
            part.w_energy, part.flat_w_forces, f"the {name} set", needed
        )
    log.info("data: %d structures to fit, %d to test", len(parts[0]), len(parts[1]))
    return parts[0], parts[1]


def files_of(given: Data, weighting: Weighting | None) -> list[Path]:
    """The files of structures and weights that the input names. Raises PacehpcError where one is missing."""
    files = [find_file(name, given.datapath, "data.filename") for name in given.filename or []]
    files += [find_file(name, given.datapath, "data.test_filename") for name in given.test_filename or []]
    weights_file = getattr(weighting, "filename", None)
    if weights_file is not None:
        files.append(find_file(weights_file, given.datapath, "fit.weighting.filename"))
    return files


def warn_of_elements(potential: Potential, data: Dataset) -> None:
    """Warn of elements that the fit will not describe: without functions of their own, or absent from the data."""
    alone = {block.name for block in potential.blocks if block.functions}
    bare = [element for element in potential.elements if element not in alone]
    if bare:
        log.warning(
            "potential.functions: none for %s alone (UNARY), so that a crystal of that element has no energy",
            ", ".join(bare),
        )
    absent = [element for element in potential.elements if element not in data.elements]
    if absent:
        log.warning("no structure to fit contains %s: its functions are not fitted", ", ".join(absent))


def _differ(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two sets of reference energies give different E^ref, up to 1e-6 eV per atom."""
    shift = other.get("shift", 0.0) - one.get("shift", 0.0)
    return any(abs(other[e] - one[e] - shift) > 1e-6 for e in one if e != "shift" and e in other)


def predicted_imbalance(stores: Mapping[str, Path], size: int) -> float:
    """Largest cost over mean cost of the ranks, as the cost model sees it."""
    with Store(stores["train"]) as store:
        return 1.0 + store.balance(size)


def read_shard(path: Path, potential: Potential, ranks: Ranks, memory_limit: float | None = None) -> Shard:
    """Read this rank's part of a prepared file, and nothing else of it.

    Bonds that need more than memory_limit (bytes of the process; None: what is free) leaves beside tables and sums stay
    in the file and are read piece by piece in each evaluation.
    """
    rank, size = ranks.rank, ranks.size
    identity = ranks.share(lambda: _identity(path, potential))
    with retry(lambda: _opened(path, potential, identity)) as store:
        n_bonds = store.n_bonds_of(rank, size)
        free = available_memory()
        room = np.inf if free is None else free / ranks.node_size
        if memory_limit is not None:
            room = min(room, memory_limit - resident_memory())
        shape = make_shape(potential)
        room -= memory.evaluator_memory(shape, np.zeros(len(shape.elements)), 0, LANES, store_moments=False)
        if room < SMALLEST_ROOM or BYTES_OF_A_BOND * n_bonds <= room:
            return Shard(store.read_shard(rank, size), store.rows(rank, size))
        max_bonds = int(room / 2 / BYTES_OF_A_BOND)
        log.warning(
            "The %d bonds of this rank do not fit into %.2f GiB: they are read from %s in each evaluation. More ranks "
            "with less data each would be faster.", n_bonds, room / 2**30, path,
        )  # fmt: skip
        stream = Stream(path.resolve(), rank, size, max_bonds)
        return Shard(store.read_without_bonds(rank, size), store.rows(rank, size), stream, n_bonds)


def _identity(path: Path, potential: Potential) -> str:
    with Store(path, potential) as store:
        return store.identity


def _opened(path: Path, potential: Potential, identity: str) -> Store:
    """The file, open; raises PacehpcError where this node does not see the one that the root sees."""
    store = Store(path, potential)
    if store.identity != identity:
        store.close()
        raise PacehpcError(f"{path}: is not the same file on all nodes. Start in a folder that all of them share.")
    return store


def nearest_distances(shard: Shard, potential: Potential, ranks: Ranks) -> np.ndarray | None:
    """Smallest distance between neighbours in each structure (n_structures,), Å, in the order of the data, on the root.

    inf where no two atoms are neighbours.
    """
    found = []
    for s in shard.pieces(potential):
        r = np.linalg.norm(s.bond_vector, axis=1)
        bonds = s.bond_offsets[s.atom_offsets]
        found += [r[a:b].min(initial=np.inf) for a, b in pairwise(bonds)]
    shortest = np.array(found)
    parts = ranks.gather((shard.rows, shortest))
    if parts is None:
        return None
    order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
    return np.concatenate([values for _, values in parts])[order]


def shortest_bonds(shard: Shard, potential: Potential, ranks: Ranks) -> dict[tuple[str, str], float]:
    """Smallest distance of each sorted pair of elements in all data, Å, on every rank; absent without bonds."""
    n = len(potential.elements)
    shortest = np.full(n * n, np.inf)
    for s in shard.pieces(potential):
        r = np.linalg.norm(s.bond_vector, axis=1)
        centre = np.repeat(s.species, np.diff(s.bond_offsets)).astype(np.int64)
        other = s.species[s.bond_atom].astype(np.int64)
        np.minimum.at(shortest, np.minimum(centre, other) * n + np.maximum(centre, other), r)
    smallest = np.min(ranks.gather_everywhere(shortest), axis=0)
    names = [(a, b) for a in potential.elements for b in potential.elements]
    return {pair: float(d) for pair, d in zip(names, smallest, strict=True) if np.isfinite(d)}
