"""From settings to each rank's structures: the root prepares the users' files, every rank reads its own part."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pacehpc import parallel
from pacehpc.backends import memory
from pacehpc.backends.costs import atom_costs
from pacehpc.backends.shape import make_shape
from pacehpc.dataset import Dataset, Store, database, input_hash, weights, write_frame, write_store
from pacehpc.dataset.files import find_file, read_bytes
from pacehpc.dataset.loading import read_raw, referenced, weighted
from pacehpc.dataset.unpickle import frame_attrs
from pacehpc.errors import PacehpcError, without_password
from pacehpc.machine import available_memory, resident_memory
from pacehpc.shard import BYTES_OF_A_BOND, Shard, Stream

if TYPE_CHECKING:
    from pacehpc.config.models import Settings
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

SMALLEST_ROOM = 2**26  # bytes for bonds; with less there is no room for anything, which is said elsewhere
LANES = 8  # of the kernels, about
STORES = {"train": Path("prepared_data.h5"), "test": Path("prepared_test_data.h5")}


def prepare(
    settings: Settings, potential: Potential | None, rebuild: bool = False, ahead: bool = False
) -> tuple[Dataset, Dataset | None, dict[str, Path]]:
    """(train, test or None, the prepared file of each); the files are made where they are missing or do not fit.

    Neighbour lists reach to each bond's rcut; to `settings.cutoff` where there is no potential, or with `ahead`, for
    potentials to come. A file whose lists reach further is used as it is. Raises PacehpcError for whatever is wrong
    with the data.
    """
    if settings.data.filename is None:
        with queried(settings, rebuild) as settings:
            return prepare(settings, potential, rebuild, ahead)
    given = settings.data
    reference, stored = given.reference_energy, stored_reference(potential)
    if stored is not None and reference == "auto":
        log.info("reference energies: those that the potential was fitted with")
        reference = stored
    policy = None if settings.fit.weighting is None else settings.fit.weighting.model_dump(exclude_none=True)
    names = ["train"] if given.test_filename is None and given.test_size is None else ["train", "test"]
    stores = {name: STORES[name] for name in names}
    files = files_of(settings)
    for file in files:
        if any(store.exists() and store.samefile(file) for store in stores.values()):
            raise PacehpcError(f"{file}: is where this fit writes its prepared data. Rename it, here and in the input.")
    inputs = input_hash(
        files,
        {**given.model_dump(), "reference": reference, "stored": stored, "weighting": policy, "seed": settings.seed},
    )
    wider = potential is not None and settings.cutoff is not None and settings.cutoff > potential.cutoff
    reach = settings.cutoff if potential is None or (ahead and wider) else potential
    if not rebuild and (found := _reuse(stores, reach, inputs)) is not None:
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
    return train, test, stores


@contextmanager
def queried(settings: Settings, again: bool = False) -> Iterator[Settings]:
    """Settings whose data.filename is the result of the query in data.config: a file of an earlier query, or a new one.

    The file is kept in datapath and used while the same is asked for; again: query even where a file is kept. Where
    cache_ref_df is false, a hidden file in the working directory lasts as long as the context, and no kept file is
    touched.
    """
    asked = settings.data.config
    if asked is None or asked.element is None:
        raise PacehpcError("data.filename is missing; name the data, or give data.config.element to query a database.")
    folder = Path(settings.data.datapath or os.environ.get("PACEMAKERDATAPATH") or ".").expanduser()
    cache = database.cache_name(asked.calculator, asked.element)
    path = folder / cache if asked.cache_ref_df else Path(f".{cache}")
    wanted = {"element": sorted(asked.element)} | asked.model_dump(include={"calculator", "ref_energy", "query_limit"})
    if asked.query_limit is not None:
        wanted["seed"] = settings.data.seed
    if settings.data.database is not None:
        wanted["database"] = without_password(settings.data.database)
    kept = asked.cache_ref_df and not again and path.is_file()
    other = _other_query(path, wanted) if kept else []
    if other:
        log.info("data: %s is of another query (%s), the database is asked again", path, ", ".join(other))
    if kept and not other:
        log.info("data: %s of an earlier query is used; `--query-data` or `--rebuild` asks the database again", path)
    else:
        name = database.locate(settings.data.database)
        frame = database.query(
            name, asked.element, asked.calculator, asked.ref_energy, asked.query_limit, settings.data.seed
        )
        log.info("data: %d structures from %s", len(frame), without_password(name))
        frame.attrs["query"] = {"database": without_password(name), **wanted}
        try:
            write_frame(frame, path)
        except OSError as problem:
            raise PacehpcError(f"{path}: the result of the query cannot be written ({problem.strerror}).") from None
    try:
        yield settings.model_copy(update={"data": settings.data.model_copy(update={"filename": [str(path.resolve())]})})
    finally:
        if not asked.cache_ref_df:
            path.unlink()


def _other_query(path: Path, wanted: Mapping[str, Any]) -> list[str]:
    """In what the query whose result stands in a file differs; a file that says nothing of it is taken as it is."""
    before = frame_attrs(read_bytes(path), str(path)).get("query")
    if not isinstance(before, dict):
        return []
    keys = [key for key in wanted if before.get(key) != wanted[key]]
    return [f"{key} was {before.get(key)}, is {wanted[key]}" for key in keys]


def _reuse(stores: dict[str, Path], potential: Potential | float, inputs: str) -> dict[str, Dataset] | None:
    """The data of prepared files that fit, else None."""
    found = {}
    for name, path in stores.items():
        if not path.exists():
            return None
        try:
            with Store(path) as store:
                if store.inputs != inputs:
                    log.info("%s was made from other data or settings: it is made anew", path)
                    return None
                if not store.serves(potential):
                    log.info("%s: its neighbour lists are too short or unknown: it is made anew", path)
                    return None
                found[name] = store.dataset()
        except PacehpcError as error:
            log.info("%s It is made anew", error)
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


def files_of(settings: Settings) -> list[Path]:
    """The files of structures and weights that the input names. Raises PacehpcError where one is missing."""
    given = settings.data
    files = [find_file(name, given.datapath) for name in given.filename or []]
    files += [find_file(name, given.datapath, "data.test_filename") for name in given.test_filename or []]
    weights_file = getattr(settings.fit.weighting, "filename", None)
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


def stored_reference(potential: Potential | None) -> dict[str, float] | None:
    """The reference energies that a potential was fitted with; None where its metadata do not give all of them."""
    text = None if potential is None else potential.metadata.get("reference_energy")
    if text is None:
        return None
    try:
        found = {str(key): float(value) for key, value in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        log.warning("reference_energy in the metadata of the potential is not understood and not used: %s", text)
        return None
    missing = [element for element in potential.elements if element not in found]
    if missing:
        log.info("reference energies of the potential are not used: they lack %s", ", ".join(missing))
        return None
    return found


def _differ(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two sets of reference energies give different E^ref, up to 1e-6 eV per atom."""
    shift = other.get("shift", 0.0) - one.get("shift", 0.0)
    return any(abs(other[e] - one[e] - shift) > 1e-6 for e in one if e != "shift" and e in other)


