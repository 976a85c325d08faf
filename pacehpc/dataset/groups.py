"""Groups of structures: their labels, and factors on the weights of those that a pattern names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from pacehpc.errors import PacehpcError

log = logging.getLogger("pacehpc")

MOST_GROUPS = 40  # with more, labels are no groups
REST = "others"
SHOWN = 30  # labels in a message

GroupWeights = Mapping[str, Mapping[str, float]]
"""Shell pattern of labels -> {"energy": factor, "forces": factor}, either of them or both."""


def group_labels(names: Sequence[str], info: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The group of each structure: `config_type`, else its name without a number at the end, else its first word.

    Args:
        names: of structures, "" where there is none.
        info: further values of each structure, `config_type` among them.

    Returns:
        (n_structures,) of str; `others` for structures without a label, and for all where labels form no groups.
    """
    for labels in zip(*map(possible_labels, names, info), strict=True):
        groups = [label or REST for label in labels]
        if 1 < len(set(groups)) <= min(MOST_GROUPS, max(2, len(groups) // 2)):
            return np.array(groups, dtype=object)
    return np.full(len(names), REST, dtype=object)


def common_labels(sets: Sequence[tuple[Sequence[str], Sequence[Mapping[str, Any]]]]) -> list[np.ndarray]:
    """`group_labels` of several data sets together, so that a group has the same name in all of them.

    Args:
        sets: names and further values of the structures of each.
    """
    labels = group_labels([name for names, _ in sets for name in names], [one for _, info in sets for one in info])
    return np.split(labels, np.cumsum([len(names) for names, _ in sets])[:-1])


def possible_labels(name: str, info: Mapping[str, Any]) -> tuple[str, str, str]:
    """What may be the label of a structure, in the order of preference; "" where there is none."""
    return str(info.get("config_type") or ""), _stem(name), re.split(r"[\W_]", name, maxsplit=1)[0] or name


def pattern_labels(names: Sequence[str], info: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """What patterns of `data.weights` are compared with: the labels of `group_labels`.

    Where those form no groups, the `config_type` of each structure, else its name without a number at the end.
    Arguments and result as of `group_labels`.
    """
    labels = group_labels(names, info)
    if (labels != REST).any():
        return labels
    types = [str(one.get("config_type") or "") for one in info]
    own = [kind or _stem(name) or REST for kind, name in zip(types, names, strict=True)]
    return np.array(own, dtype=object)


def group_factors(labels: np.ndarray, group_weights: GroupWeights, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Factors on the weights of energies (and stresses) and of forces of each structure, (n_structures,) each.

    Of several patterns that match a structure the last one counts that names the factor; without any it is 1.

    Args:
        labels: as `pattern_labels` gives them, (n_structures,).
        group_weights: factors by pattern.
        where: the key of the input, for messages.

    Raises:
        PacehpcError: a pattern matches no structure, or something else than energy and forces has a factor.
    """
    counts = Counter(labels.tolist())
    factors = {"energy": np.ones(len(labels)), "forces": np.ones(len(labels))}
    for pattern, given in group_weights.items():
        matching = [label for label in counts if fnmatchcase(label, pattern)]
        if not matching:
            known = [label for label, _ in counts.most_common()]
            more = f", and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
            raise PacehpcError(
                f"{where}: the pattern {pattern!r} matches no structure. The labels in the data are: "
                f"{', '.join(known[:SHOWN])}{more}."
            )
        rows = np.isin(labels, matching)
        for name, factor in given.items():
            if name not in factors:
                raise PacehpcError(f"{where}: {pattern}: no factor {name!r}; there are energy and forces.")
            factors[name][rows] = factor
    return factors["energy"], factors["forces"]


def log_factors(labels: np.ndarray, energy: np.ndarray, forces: np.ndarray, where: str) -> None:
    """Log the structures of each group and the factors on their weights, as `group_factors` gives them."""
    lines = ["  structures  energies    forces  group"]
    for label, count in Counter(labels.tolist()).most_common():
        first = int(np.argmax(labels == label))
        if energy[first] != 1 or forces[first] != 1:
            lines.append(f"{count:12d}{energy[first]:10.4g}{forces[first]:10.4g}  {label}")
    rest = int(np.count_nonzero((energy == 1) & (forces == 1)))
    log.info("%s, factors on the weights (%d structures keep theirs):\n%s", where, rest, "\n".join(lines))


def _stem(name: str) -> str:
    """A name without a number at its end."""
    return re.sub(r"[\W_]*\d+$", "", name) or name
