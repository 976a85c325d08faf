"""A second grade: the distance from the training atoms in the space of normalised B functions.

The extrapolation grade compares B with linear combinations of the chosen rows. It is blind to atoms whose neighbours
have left: B = 0 is such a combination. The distance grade is centred. Training atoms form clusters; the distance is
Mahalanobis's from the mean of the nearest cluster, with the covariance within clusters, in units of the largest
distance of the training atoms themselves.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.vq import kmeans2

from pacehpc.active.choose import Block
from pacehpc.errors import PacehpcError
from pacehpc.replacing import replace_file

if TYPE_CHECKING:
    from pacehpc.parallel import Ranks

SAMPLE = 20_000
"""Training atoms per element that the statistics are made of, at most; taken at equal intervals."""
CLUSTERS = 8
RELATIVE_VARIANCE = 1e-8
"""Directions with less variance than this part of the largest are left out: round-off would decide there."""


@dataclass(frozen=True)
class Distances:
    """Means and whitening of each element's training atoms.

    Args:
        scale: largest |B| per function, (n,).
        centres: of the clusters in whitened coordinates, (n_clusters, n_directions).
        whitening: from scaled B to whitened coordinates, (n, n_directions).
        largest: distance of the farthest training atom.
    """

    scale: np.ndarray
    centres: np.ndarray
    whitening: np.ndarray
    largest: float

    def grades(self, rows: np.ndarray) -> np.ndarray:
        """Return the grade of each row, up to 1 among the training atoms.

        Args:
            rows: (n_atoms, n) of B functions in the order of active sets.
        """
        return _nearest((rows / self.scale) @ self.whitening, self.centres) / self.largest


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    squares = ((points[:, None, :] - centres[None]) ** 2).sum(axis=2) if len(points) else np.zeros((0, len(centres)))
    return np.sqrt(squares.min(axis=1))


def learn(
    blocks: Callable[[], Iterator[Block]], counts: Mapping[str, int], ranks: Ranks, seed: int = 0
) -> dict[str, Distances]:
    """Learn the distances of all elements; called by all ranks together, the same result on each.

    Args:
        blocks: this rank's rows, as for `choose`.
        counts: number of atoms of each element in all data.
        ranks: that share the blocks.
        seed: of the clusters' first means.
    """
    every = {element: max(1, -(-count // SAMPLE)) for element, count in counts.items()}
    seen: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {element: [] for element in counts}
    for _, block in blocks():
        for element, (atoms, rows) in block.items():
            kept = _hash(atoms) % every[element] == 0
            seen[element].append((atoms[kept], rows[kept]))
    gathered = ranks.gather(seen)

    def root() -> dict[str, Distances]:
        found = {}
        for element in counts:
            parts = [part for of_rank in gathered for part in of_rank[element]]
            rows = np.concatenate([r for _, r in parts])
            if len(rows) > 1:
                found[element] = _learn(rows[np.argsort(np.concatenate([a for a, _ in parts]))], seed)
        return found

    return ranks.share(root)


def _hash(atoms: np.ndarray) -> np.ndarray:
    """Numbers that look random: equal intervals would pick the same site of each structure."""
    mixed = atoms.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(33)).astype(np.int64)


def _learn(rows: np.ndarray, seed: int) -> Distances:
    scale = np.abs(rows).max(axis=0)
    scale[scale == 0.0] = 1.0
    scaled = rows / scale
    labels = np.zeros(len(rows), int)
    n_clusters = min(CLUSTERS, len(rows) // 20)
    if n_clusters > 1:
        principal = scaled - scaled.mean(axis=0)
        _, values, directions = np.linalg.svd(principal[:: max(1, len(rows) // 4000)], full_matrices=False)
        leading = directions[values > 1e-3 * values[0]][:16]
        _, labels = kmeans2(principal @ leading.T, n_clusters, seed=seed, minit="++")
    used = np.unique(labels)
    means = np.stack([scaled[labels == k].mean(axis=0) for k in used])
    within = scaled - means[np.searchsorted(used, labels)]
    variances, directions = np.linalg.eigh(within.T @ within / len(rows))
    kept = variances > RELATIVE_VARIANCE * variances[-1]
    whitening = directions[:, kept] / np.sqrt(variances[kept])
    centres = means @ whitening
    largest = float(_nearest(scaled @ whitening, centres).max())
    return Distances(scale, centres, whitening, largest)


def save_distances(distances: Mapping[str, Distances], path: str | os.PathLike[str]) -> None:
    """Write an .npz with the arrays of each element."""
    arrays = {}
    for element, one in distances.items():
        arrays |= {f"{element}/{name}": np.asarray(value) for name, value in vars(one).items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    replace_file(Path(path), buffer.getvalue())


def load_distances(path: str | os.PathLike[str]) -> dict[str, Distances]:
    """Read a file of `save_distances`.

    Raises:
        PacehpcError: it is missing or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {tuple(name.split("/")): archive[name] for name in archive.files}
        elements = dict.fromkeys(element for element, _ in arrays)
        return {
            element: Distances(
                arrays[element, "scale"], arrays[element, "centres"], arrays[element, "whitening"],
                float(arrays[element, "largest"]),
            )
            for element in elements
        }  # fmt: skip
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, AttributeError) as error:
        raise PacehpcError(f"{path}: not a file of distances, which `pacehpc activeset --distance` writes.") from error
