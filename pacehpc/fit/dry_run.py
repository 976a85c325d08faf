"""What would be fitted, shown without fitting: the data and their oddities, the basis, its growth, memory and time."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii

from pacehpc import backends
from pacehpc.backends.costs import evaluation_operations
from pacehpc.backends.interface import LossWeights
from pacehpc.dataset import Store
from pacehpc.fit.evaluations import EVALUATIONS_PER_ITERATION
from pacehpc.fit.gauss_newton import split_options
from pacehpc.fit.optimizers import optimizer_memory
from pacehpc.fit.plan import Plan
from pacehpc.fit.renewal_plan import plan_for, renewal_memory
from pacehpc.fit.resources import cpu_memory, evaluator_options
from pacehpc.fit.schedule import summary, title, total_iterations
from pacehpc.potential import next_ladder_potential, trainable_mask
from pacehpc.report.lines import counted, seconds_text, size_text
from pacehpc.sketch import Sizes
from pacehpc.structures import Structures

if TYPE_CHECKING:
    from pathlib import Path

    from pacehpc.config.models import Backend, Fit, Settings, Weighting
    from pacehpc.dataset import Dataset
    from pacehpc.potential import Potential

log = logging.getLogger("pacehpc")

SAME = 1e-3  # Å: distances of duplicates agree to this
SHOWN = 5  # oddities of a kind that are named
SPREAD = 10.0  # robust standard deviations from the median beyond which a value is an outlier
CLOSE = 0.7  # of the sum of covalent radii; closer atoms are an outlier
SAMPLE_ATOMS, SAMPLE_ATOMS_GPU = 500, 50_000  # of the measured sample, about; fewer leave most of a GPU idle
SAMPLE_SECONDS = 1.0
BONDS_OF_AN_ATOM = 50  # to compare the potentials of a ladder


def dry_run(settings: Settings, plan: Plan, n_ranks: int) -> None:
    """Log all of it, on the root alone.

    Args:
        settings: of the fit.
        plan: what the root has read.
        n_ranks: that the fit would have.

    Raises:
        PacehpcError: a prepared file or a backend that cannot be used.
    """
    potential = plan.target
    for name, data in (("train", plan.train), ("test", plan.test)):
        if data is None:
            continue
        with Store(plan.stores[name], potential) as store:
            structures, rows = store.read_shard(0, 1), store.rows(0, 1)
        _describe(name, data)
        oddities(name, data, structures, rows, potential.elements)
        if name == "train":
            tiers(settings.fit.weighting, data)
    functions(potential)
    steps = ladder(settings.fit, plan)
    seconds = memory_and_time(settings.fit, settings.backend, potential, plan.stores["train"], n_ranks)
    total_time(settings.fit, steps, plan.train, seconds)


def describe(plan: Plan) -> None:
    """Log sizes, elements and ranges of the data."""
    for name, data in plan.data.items():
        _describe(name, data)


def _describe(name: str, data: Dataset) -> None:
    numbers, counts = np.unique(data.numbers, return_counts=True)
    elements = ", ".join(f"{chemical_symbols[z]} {n}" for z, n in zip(numbers, counts, strict=True))
    log.info("%s: %d structures, %d atoms (%s)", name, len(data), data.n_atoms, elements)
    per_atom = data.energy_corrected / data.atoms_per_structure
    force = np.linalg.norm(data.flat_forces, axis=1)
    log.info(
        "%s: energies %.4f to %.4f eV/atom; largest force %.3f eV/A; %d periodic structures, %d with stress",
        name,
        per_atom.min(),
        per_atom.max(),
        force.max(),
        np.count_nonzero(data.volumes > 0),
        0 if data.stress is None else np.count_nonzero(np.isfinite(data.stress).all(axis=1)),
    )


def oddities(name: str, data: Dataset, structures: Structures, rows: np.ndarray, elements: tuple[str, ...]) -> None:
    """Log duplicates and outliers.

    Args:
        name: of the set.
        data: the set.
        structures: all of it, with species by `elements`.
        rows: int64 (n_structures,), their positions in the set.
        elements: of the potential.
    """
    per_atom = data.energy_corrected / data.atoms_per_structure
    groups = [np.sort(rows[group]) for group in duplicates(structures)]
    extra = sum(len(group) - 1 for group in groups)
    log.info("%s: %d duplicates (same elements and neighbour distances)", name, extra)
    groups.sort(key=lambda group: -np.ptp(per_atom[group]))
    for group in groups[:SHOWN]:
        labels = ", ".join(str(data.index[row]) for row in group[:SHOWN]) + (", ..." if len(group) > SHOWN else "")
        log.info("    rows %s: energies differ by %.2f meV/atom", labels, 1e3 * np.ptp(per_atom[group]))

    lonely = np.count_nonzero(np.diff(structures.bond_offsets) == 0)
    log.info("%s: %d of %d atoms have no neighbour within the cutoff", name, lonely, data.n_atoms)

    largest_force = np.maximum.reduceat(np.linalg.norm(data.flat_forces, axis=1), data.atom_offsets[:-1])
    closest = np.empty(len(data))
    closest[rows] = closest_relative(structures, elements)
    for what, unit, values, odd in (
        ("energy per atom", "eV", per_atom, outliers(per_atom)),
        ("largest force", "eV/A", largest_force, outliers(largest_force) & (largest_force > np.median(largest_force))),
        ("shortest distance", "of the sum of covalent radii", closest, closest < CLOSE),
    ):
        found = np.flatnonzero(odd)
        log.info("%s: %d outliers in the %s", name, len(found), what)
        for row in found[np.argsort(-np.abs(values[found] - np.median(values)), kind="stable")][:SHOWN]:
            log.info("    %s: %.4g %s", data.where(row), values[row], unit)


def duplicates(structures: Structures) -> list[np.ndarray]:
    """Groups of structures with the same elements whose sorted bond lengths agree to `SAME`; int64 (n,) each."""
    r = np.linalg.norm(structures.bond_vector, axis=1)
    centre = np.repeat(structures.species, np.diff(structures.bond_offsets)).astype(np.int64)
    other = structures.species[structures.bond_atom].astype(np.int64)
    kind = np.minimum(centre, other) * 1000 + np.maximum(centre, other)
    bonds = structures.bond_offsets[structures.atom_offsets]
    keys, lengths = [], []
    for (a, b), (i, j) in zip(pairwise(structures.atom_offsets), pairwise(bonds), strict=True):
        order = np.lexsort((r[i:j], kind[i:j]))
        lengths.append(r[i:j][order])
        keys.append((np.sort(structures.species[a:b]).tobytes(), kind[i:j][order].tobytes()))
    found = []
    for _, same in groupby(sorted(range(len(keys)), key=lambda s: (keys[s], lengths[s].sum())), key=keys.__getitem__):
        members = list(same)
        group = [members[0]]
        for s in members[1:]:
            if np.abs(lengths[s] - lengths[group[0]]).max(initial=0.0) < SAME:
                group.append(s)
            else:
                found.append(group)
                group = [s]
        found.append(group)
    return [np.array(group) for group in found if len(group) > 1]


def outliers(values: np.ndarray) -> np.ndarray:
    """Where values (n,) are further from the median than `SPREAD` robust standard deviations; bool (n,).

    Such a deviation is 1.48 times the median one.
    """
    deviation = np.abs(values - np.median(values))
    scale = 1.4826 * np.median(deviation)
    return deviation > SPREAD * scale if scale > 0 else np.zeros(len(values), bool)


def closest_relative(structures: Structures, elements: tuple[str, ...]) -> np.ndarray:
    """Smallest bond length over the sum of covalent radii (ASE's), (n_structures,); inf without bonds."""
    radii = np.array([covalent_radii[atomic_numbers[element]] for element in elements])
    centre = np.repeat(structures.species, np.diff(structures.bond_offsets))
    r = np.linalg.norm(structures.bond_vector, axis=1) / (
        radii[centre] + radii[structures.species[structures.bond_atom]]
    )
    bonds = structures.bond_offsets[structures.atom_offsets]
    return np.array([r[a:b].min(initial=np.inf) for a, b in pairwise(bonds)])


def tiers(weighting: Weighting | None, data: Dataset) -> None:
    """Log the sums of the weights of the low and the high structures."""
    limit = getattr(weighting, "DElow", 1.0)
    lower = data.above_hull < limit if data.above_hull is not None else data.low
    what = "above the hull" if data.above_hull is not None else "above the lowest"
    of_atom = np.repeat(lower, data.atoms_per_structure)
    for text, structures, atoms in (("lower", lower, of_atom), ("upper", ~lower, ~of_atom)):
        log.info(
            "weights (%s): %s tier (%s %g eV/atom %s): %d structures, energies %.4f, forces %.4f",
            data.weighting,
            text,
            "below" if text == "lower" else "from",
            limit,
            what,
            np.count_nonzero(structures),
            data.w_energy[structures].sum(),
            data.flat_w_forces[atoms].sum(),
        )


def functions(potential: Potential) -> None:
    """Log the number of functions by block and rank."""
    for (block, rank), rows in potential.functions_table().groupby(["block", "rank"], sort=False):
        log.info("block %-12s rank %d: %d functions", block, rank, len(rows))
    log.info("total: %d functions, %d parameters", potential.n_functions, potential.n_parameters)


def ladder(fit: Fit, plan: Plan) -> list[Potential]:
    """Log the basis of each ladder step and the iterations of the whole fit; returns the potential of each step."""
    steps: list[Potential] = []
    if fit.ladder_step is not None:
        current = plan.start
        while (grown := next_ladder_potential(current, plan.target, fit.ladder_step, fit.ladder_type)) is not None:
            current = grown
            steps.append(grown)
        sizes = [f"{grown.n_functions}/{grown.n_parameters}" for grown in steps]
        log.info("ladder: %d steps, functions/parameters: %s", len(sizes), ", ".join(sizes) or "nothing to add")
    steps = steps or [plan.target]
    n_trainable = int(trainable_mask(plan.target, fit.trainable_parameters).sum())
    if fit.schedule is not None:
        log.info(
            "fit: %d trainable parameters; %s x %s; at most about %d evaluations",
            n_trainable, counted(len(steps), "ladder step"), counted(len(fit.schedule), "stage"),
            len(steps) * EVALUATIONS_PER_ITERATION * total_iterations(fit.stages),
        )  # fmt: skip
        for number, stage in enumerate(fit.stages):
            log.info("%s: %s", title(fit, number), summary(stage))
        return steps
    log.info(
        "fit: %d trainable parameters; %s x %s x at most %d iterations of %s",
        n_trainable,
        counted(len(steps), "ladder step"),
        counted(fit.fit_cycles, "cycle"),
        fit.maxiter,
        fit.optimizer,
    )
    return steps


def total_time(fit: Fit, steps: Sequence[Potential], train: Dataset, seconds: float) -> None:
    """Log the time of the whole fit and when it would end.

    Args:
        fit: how many cycles and iterations.
        steps: the potential of each ladder step.
        train: the data to fit.
        seconds: of an evaluation of the last step's potential.
    """
    species = np.array([np.count_nonzero(train.numbers == atomic_numbers[e]) for e in steps[-1].elements])
    with_bonds = BONDS_OF_AN_ATOM * train.n_atoms  # of all steps the same
    operations = np.array([evaluation_operations(step, with_bonds, species) for step in steps])
    iterations = total_iterations(fit.stages)
    each = EVALUATIONS_PER_ITERATION * iterations * seconds
    if fit.schedule is None:
        what = f"{counted(fit.fit_cycles, 'cycle')} x {fit.maxiter} iterations"
    else:
        what = f"{iterations} iterations of {counted(len(fit.schedule), 'stage')}"
    total = timedelta(seconds=max(1, round(float((operations / operations[-1]).sum() * each))))
    log.info(
        "time: at most about %s for the whole fit (%s); started now it would end at %s",
        total,
        f"{counted(len(steps), 'ladder step')} x {what}, {EVALUATIONS_PER_ITERATION:g} evaluations each",
        (datetime.now() + total).isoformat(" ", "minutes"),
    )


def memory_and_time(fit: Fit, config: Backend, potential: Potential, path: Path, n_ranks: int) -> float:
    """Log memory per rank and the time of an evaluation, from a sample that is evaluated here.

    Args:
        fit: its loss and optimizer.
        config: the section `backend`.
        potential: the largest of the fit.
        path: the prepared file of the data to fit.
        n_ranks: that would share it.

    Returns:
        Seconds of an evaluation on the rank with the most bonds.

    Raises:
        PacehpcError: the backend cannot be used, or the data do not fit into memory.
    """
    stages = fit.stages
    dearest = max(stages, key=lambda stage: (stage.loss.stress > 0, stage.loss.kappa != 0))
    stress = dearest.loss.stress > 0
    backend = config.evaluator
    with Store(path, potential) as store:
        shards = [store.read_shard(rank, n_ranks) for rank in range(n_ranks)]
        balance = 1.0 + store.balance(n_ranks)
    bonds = np.array([shard.n_bonds for shard in shards])
    largest = shards[int(np.argmax(bonds))]
    options = evaluator_options(config, potential, [largest], stress)
    if backend == "cpu":
        of_data = cpu_memory(potential, [largest], stress, options.store_moments)
        log.info("memory: about %s per rank for the data and derived arrays", size_text(of_data))
    n = int(trainable_mask(potential, fit.trainable_parameters).sum())
    needed = []
    for stage in stages:
        needed.append(optimizer_memory(stage.optimizer, n, stage.maxiter))
        if stage.optimizer == "GN-BFGS":
            parts = [Sizes.of(s, len(potential.elements), s.n_bonds, stage.loss.stress > 0) for s in shards]
            method, _ = split_options(stage.options)
            plan = plan_for(method, potential, n, Sizes.added(parts), _known_kappa(stage), stage.loss.stress)
            needed[-1] = renewal_memory(plan.n_rows, n, plan.interval)
    log.info("memory: %s of the first rank for the optimizer", size_text(max(needed)))

    weights = LossWeights(kappa=_known_kappa(dearest), stress=dearest.loss.stress)
    sample = largest.select(slice(0, sample_size(largest, SAMPLE_ATOMS_GPU if backend == "cuda" else SAMPLE_ATOMS)))
    backends.prepare_kernels(backend, potential, weights)
    evaluator = backends.create_evaluator(backend, potential, sample, weights, options)
    x = potential.parameters
    evaluator.evaluate(x)
    times = []
    while sum(times) < SAMPLE_SECONDS and len(times) < 50:
        start = time.perf_counter()
        evaluator.evaluate(x)
        times.append(time.perf_counter() - start)
    measured = float(np.median(times))
    # the costs of the ranks are nearly equal: a rank's share of the bonds and of the atoms says how much larger it is
    scale = max(largest.n_bonds / max(sample.n_bonds, 1), largest.n_atoms / sample.n_atoms)
    log.info(
        "time: about %s an evaluation on %s (sample of %d atoms: %.1f mcs/at on one rank; imbalance %.2f)",
        seconds_text(measured * scale),
        counted(n_ranks, "rank"),
        sample.n_atoms,
        1e6 * measured / sample.n_atoms,
        balance,
    )
    return measured * scale


def _known_kappa(fit: Fit) -> float:
    """Some number in place of `auto`."""
    return 0.5 if fit.loss.kappa == "auto" else fit.loss.kappa


def sample_size(structures: Structures, atoms: int) -> int:
    """Number of the first structures that hold about so many atoms, at least 1."""
    return max(1, int(np.searchsorted(structures.atom_offsets, atoms, side="right")) - 1)