def predicted_imbalance(stores: Mapping[str, Path], size: int) -> float:
    """Largest cost over mean cost of the ranks, as the cost model sees it."""
    with Store(stores["train"]) as store:
        return 1.0 + store.balance(size)


def read_shard(path: Path, potential: Potential, comm: Any | None, memory_limit: float | None = None) -> Shard:
    """This rank's part of a prepared file; it reads nothing else of it.

    Bonds that need more than memory_limit (bytes of the process; None: what is free) leaves beside tables and sums stay
    in the file and are read piece by piece in each evaluation. By all ranks together.
    """
    rank, size = parallel.rank_of(comm), parallel.size_of(comm)
    _, ranks_here = parallel.node_rank(comm)
    with Store(path, potential) as store:
        n_bonds = store.n_bonds_of(rank, size)
        free = available_memory()
        room = np.inf if free is None else free / ranks_here
        if memory_limit is not None:
            room = min(room, memory_limit - resident_memory())
        shape = make_shape(potential, stress=False)
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


def nearest_distances(shard: Shard, potential: Potential, comm: Any | None) -> np.ndarray | None:
    """Smallest distance between neighbours in each structure (n_structures,), Å, in the order of the data, on the root.

    inf where no two atoms are neighbours.
    """
    found = []
    for s in shard.pieces(potential):
        r = np.linalg.norm(s.bond_vector, axis=1)
        bonds = s.bond_offsets[s.atom_offsets]
        found += [r[a:b].min(initial=np.inf) for a, b in pairwise(bonds)]
    shortest = np.array(found)
    parts = parallel.gather((shard.rows, shortest), comm)
    if parts is None:
        return None
    order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
    return np.concatenate([values for _, values in parts])[order]


def shortest_bonds(shard: Shard, potential: Potential, comm: Any | None) -> dict[tuple[str, str], float]:
    """Smallest distance of each sorted pair of elements in all data, Å, on every rank; absent without bonds."""
    n = len(potential.elements)
    shortest = np.full(n * n, np.inf)
    for s in shard.pieces(potential):
        r = np.linalg.norm(s.bond_vector, axis=1)
        centre = np.repeat(s.species, np.diff(s.bond_offsets)).astype(np.int64)
        other = s.species[s.bond_atom].astype(np.int64)
        np.minimum.at(shortest, np.minimum(centre, other) * n + np.maximum(centre, other), r)
    everyone = parallel.broadcast(parallel.gather(shortest, comm), comm)
    smallest = np.min(everyone, axis=0)
    names = [(a, b) for a in potential.elements for b in potential.elements]
    return {pair: float(d) for pair, d in zip(names, smallest, strict=True) if np.isfinite(d)}
