"""Structures from a database: the query in data.config, kept as a file and used again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacehpc.dataset import database, write_frame
from pacehpc.dataset.files import read_bytes
from pacehpc.dataset.unpickle import frame_attrs
from pacehpc.errors import PacehpcError, without_password

if TYPE_CHECKING:
    from pacehpc.config.data_keys import Data

log = logging.getLogger("pacehpc")


@contextmanager
def queried(given: Data, again: bool = False) -> Iterator[Data]:
    """The section `data` with the result of its query as filename: a file of an earlier query, or a new one.

    The file is kept in datapath and used as long as the query is the same. Where cache_ref_df is false, a hidden file
    in the working directory lasts as long as the context, and no kept file is touched.

    Args:
        given: without filename.
        again: query even where a file is kept.
    """
    asked = given.config
    if asked is None or asked.element is None:
        raise PacehpcError("data.filename is missing; name the data, or give data.config.element to query a database.")
    folder = Path(given.datapath or os.environ.get("PACEMAKERDATAPATH") or ".").expanduser()
    cache = database.cache_name(asked.calculator, asked.element)
    path = folder / cache if asked.cache_ref_df else Path(f".{cache}")
    wanted = {"element": sorted(asked.element)} | asked.model_dump(include={"calculator", "ref_energy", "query_limit"})
    if asked.query_limit is not None:
        wanted["seed"] = given.seed
    if given.database is not None:
        wanted["database"] = without_password(given.database)
    kept = asked.cache_ref_df and not again and path.is_file()
    other = _other_query(path, wanted) if kept else []
    if other:
        log.info(
            "data: %s holds the result of a different query (%s); querying the database again", path, ", ".join(other)
        )
    if kept and not other:
        log.info("data: using %s of an earlier query; `--query-data` or `--rebuild` queries the database again", path)
    else:
        name = database.locate(given.database)
        frame = database.query(name, asked.element, asked.calculator, asked.ref_energy, asked.query_limit, given.seed)
        log.info("data: %d structures from %s", len(frame), without_password(name))
        frame.attrs["query"] = {"database": without_password(name), **wanted}
        try:
            write_frame(frame, path)
        except OSError as problem:
            raise PacehpcError(f"{path}: the result of the query cannot be written ({problem.strerror}).") from None
    try:
        yield given.model_copy(update={"filename": [str(path.resolve())]})
    finally:
        if not asked.cache_ref_df:
            path.unlink()


def _other_query(path: Path, wanted: Mapping[str, Any]) -> list[str]:
    """How the query whose result is in a file differs from the wanted one; a file that does not say is accepted."""
    before = frame_attrs(read_bytes(path), str(path)).get("query")
    if not isinstance(before, dict):
        return []
    keys = [key for key in wanted if before.get(key) != wanted[key]]
    return [f"{key} was {before.get(key)}, is {wanted[key]}" for key in keys]
